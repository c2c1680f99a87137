"""Random small programs: the reduced search shows what the unreduced one shows."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from small_catalog import other_table
from small_setups import (
    FRAME,
    NEW,
    NEW_WORD,
    OTHER,
    TABLE,
    WORD,
    Body,
    Outcomes,
    X,
    allocates,
    config_of,
    copy_out,
    counts_a_page,
    decides,
    flush_all,
    flush_page,
    freed,
    grace_period,
    increment,
    loads,
    locked,
    maps_for_nobodys_folio,
    on_the_folio,
    operation,
    pretended_flush,
    reader_section,
    says_it_is_not,
    says_it_is_optimized,
    set_pmd_to_the_leaf,
    set_pte,
    setup_of,
    split,
    stores,
    then,
    waits_for_memory,
    without_interrupts,
    zeroes_the_table,
)

from emu.paging.models import (
    LAZY,
    LAZY_ALDER_LAKE,
    LAZY_ERRATUM_383,
    LAZY_NO_PSC,
    LAZY_SINGLE,
    CpuModel,
)
from emu.paging.pte import PteBit
from hvolab.explore.budget import Budget
from hvolab.explore.explorer import explore
from hvolab.explore.reduce.dpor import Reduced
from hvolab.explore.search.depth_first import everything
from hvolab.explore.search.interface import Freedom, Strategy
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
        # Folios, announcements, and what the invariants read.
        on_the_folio(set_pte(FRAME, PAGE_KERNEL_RO)),
        on_the_folio(set_pte(NEW, PAGE_KERNEL)),
        on_the_folio(then()),
        says_it_is_optimized,
        says_it_is_not,
        counts_a_page,
        # Directories, and the frames of tables.
        other_table,
        operation(other_table),
        set_pmd_to_the_leaf,
        operation(then(set_pmd_to_the_leaf, flush_page)),
        freed(TABLE),
        zeroes_the_table,
        # Several operations on one page, and frames that change hands.
        operation(then(set_pte(NEW, PAGE_KERNEL), flush_page)),
        operation(set_pte(FRAME, PAGE_KERNEL)),
        maps_for_nobodys_folio,
        freed(NEW),
        stores((NEW_WORD, 3)),
    )


KINDS = len(pieces(0))
programs = st.lists(st.lists(st.integers(0, KINDS - 1), min_size=1, max_size=2), min_size=2, max_size=3)
MODELS = (LAZY, LAZY_SINGLE, LAZY_NO_PSC, LAZY_ALDER_LAKE, LAZY_ERRATUM_383)


def setup_from(program: list[list[int]], model: CpuModel = LAZY) -> Setup:
    """CPU 0 splits the PMD first: without that, most pieces have no effect on each other."""
    bodies = [then(*(pieces(cpu)[number] for number in numbers)) for cpu, numbers in enumerate(program)]
    return setup_of(then(split, bodies[0]), *bodies[1:], boot_config=config_of(model))


def agree(program: list[list[int]], most_runs: int, model: CpuModel = LAZY) -> bool | None:
    """Whether both searches show the same final states and findings; None where one of them did not end."""
    shown = []
    searches: tuple[Strategy, ...] = (everything(), Reduced())
    for search in searches:
        outcomes = Outcomes(search)
        done = explore(setup_from(program, model), outcomes, ALL, Budget(runs=most_runs))
        if not done.coverage.complete:
            return None
        shown.append((outcomes.seen, {(one.finding.verdict, one.finding.where) for one in done.found}))
    return shown[0] == shown[1]


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
