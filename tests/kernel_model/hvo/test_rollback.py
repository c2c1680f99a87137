"""A single optimize that fails halfway: what vmemmap_remap_free() puts back, and what it leaves changed.

The folio spans several PMDs, and the split of PMD number j fails. By then 512 j pages have been walked.
"""

from __future__ import annotations

import pytest
from hvo_lab import (
    PAGE,
    REGION,
    RW,
    Lab,
    Leaf,
    lab_2m,
    lab_of_order,
    pages_of,
    regions_of,
    restored_tail,
    split,
)

from kernel_model.core.events import (
    AllocationFailed,
    FlushBegun,
    GracePeriodBegun,
    KernelBug,
    KernelWarning,
    PageAllocated,
    PageFreed,
)
from kernel_model.core.sites import FlushSite
from kernel_model.mm.failures import FailAt, FailFrom
from kernel_model.mm.image import HugePage

HEAD, FIRST_TABLE = 0, 1
"""Positions of the allocations: the fresh head, then a page table for each PMD."""


def rolled_back(lab: Lab, huge: HugePage, failing: int, head: int | None) -> dict[int, Leaf]:
    """The leaves after the split of PMD `failing` failed, with or without a fresh head page."""
    leaves = split(lab.initial, list(regions_of(huge))[:failing])
    walked = list(pages_of(huge))[: 512 * failing]
    old = [leaves[va].pfn for va in walked]
    # The old head page stays on the list when there is a fresh one, below all tails; the list is a stack.
    for va, pfn in zip(walked[1:], old[:0:-1], strict=True):
        leaves[va] = Leaf(1, pfn, RW)
    if walked and head is not None:
        leaves[walked[0]] = Leaf(1, head, RW)
    return leaves


def check_rollback(order: int, failing: int, *, fresh_head: bool) -> None:
    positions = {FIRST_TABLE + failing} | (set() if fresh_head else {HEAD})
    lab = lab_of_order(order, failures=FailAt(frozenset(positions)))
    huge = lab.config.huge_pages[0]
    before, old, head_page = lab.state(), lab.frames_of(huge), lab.contents(lab.frames_of(huge)[0])
    walked = 512 * failing

    lab.optimize(huge)

    after = lab.state()
    allocated = [event.pfn for event in lab.heard(PageAllocated) if event.purpose == "vmemmap head page"]
    head = allocated[0] if fresh_head else None
    assert len(allocated) == int(fresh_head)
    assert after.leaves == rolled_back(lab, huge, failing, head)
    assert set(after.tables) == set(list(regions_of(huge))[:failing]), "PMDs split so far stay split"
    assert (after.optimized, after.key) == ((False,), 0)
    assert (after.folio_list, after.non_hvo) == (before.folio_list, before.non_hvo)

    freed = [event.pfn for event in lab.heard(PageFreed)]
    boot, memmap = before.counters["nr_memmap_boot_pages"], before.counters["nr_memmap_pages"]
    if fresh_head and walked:
        assert freed == [old[0]], "the frame the head was on"
        expected = {"nr_memmap_boot_pages": boot - 1, "nr_memmap_pages": memmap + 1}
    else:
        assert freed == ([head] if fresh_head else []), "the fresh frame that was not needed"
        expected = {"nr_memmap_boot_pages": boot, "nr_memmap_pages": memmap}
    assert after.counters == expected
    assert after.free_frames == before.free_frames - failing

    now = lab.frames_of(huge)
    assert lab.contents(now[0]) == head_page
    assert {lab.contents(pfn) for pfn in now[1:walked]} <= {restored_tail(head_page)}
    assert now[walked:] == old[walked:] if walked else now == old

    everyone = frozenset({0, 1})
    regions = list(regions_of(huge))[:failing]
    splits = [
        FlushBegun("flush_tlb_kernel_range", va, va + REGION, everyone, FlushSite.SPLIT) for va in regions
    ]
    undone = FlushBegun(
        "flush_tlb_kernel_range", huge.folio, huge.folio + walked * PAGE, everyone, FlushSite.RESTORE
    )
    assert lab.heard(FlushBegun) == [*splits, *([undone] if walked else [])]

    assert len(lab.heard(GracePeriodBegun)) == 1
    failures = [event.purpose for event in lab.heard(AllocationFailed)]
    assert failures == ([] if fresh_head else ["vmemmap head page"]) + ["page table"]
    assert lab.heard(KernelBug, KernelWarning) == []
    lab.check_conservation()


