"""Vmemmap that is not boot memory: hotplugged blocks from the buddy allocator, and self-hosted ones."""

from __future__ import annotations

import pytest
from hvo_lab import (
    POISON1,
    POISON2,
    Lab,
    lab_2m,
    lab_of_order,
    pages_of,
    region_of,
    regions_of,
    shared,
    split,
)
from hvo_story import FIRST_KEY, FLUSH_ALL, HEAD, LAST_KEY, RCU, story

from emu.events import Loaded
from kernel_model.core.events import FlushBegun, KernelBug, PageAllocated, PageFreed
from kernel_model.core.kconfig import KernelConfig
from kernel_model.mm.buddy import Buddy
from kernel_model.mm.failures import FailAt
from kernel_model.mm.image import VmemmapOrigin

HOTPLUG, SELF_HOSTED = VmemmapOrigin.HOTPLUG, VmemmapOrigin.SELF_HOSTED


# --- self-hosted: -ENOTSUPP -------------------------------------------------------------------------------


def test_self_hosted_vmemmap_is_refused() -> None:
    lab = lab_2m(origin=SELF_HOSTED)
    huge = lab.config.huge_pages[0]
    before, frames = lab.state(), lab.frames_of(huge)
    lab.optimize(huge)
    assert lab.state() == before
    assert lab.frames_of(huge) == frames
    # A fresh head is allocated before anybody looks, and freed again.
    undone = [*LAST_KEY, "flag cleared", "free"]
    assert story(lab) == ["begin", *FIRST_KEY, *RCU, "flag set", *HEAD, *undone, "return"]
    allocated, freed = lab.heard(PageAllocated), lab.heard(PageFreed)
    assert [event.pfn for event in allocated] == [event.pfn for event in freed]
    lab.check_conservation()


def test_without_a_fresh_head_there_is_nothing_to_free() -> None:
    lab = lab_2m(origin=SELF_HOSTED, failures=FailAt(frozenset({0})))
    before = lab.state()
    lab.optimize(lab.config.huge_pages[0])
    assert lab.state() == before
    assert lab.heard(PageAllocated, PageFreed, FlushBegun) == []


def test_the_split_pass_over_self_hosted_folios_goes_on() -> None:
    lab = lab_2m(0x4000, 0xA000, ram=256 << 20, origin=SELF_HOSTED)
    before = lab.state()
    lab.optimize_list()
    assert lab.state() == before
    refused = ["flag set", *HEAD, *LAST_KEY, "flag cleared"]
    assert story(lab) == [
        *("begin", *FLUSH_ALL),
        *(*FIRST_KEY, *RCU, *refused),
        *(*FIRST_KEY, *refused),  # -ENOTSUPP is no reason to flush, free and retry
        *(*FLUSH_ALL, "2 x free", "return"),
    ]
    # Unlike -ENOMEM it does not end the pass: each folio's PMD was looked at before the first flush.
    first_flush = lab.number_of(lab.heard(FlushBegun)[0])
    looked_at = {
        e.pa for e in lab.events[:first_flush] if isinstance(e, Loaded) and str(e.site) == "entry_get"
    }
    assert {lab.pmd_address(huge.folio) for huge in lab.config.huge_pages} <= looked_at
    lab.check_conservation()


def test_a_split_of_self_hosted_vmemmap_is_enotsupp() -> None:
    lab = lab_2m(origin=SELF_HOSTED)
    huge = lab.config.huge_pages[0]
    assert lab.call(lambda: lab.kernel.hvo.hugetlb_vmemmap_split_folio(huge.hstate, huge.folio)) == -524
    assert lab.heard(PageAllocated) == []


def test_a_kernel_without_memory_hotplug_does_not_ask() -> None:
    lab = lab_2m(origin=SELF_HOSTED, kernel=KernelConfig(memory_hotplug=False))
    huge = lab.config.huge_pages[0]
    lab.optimize(huge)
    assert lab.optimized(huge)
    assert lab.vmemmap() == shared(split(lab.initial, regions_of(huge)), huge, lab.frame(huge.folio))


def test_only_the_first_page_walked_is_asked() -> None:
    # Order 16, in a PMD each: the second block's pages are marked, the first's are not.
    lab = lab_of_order(16)
    huge = lab.config.huge_pages[0]
    second = lab.initial[region_of(huge.folio) + (2 << 20)].pfn
    for pfn in range(second, second + 512):
        page = lab.struct_page(pfn)
        lab.write_struct(pfn, page._replace(flags=page.flags | 1 << 10))
    lab.optimize(huge)
    assert lab.optimized(huge)


@pytest.mark.parametrize("marked", [0, 1])
def test_the_page_asked_is_that_of_the_folios_own_first_page(marked: int) -> None:
    # Folio 0x4000 begins at page 256 of its PMD. With a PMD leaf it is found by index, after a split by PTE.
    lab = lab_2m(0x4000, 0x4200)
    first, second = lab.config.huge_pages
    block = lab.initial[region_of(first.folio)].pfn
    page = lab.struct_page(block + 256 + 8 * marked)
    lab.write_struct(block + 256 + 8 * marked, page._replace(flags=page.flags | 1 << 10))
    lab.optimize(first)
    lab.optimize(second)
    assert lab.state().optimized == (marked != 0, marked != 1)


