"""Flushes, grace periods and page-table stores of HVO: how many, how wide, and in which order."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hvo_lab import PAGE, REGION, lab_2m, lab_of_order, pages_of, region_of
from hvo_story import (
    EVERYWHERE,
    FIRST_KEY,
    FLUSH_ALL,
    HEAD,
    LAST_KEY,
    RANGE_FLUSH,
    RCU,
    REMAP_2M,
    SPLIT,
    SPLIT_FLUSH,
    story,
)

from emu.events import Annotated, Filled, Loaded, MachineEvent, Stored
from emu.paging.tlb import InvalidateAll, Invlpg
from kernel_model.core.events import (
    FlushBegun,
    FlushCompleted,
    GracePeriodBegun,
    PageFreed,
)
from kernel_model.core.kconfig import KernelConfig
from kernel_model.core.sites import FlushSite
from kernel_model.core.smp import FlushEverything, FlushPages
from kernel_model.core.spinlock import INIT_MM_PAGE_TABLE_LOCK
from kernel_model.variants.catalog import FREE_BEFORE_FLUSH

# --- one folio --------------------------------------------------------------------------------------------


def test_optimizing_one_folio_in_order() -> None:
    lab = lab_2m()
    lab.optimize(lab.config.huge_pages[0])
    assert story(lab) == [
        "begin",
        *FIRST_KEY,  # before the first PTE changes, so that fake heads are looked for
        *RCU,
        "flag set",  # before the copy, so that the copy has it
        *HEAD,
        *(*SPLIT, *SPLIT_FLUSH),
        "8 x set PTE",
        *RANGE_FLUSH,
        "8 x free",  # only after the flush
        "return",
    ]


def test_restoring_one_folio_in_order() -> None:
    lab = lab_2m()
    lab.optimize(lab.config.huge_pages[0])
    lab.mark()
    lab.restore(lab.config.huge_pages[0])
    assert story(lab) == [
        "begin",
        *RCU,
        "7 x allocate vmemmap tail page",
        *["copy head page", "set PTE"] * 7,
        *RANGE_FLUSH,
        "flag cleared",
        *LAST_KEY,  # only when no CPU can see a fake head any more
        "return",
    ]


def test_a_second_folio_neither_patches_code_nor_splits() -> None:
    lab = lab_2m(0x4000, 0x4200)
    first, second = lab.config.huge_pages
    lab.optimize(first)
    lab.mark()
    lab.optimize(second)
    assert story(lab) == [
        "begin",
        "key 1 -> 2",
        *RCU,
        "flag set",
        *HEAD,
        "8 x set PTE",
        *RANGE_FLUSH,
        "8 x free",
        "return",
    ]


def test_the_split_waits_for_its_flush_with_the_page_table_lock_held() -> None:
    lab = lab_2m()
    held: list[tuple[str, int]] = []

    def listen(_number: int, event: MachineEvent) -> None:
        if isinstance(event, Annotated) and isinstance(event.payload, FlushBegun | FlushCompleted):
            held.append((type(event.payload).__name__, lab.machine.words[INIT_MM_PAGE_TABLE_LOCK]))

    lab.machine.trace.listen(listen)
    lab.optimize(lab.config.huge_pages[0])
    # Held by CPU 0 over the flush of the split, free over that of the remap.
    assert held == [("FlushBegun", 1), ("FlushCompleted", 1), ("FlushBegun", 0), ("FlushCompleted", 0)]


def test_the_head_is_remapped_first_and_tails_in_address_order() -> None:
    lab = lab_2m()
    huge = lab.config.huge_pages[0]
    lab.optimize(huge)
    table = lab.tables()[region_of(huge.folio)]
    stores = [event for event in lab.seen(Stored) if event.pa // PAGE == table]
    index = huge.folio % REGION // PAGE
    assert [event.pa % PAGE // 8 for event in stores] == list(range(index, index + 8))
    assert all(event.size == 8 for event in stores), "each PTE is changed by one store"
    assert {str(event.site) for event in stores} == {"set_pte_at"}


def test_a_pte_is_never_absent_in_between() -> None:
    # No break-before-make: the old and the new entry are both present.
    lab = lab_2m()
    huge = lab.config.huge_pages[0]
    lab.optimize(huge)
    lab.restore(huge)
    table = lab.tables()[region_of(huge.folio)]
    stores = [event for event in lab.seen(Stored) if event.pa // PAGE == table]
    assert len(stores) == 8 + 7
    assert all(event.old & event.value & 1 for event in stores)


def test_a_page_is_on_the_list_before_its_pte_changes() -> None:
    lab = lab_2m()
    huge = lab.config.huge_pages[0]
    old = lab.frames_of(huge)
    lab.optimize(huge)
    table = lab.tables()[region_of(huge.folio)]
    stores = list(enumerate(lab.events))
    assert len(old) == 8
    for index, pfn in enumerate(old):
        entry = table * PAGE + (huge.folio % REGION // PAGE + index) * 8
        listed = next(n for n, e in stores if isinstance(e, Stored) and e.va == lab.page(pfn) + 8)
        changed = next(n for n, e in stores if isinstance(e, Stored) and e.pa == entry)
        assert listed < changed


def test_a_page_table_is_zeroed_then_filled_then_installed() -> None:
    lab = lab_2m()
    huge = lab.config.huge_pages[0]
    lab.optimize(huge)
    table, pmd = lab.tables()[region_of(huge.folio)], lab.pmd_address(huge.folio)
    filled = [n for n, e in enumerate(lab.events) if isinstance(e, Filled) and e.pa == table * PAGE]
    installed = [n for n, e in enumerate(lab.events) if isinstance(e, Stored) and e.pa == pmd]
    assert (len(filled), len(installed)) == (2, 1)
    assert filled < installed


def test_the_node_is_read_from_the_head_and_from_the_first_tail() -> None:
    # page_to_nid(reuse) before the fresh head is allocated, page_to_nid(start) before the tails are.
    lab = lab_2m()
    huge = lab.config.huge_pages[0]
    lab.optimize(huge)
    lab.restore(huge)
    asked = [event.va for event in lab.seen(Loaded) if str(event.site) == "page_to_nid"]
    assert asked == [huge.folio, huge.folio + PAGE]


# --- how wide a flush is (rule L2) ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "pages", "how"),
    [
        pytest.param(9, 8, FlushPages, id="2M: 8 pages, INVLPG"),
        pytest.param(11, 32, FlushPages, id="8M: 32 pages, INVLPG"),
        pytest.param(12, 64, FlushEverything, id="16M: 64 pages, all"),
    ],
)
def test_the_range_flush_is_by_page_up_to_33_pages(order: int, pages: int, how: type) -> None:
    lab = lab_of_order(order, cpus=3)
    huge = lab.config.huge_pages[0]
    lab.optimize(huge)
    lab.mark()
    lab.restore(huge)
    (flush,) = lab.heard(FlushBegun)
    end = huge.folio + pages * PAGE
    assert flush == FlushBegun(
        "flush_tlb_kernel_range", huge.folio, end, frozenset({0, 1, 2}), FlushSite.RESTORE
    )
    expected = Invlpg(huge.folio, 0, pages) if how is FlushPages else InvalidateAll()
    assert [lab.invalidations(cpu) for cpu in range(3)] == [[expected]] * 3


def test_512_pages_are_flushed_as_a_whole() -> None:
    lab = lab_of_order(15)
    huge = lab.config.huge_pages[0]
    assert len(pages_of(huge)) == 512
    lab.optimize(huge)
    assert [flush.function for flush in lab.heard(FlushBegun)] == ["flush_tlb_kernel_range"] * 2
    assert lab.invalidations(1) == [InvalidateAll()] * 2


def test_each_pmd_of_a_large_folio_is_flushed_when_it_is_split() -> None:
    lab = lab_of_order(16)
    huge = lab.config.huge_pages[0]
    lab.optimize(huge)
    cpus = frozenset({0, 1})
    assert lab.heard(FlushBegun) == [
        FlushBegun("flush_tlb_kernel_range", huge.folio, huge.folio + REGION, cpus, FlushSite.SPLIT),
        FlushBegun(
            "flush_tlb_kernel_range", huge.folio + REGION, huge.folio + 2 * REGION, cpus, FlushSite.SPLIT
        ),
        FlushBegun("flush_tlb_kernel_range", huge.folio, huge.folio + 2 * REGION, cpus, FlushSite.REMAP),
    ]
    assert lab.invalidations(1) == [InvalidateAll()] * 3


@pytest.mark.parametrize(("ceiling", "split", "remap"), [(7, 0, 0), (8, 0, 8), (512, 512, 8)])
def test_the_ceiling_is_configurable(ceiling: int, split: int, remap: int) -> None:
    """0 stands for a full flush."""
    lab = lab_2m(kernel=KernelConfig(tlb_single_page_flush_ceiling=ceiling))
    lab.optimize(lab.config.huge_pages[0])
    widths = [what.pages if isinstance(what, Invlpg) else 0 for what in lab.invalidations(1)]
    assert widths == [split, remap]


def test_a_machine_of_one_cpu_flushes_itself() -> None:
    lab = lab_2m(cpus=1)
    lab.optimize(lab.config.huge_pages[0])
    assert [flush.cpus for flush in lab.heard(FlushBegun)] == [frozenset({0})] * 2
    assert len(lab.invalidations(0)) == 2


# --- lists ------------------------------------------------------------------------------------------------


def test_optimizing_a_list_in_order() -> None:
    lab = lab_2m(0x4000, 0x4200, 0xA000, ram=256 << 20)
    lab.optimize_list()
    assert story(lab) == [
        "begin",
        *SPLIT,  # for the first two
        *SPLIT,
        *FLUSH_ALL,
        *(*FIRST_KEY, *RCU, *REMAP_2M),
        *("key 1 -> 2", *REMAP_2M),
        *("key 2 -> 3", *REMAP_2M),
        *FLUSH_ALL,
        "24 x free",
        "return",
    ]


def test_restoring_a_list_in_order() -> None:
    lab = lab_2m(0x4000, 0x4200)
    lab.optimize_list()
    lab.mark()
    lab.restore_list()
    remap = ["7 x allocate vmemmap tail page", *["copy head page", "set PTE"] * 7, "flag cleared"]
    assert story(lab) == [
        "begin",
        *(*RCU, *remap, "key 2 -> 1"),
        *(*remap, *LAST_KEY),
        *FLUSH_ALL,
        "return",
    ]


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_a_list_costs_two_full_flushes_whatever_its_length(count: int) -> None:
    lab = lab_2m(*range(0x4000, 0x4000 + 0x200 * max(count, 1), 0x200), cpus=3)
    if count == 0:
        lab.restore_list()  # moves the folio away
    lab.mark()
    lab.optimize_list()
    everyone = FlushBegun("flush_tlb_all", *EVERYWHERE, frozenset({0, 1, 2}))
    sites = (FlushSite.BATCH_SPLIT, FlushSite.BATCH_REMAPPED)
    assert lab.heard(FlushBegun) == [replace(everyone, site=site) for site in sites]
    assert [lab.invalidations(cpu) for cpu in range(3)] == [[InvalidateAll()] * 2] * 3
    assert len(lab.heard(GracePeriodBegun)) == (1 if count else 0)
    lab.mark()
    assert lab.restore_list() == count
    assert lab.heard(FlushBegun) == ([replace(everyone, site=FlushSite.BATCH_RESTORED)] if count else [])
    assert len(lab.heard(GracePeriodBegun)) == (1 if count else 0)


def test_an_optimized_folio_at_the_front_takes_the_batchs_grace_period_with_it() -> None:
    # As the C has it: the flag is dropped after the first folio, whether that one waited or was skipped.
    lab = lab_2m(0x4000, 0x4200)
    first, second = lab.config.huge_pages
    lab.optimize(first)
    lab.mark()
    lab.optimize_list()
    assert lab.optimized(second)
    assert lab.heard(GracePeriodBegun) == []


def test_a_folio_with_its_vmemmap_at_the_front_does_not_when_restoring() -> None:
    lab = lab_2m(0x4000, 0x4200)
    lab.optimize(lab.config.huge_pages[1])
    lab.mark()
    assert lab.restore_list() == 1
    assert len(lab.heard(GracePeriodBegun)) == 1


def test_pages_of_a_list_are_freed_only_after_its_last_flush() -> None:
    lab = lab_2m(0x4000, 0x4200, 0x4400)
    lab.optimize_list()
    announced = lab.heard(FlushCompleted, PageFreed)
    kinds = [type(payload).__name__ for payload in announced]
    assert kinds == ["FlushCompleted"] * 2 + ["PageFreed"] * 24


def test_pages_are_freed_last_taken_first() -> None:
    lab = lab_2m()
    old = lab.frames_of(lab.config.huge_pages[0])
    lab.optimize(lab.config.huge_pages[0])
    assert [event.pfn for event in lab.heard(PageFreed)] == old[::-1]


# --- a variant is a variant -------------------------------------------------------------------------------


def test_the_variant_free_before_flush_frees_before_it_flushes() -> None:
    lab = lab_2m(variant=FREE_BEFORE_FLUSH)
    huge = lab.config.huge_pages[0]
    lab.optimize(huge)
    told = story(lab)
    assert told[told.index("8 x set PTE") :] == ["8 x set PTE", "8 x free", *RANGE_FLUSH, "return"]
    # Alone on the machine it makes no difference in the end.
    lab.check_conservation()
    assert lab.optimized(huge)