@pytest.mark.parametrize("failing", range(4))
@pytest.mark.parametrize("fresh_head", [True, False], ids=["fresh head", "no fresh head"])
def test_a_failed_split_is_rolled_back(failing: int, fresh_head: bool) -> None:
    check_rollback(17, failing, fresh_head=fresh_head)


def test_a_failed_split_of_a_1g_folio_is_rolled_back() -> None:
    check_rollback(18, 2, fresh_head=True)


@pytest.mark.slow
@pytest.mark.parametrize("failing", range(8))
def test_a_failed_split_of_a_1g_folio_is_rolled_back_at_every_pmd(failing: int) -> None:
    check_rollback(18, failing, fresh_head=True)


@pytest.mark.slow
@pytest.mark.parametrize("failing", [1, 4, 7])
def test_a_failed_split_of_a_1g_folio_without_a_fresh_head(failing: int) -> None:
    check_rollback(18, failing, fresh_head=False)


@pytest.mark.parametrize("fresh_head", [True, False], ids=["fresh head", "no fresh head"])
def test_a_2m_folio_whose_only_split_fails_is_as_before(fresh_head: bool) -> None:
    lab = lab_2m(failures=FailAt(frozenset({1} if fresh_head else {0, 1})))
    huge = lab.config.huge_pages[0]
    before, page = lab.state(), lab.bytes_at(huge.folio, PAGE)
    lab.optimize(huge)
    assert lab.state() == before
    assert lab.bytes_at(huge.folio, PAGE) == page
    assert lab.heard(FlushBegun) == []
    assert len(lab.heard(PageFreed)) == int(fresh_head)
    lab.check_conservation()


def test_without_a_fresh_head_the_old_head_page_is_reused() -> None:
    lab = lab_2m(failures=FailAt(frozenset({0})))
    huge = lab.config.huge_pages[0]
    before, old = lab.state(), lab.frames_of(huge)
    lab.optimize(huge)
    assert lab.frames_of(huge) == [old[0]] * 8
    assert [lab.leaf(va).flags for va in pages_of(huge)] == [RW] + ["P A G NX"] * 7
    assert [event.pfn for event in lab.heard(PageFreed)] == old[:0:-1]
    assert lab.counters() == {"nr_memmap_pages": 0, "nr_memmap_boot_pages": 512 - 7}
    assert lab.kernel.pages.free_frames() == before.free_frames + 7 - 1
    lab.check_conservation()
    assert lab.restore(huge) == 0
    lab.check_conservation()


def test_a_rolled_back_folio_can_be_optimized_and_restored() -> None:
    lab = lab_of_order(16, failures=FailAt(frozenset({2})))
    huge = lab.config.huge_pages[0]
    free = lab.kernel.pages.free_frames()
    lab.optimize(huge)
    assert not lab.optimized(huge)
    lab.optimize(huge)
    assert lab.optimized(huge)
    assert lab.kernel.pages.free_frames() == free - 2 + 1023
    lab.check_conservation()
    assert lab.restore(huge) == 0
    assert lab.kernel.pages.free_frames() == free - 2
    lab.check_conservation()


def test_nothing_at_all_can_be_allocated() -> None:
    lab = lab_of_order(16, failures=FailFrom(0))
    before = lab.state()
    lab.optimize(lab.config.huge_pages[0])
    assert lab.state() == before
    assert lab.heard(PageAllocated, PageFreed, FlushBegun) == []
    assert [event.position for event in lab.heard(AllocationFailed)] == [0, 1]


def test_rollback_does_not_lose_what_was_written_to_the_head_meanwhile() -> None:
    # The flag is cleared through the mapping that the rollback left: on the fresh frame.
    lab = lab_of_order(16, failures=FailAt(frozenset({2})))
    huge = lab.config.huge_pages[0]
    private = 0x8
    lab.write(huge.folio + 40, private.to_bytes(8, "little"))
    lab.optimize(huge)
    assert lab.word_at(huge.folio + 40) == private
    assert lab.frame(huge.folio) != lab.initial[huge.folio].pfn
