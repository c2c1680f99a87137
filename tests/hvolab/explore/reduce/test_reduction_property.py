"""Random small programs: the reduced search shows what the unreduced one shows."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from small_programs import KINDS, MODELS, programs, setup_from
from small_setups import (
    Outcomes,
)

from emu.paging.models import (
    LAZY,
    LAZY_ALDER_LAKE,
    LAZY_ERRATUM_383,
    LAZY_NO_PSC,
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


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)
@given(st.lists(st.lists(st.integers(0, KINDS - 1), min_size=1, max_size=3), min_size=2, max_size=3))
def test_the_reduced_search_shows_what_the_unreduced_one_shows_at_length(
    model: CpuModel, program: list[list[int]]
) -> None:
    """200 programs on each of the five models; those of more than 400 orders, about half, are left out."""
    agreed = agree(program, 400, model)
    assume(agreed is not None)
    assert agreed


# CPU 0 replaces the page table in an operation; CPU 1 frees the frame of the old one and loads through it.
FREED_BETWEEN = [[34], [37, 4]]


@pytest.mark.parametrize(
    "model",
    [
        LAZY_ALDER_LAKE,
        *(pytest.param(model, marks=pytest.mark.slow) for model in MODELS if model is not LAZY_ALDER_LAKE),
    ],
)
def test_the_order_of_a_release_and_of_stores_that_have_nothing_to_do_with_it_decides_nothing(
    model: CpuModel,
) -> None:
    """It once did: a walk was taken to come after a release when as many stores had been made before both."""
    assert agree(FREED_BETWEEN, 400, model)


# CPU 0 splits, loads, frees the frame of the table and loads again; CPU 1 loads.
FREED_WHILE_IN_USE = [[0, 37, 0], [0]]


@pytest.mark.parametrize("model", [LAZY, LAZY_NO_PSC, LAZY_ERRATUM_383], ids=lambda model: model.name)
def test_a_walk_through_a_table_that_is_free_is_not_taken_for_what_was_cached_before(model: CpuModel) -> None:
    """Whether a CPU had walked before once decided it: a present translation can be walked for at any use."""
    assert agree(FREED_WHILE_IN_USE, 400, model)