# --- hotplugged -------------------------------------------------------------------------------------------


def test_hotplugged_vmemmap_counts_as_memmap_pages_throughout() -> None:
    lab = lab_2m(origin=HOTPLUG)
    huge = lab.config.huge_pages[0]
    free = lab.kernel.pages.free_frames()
    assert lab.counters() == {"nr_memmap_pages": 512, "nr_memmap_boot_pages": 0}
    lab.optimize(huge)
    assert lab.counters() == {"nr_memmap_pages": 512 + 1 - 8, "nr_memmap_boot_pages": 0}
    assert lab.kernel.pages.free_frames() == free + 7 - 1
    lab.check_conservation()
    assert lab.restore(huge) == 0
    assert lab.counters() == {"nr_memmap_pages": 512, "nr_memmap_boot_pages": 0}
    assert lab.kernel.pages.free_frames() == free - 1
    lab.check_conservation()


def test_splitting_gives_each_frame_of_the_block_its_own_count() -> None:
    # An order-9 block that is not compound: only its first page has a count until split_page().
    lab = lab_2m(origin=HOTPLUG)
    huge = lab.config.huge_pages[0]
    block = lab.initial[region_of(huge.folio)].pfn
    assert [lab.struct_page(block + n).refcount for n in range(512)] == [1] + [0] * 511
    lab.call(lambda: lab.kernel.hvo.hugetlb_vmemmap_split_folio(huge.hstate, huge.folio))
    assert [lab.struct_page(block + n).refcount for n in range(512)] == [1] * 512
    lab.optimize(huge)
    counts = [lab.struct_page(block + n).refcount for n in range(512)]
    assert counts == [1] * 256 + [0] * 8 + [1] * 248


def test_boot_vmemmap_is_not_split_into_single_pages() -> None:
    # Its pages are reserved: each has its count already.
    lab = lab_2m()
    huge = lab.config.huge_pages[0]
    block = lab.initial[region_of(huge.folio)].pfn
    lab.call(lambda: lab.kernel.hvo.hugetlb_vmemmap_split_folio(huge.hstate, huge.folio))
    assert {lab.struct_page(block + n).refcount for n in range(512)} == {2}


def test_hotplugged_pages_are_freed_once_each() -> None:
    lab = lab_2m(0x4000, 0x4200, origin=HOTPLUG)
    old = [pfn for huge in lab.config.huge_pages for pfn in lab.frames_of(huge)]
    lab.optimize_list()
    assert sorted(event.pfn for event in lab.heard(PageFreed)) == sorted(old)
    assert lab.heard(KernelBug) == []
    unused = lab.struct_page(lab.config.huge_pages[0].pfn - 1)
    for pfn in old:
        page = lab.struct_page(pfn)
        # __free_page() leaves the words of the list it came from.
        assert page._replace(next=0, prev=0) == unused
    lab.check_conservation()


def test_a_hotplugged_head_page_is_not_mistaken_for_a_boot_page() -> None:
    lab = lab_2m(origin=HOTPLUG)
    huge = lab.config.huge_pages[0]
    lab.optimize(huge)
    head = lab.struct_page(lab.frame(huge.folio))
    assert (head.refcount, head.next, head.prev) == (1, POISON1, POISON2)
    assert head.flags & (1 << 13) == 0


def test_split_page_counts_every_page_but_the_first() -> None:
    lab = lab_2m(origin=HOTPLUG)
    pages: Buddy = lab.kernel.pages
    # An order-3 block: its first page has a count of its own, whatever it is, the others none.
    first = lab.config.huge_pages[0].pfn - 8
    lab.write_struct(first, lab.struct_page(first)._replace(refcount=2))
    lab.call(lambda: pages.split_page(lab.page(first), 3))
    assert [lab.struct_page(first + n).refcount for n in range(8)] == [2] + [1] * 7
    assert lab.struct_page(first - 1).refcount == 0


def whole(lab: Lab) -> int:
    return sum(len(pages_of(huge)) for huge in lab.config.huge_pages)


@pytest.mark.parametrize("origin", list(VmemmapOrigin))
def test_any_origin_adds_up_over_a_list(origin: VmemmapOrigin) -> None:
    lab = lab_2m(0x4000, 0x4200, 0xA000, ram=256 << 20, origin=origin)
    before = lab.kernel.pages.free_frames()
    lab.optimize_list()
    lab.check_conservation()
    saved = 0 if origin is SELF_HOSTED else whole(lab) - 3 - 2
    assert lab.kernel.pages.free_frames() == before + saved
    assert lab.restore_list() == (0 if origin is SELF_HOSTED else 3)
    lab.check_conservation()
