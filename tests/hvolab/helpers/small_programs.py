"""Random programs of two or three CPUs: pieces of what kernel code does to page tables, folios and frames."""

from __future__ import annotations

from hypothesis import strategies as st
from small_broadcasts import announced, broadcasts_all, broadcasts_page, syncs
from small_catalog import other_table
from small_setups import (
    FRAME,
    NEW,
    NEW_WORD,
    OTHER,
    PAGE,
    TABLE,
    WORD,
    Body,
    X,
    allocates,
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
from small_ticks import needs_tick, ticking

from emu.addr import PAGE_BYTES
from emu.paging.models import (
    LAZY,
    LAZY_ALDER_LAKE,
    LAZY_ERRATUM_383,
    LAZY_NO_PSC,
    LAZY_SINGLE,
    CpuModel,
    with_invlpgb,
)
from emu.paging.pte import PteBit
from hvolab.subject.scenario import Setup
from kernel_model.mm.pgtable import PAGE_KERNEL, PAGE_KERNEL_RO


def pieces(cpu: int) -> tuple[Body, ...]:
    """What a CPU may be made to do."""
    return (*_on_pages(cpu), *_on_directories(), *_on_frames(), *_EVERYWHERE)


def within_a_table(cpu: int) -> tuple[Body, ...]:
    """Those that change the translations of few pages."""
    return (*_on_pages(cpu), *_on_frames())


def _on_pages(cpu: int) -> tuple[Body, ...]:
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
    )


def _on_directories() -> tuple[Body, ...]:
    """And on the frames of tables."""
    return (
        other_table,
        operation(other_table),
        set_pmd_to_the_leaf,
        operation(then(set_pmd_to_the_leaf, flush_page)),
        freed(TABLE),
        zeroes_the_table,
    )


def _on_frames() -> tuple[Body, ...]:
    """Several operations on one page, and frames that change hands."""
    return (
        operation(then(set_pte(NEW, PAGE_KERNEL), flush_page)),
        operation(set_pte(FRAME, PAGE_KERNEL)),
        maps_for_nobodys_folio,
        freed(NEW),
        stores((NEW_WORD, 3)),
    )


# What other CPUs do about it they do at any time: such programs may have very many orders.
_EVERYWHERE = (
    broadcasts_page,
    broadcasts_all,
    syncs,
    announced(start=PAGE, end=PAGE + PAGE_BYTES, by=then(broadcasts_page, syncs)),
    needs_tick(0),
    needs_tick(1),
    needs_tick(0, 1),
)
KINDS = len(pieces(0))
KINDS_HERE = KINDS - len(_EVERYWHERE)
programs = st.lists(st.lists(st.integers(0, KINDS_HERE - 1), min_size=1, max_size=2), min_size=2, max_size=3)
MODELS = (LAZY, LAZY_SINGLE, LAZY_NO_PSC, LAZY_ALDER_LAKE, LAZY_ERRATUM_383)


def setup_from(program: list[list[int]], model: CpuModel = LAZY) -> Setup:
    """CPU 0 splits the PMD first: without that, most pieces have no effect on each other."""
    bodies = [then(*(pieces(cpu)[number] for number in numbers)) for cpu, numbers in enumerate(program)]
    return setup_of(then(split, bodies[0]), *bodies[1:], boot_config=ticking(with_invlpgb(model)))
