"""Random small programs: the reduced search shows what the unreduced one shows."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from small_programs import KINDS, KINDS_HERE, MODELS, programs, setup_from
from small_setups import (
    Outcomes,
)

from emu.paging.models import (
    LAZY,
    CpuModel,
)
from hvolab.explore.budget import Budget
from hvolab.explore.explorer import explore
from hvolab.explore.reduce.dpor import Reduced
from hvolab.explore.search.depth_first import everything
from hvolab.explore.search.interface import Freedom, Strategy
from hvolab.explore.states.visits import EVERY_STATE, NO_STATES

ALL = frozenset(Freedom)


def agree(program: list[list[int]], most_runs: int, model: CpuModel = LAZY) -> bool | None:
    """Whether all searches show the same final states and findings; None where one of them did not end."""
    shown = []
    searches: tuple[Strategy, ...] = (
        everything(),
        Reduced(remembers=NO_STATES),
        Reduced(remembers=EVERY_STATE),
    )
    for search in searches:
        outcomes = Outcomes(search)
        done = explore(setup_from(program, model), outcomes, ALL, Budget(runs=most_runs))
        if not done.coverage.complete:
            return None
        shown.append((outcomes.seen, {(one.finding.verdict, one.finding.where) for one in done.found}))
    return shown[0] == shown[1] == shown[2]


@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)
@given(programs)
def test_the_reduced_search_shows_what_the_unreduced_one_shows(program: list[list[int]]) -> None:
    agreed = agree(program, 120)
    assume(agreed is not None)
    assert agreed


def _programs_of(kinds: int) -> st.SearchStrategy[list[list[int]]]:
    return st.lists(st.lists(st.integers(0, kinds - 1), min_size=1, max_size=3), min_size=2, max_size=3)


AT_LENGTH = settings(
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
@settings(AT_LENGTH, max_examples=200)
@given(_programs_of(KINDS_HERE))
def test_the_reduced_search_shows_what_the_unreduced_one_shows_at_length(
    model: CpuModel, program: list[list[int]]
) -> None:
    """200 programs on each of the five models; those of more than 400 orders, about half, are left out."""
    agreed = agree(program, 400, model)
    assume(agreed is not None)
    assert agreed


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
@settings(AT_LENGTH, max_examples=60)
@given(_programs_of(KINDS))
def test_it_does_so_where_others_flush_by_broadcast_or_at_ticks_at_length(
    model: CpuModel, program: list[list[int]]
) -> None:
    """Fewer, for they have more orders: most of them too many."""
    agreed = agree(program, 400, model)
    assume(agreed is not None)
    assert agreed
