"""Random small programs: the reduced search shows what the unreduced one shows."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from small_setups import (
    FRAME,
    NEW,
    OTHER,
    WORD,
    Body,
    Outcomes,
    X,
    allocates,
    copy_out,
    decides,
    flush_all,
    flush_page,
    freed,
    grace_period,
    increment,
    loads,
    locked,
    operation,
    pretended_flush,
    reader_section,
    set_pte,
    setup_of,
    split,
    stores,
    then,
    waits_for_memory,
    without_interrupts,
)

from emu.paging.pte import PteBit
from hvolab.explore.budget import Budget
from hvolab.explore.explorer import explore
from hvolab.explore.reduce.dpor import Reduced
from hvolab.explore.search.depth_first import everything
from hvolab.explore.search.interface import Freedom, Search
from hvolab.subject.scenario import Setup
from kernel_model.mm.pgtable import PAGE_KERNEL, PAGE_KERNEL_RO

ALL = frozenset(Freedom)


def pieces(cpu: int) -> tuple[Body, ...]:
    """What a CPU may be made to do."""
    return (
        loads(cpu, WORD),
        stores((WORD, 7 + cpu)),
        loads(cpu, X),
        stores((X, cpu + 1)),
        loads(cpu, OTHER),
        locked(increment(cpu, X)),
        flush_page,
        flush_all,
        split,
        set_pte(NEW, PAGE_KERNEL),
        set_pte(FRAME, PAGE_KERNEL_RO),
        set_pte(FRAME, PAGE_KERNEL),
        set_pte(NEW, PAGE_KERNEL_RO),
        set_pte(0, PteBit(0)),
        freed(FRAME),
        pretended_flush,
        operation(set_pte(NEW, PAGE_KERNEL)),
        operation(then(copy_out, set_pte(NEW, PAGE_KERNEL))),
        copy_out,
        without_interrupts(loads(cpu, WORD)),
        without_interrupts(locked(stores((X, 9)))),
        locked(flush_page),
        grace_period,
        reader_section(cpu, loads(cpu, WORD)),
        decides(cpu),
        waits_for_memory(cpu),
        allocates(cpu),
    )


KINDS = len(pieces(0))
programs = st.lists(st.lists(st.integers(0, KINDS - 1), min_size=1, max_size=2), min_size=2, max_size=3)


def setup_from(program: list[list[int]]) -> Setup:
    """CPU 0 splits the PMD first: without that, most pieces have no effect on each other."""
    bodies = [then(*(pieces(cpu)[number] for number in numbers)) for cpu, numbers in enumerate(program)]
    return setup_of(then(split, bodies[0]), *bodies[1:])


def compare(program: list[list[int]], most_runs: int) -> None:
    shown = []
    searches: tuple[Search, ...] = (everything(), Reduced())
    for search in searches:
        outcomes = Outcomes(search)
        done = explore(setup_from(program), outcomes, ALL, Budget(runs=most_runs))
        assume(done.coverage.complete)
        shown.append((outcomes.seen, {(one.finding.verdict, one.finding.where) for one in done.found}))
    assert shown[0] == shown[1]


@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)
@given(programs)
def test_the_reduced_search_shows_what_the_unreduced_one_shows(program: list[list[int]]) -> None:
    compare(program, 400)


@pytest.mark.slow
@settings(
    max_examples=400,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)
@given(st.lists(st.lists(st.integers(0, KINDS - 1), min_size=1, max_size=3), min_size=2, max_size=3))
def test_the_reduced_search_shows_what_the_unreduced_one_shows_at_length(program: list[list[int]]) -> None:
    compare(program, 4000)
