"""The page allocator: which frame comes next, who may free what, and what becomes of a bad page."""

from __future__ import annotations

import pytest
from flat_cpu import Stuck
from hvo_lab import DIRECT_MAP, PAGE, SECTION, Lab
from hypothesis import given, settings
from hypothesis import strategies as st
from zone import BASE, HWPOISON, LRU, MLOCKED, PRIVATE, RESERVED, UNUSED, Zone, page

from emu.addr import Pfn
from emu.cpu.routine import ContextKilled
from kernel_model.boot import BootConfig
from kernel_model.core.events import AllocationFailed, BadPage, KernelBug, PageAllocated, PageFreed
from kernel_model.core.gfp import GFP_KERNEL
from kernel_model.core.kconfig import KernelConfig
from kernel_model.core.spinlock import ZONE_LOCK
from kernel_model.mm.buddy import POISON_BYTE

# --- order ------------------------------------------------------------------------------------------------
from kernel_model.mm.failures import FailAt
from kernel_model.mm.zone import PCP_BATCH


def test_single_frames_come_from_the_smallest_block_lowest_first() -> None:
    zone = Zone((0x800, 0xC00))
    assert [zone.alloc() for _ in range(40)] == list(range(0x800, 0x828))


def test_a_block_is_not_broken_while_a_smaller_one_is_free() -> None:
    # [0x801, 0x804) is blocks of 1 and 2 frames, [0x808, 0x810) one of 8.
    zone = Zone((0x801, 0x804), (0x808, 0x810))
    assert [zone.alloc() for _ in range(11)] == [0x801, 0x802, 0x803, *range(0x808, 0x810)]
    assert zone.alloc() is None


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (0, 2, 1, 3), (1, 3, 0, 2)])
def test_buddies_merge_in_whatever_order_they_come(order: tuple[int, ...]) -> None:
    zone = Zone()
    for number in order:
        zone.pages.add_free(0x800 + number, 0x801 + number)
    for pfn in (*range(0x800, 0x804), 0x1001):
        zone.write(pfn, UNUSED)
    zone.pages.add_free(0x1001, 0x1002)
    # Merged to one block of four, they come after the single frame; unmerged they would come before it.
    assert [zone.alloc() for _ in range(5)] == [0x1001, 0x800, 0x801, 0x802, 0x803]


def test_neighbours_that_are_no_buddies_do_not_merge() -> None:
    zone = Zone((0x801, 0x802), (0x802, 0x803))  # 0x801 belongs with 0x800, 0x802 with 0x803
    zone.pages.add_free(0x1000, 0x1002)
    for pfn in (0x1000, 0x1001):
        zone.write(pfn, UNUSED)
    assert [zone.alloc() for _ in range(4)] == [0x801, 0x802, 0x1000, 0x1001]


def test_no_block_is_larger_than_order_10() -> None:
    zone = Zone((0x800, 0x2000))
    assert zone.pages.free_frames() == 0x1800
    assert [zone.alloc() for _ in range(3)] == [0x800, 0x801, 0x802]
    assert zone.pages.free_frames() == 0x1800 - 3


# --- per-CPU lists ----------------------------------------------------------------------------------------


def test_each_cpu_takes_a_batch_of_its_own() -> None:
    zone = Zone((0x800, 0xC00), cpus=2)
    assert zone.alloc(0) == 0x800
    assert zone.alloc(1) == 0x800 + PCP_BATCH
    assert zone.alloc(0) == 0x801


def test_the_zone_lock_is_taken_once_a_batch() -> None:
    zone = Zone((0x800, 0xC00))
    zone.cpu.words[ZONE_LOCK] = 5  # somebody has it
    with pytest.raises(Stuck):
        zone.alloc()
    zone.cpu.words[ZONE_LOCK] = 0
    zone.alloc()
    zone.cpu.words[ZONE_LOCK] = 5
    assert [zone.alloc() for _ in range(PCP_BATCH - 1)] == list(range(0x801, 0x800 + PCP_BATCH))
    with pytest.raises(Stuck):
        zone.alloc()
    assert zone.cpu.words[ZONE_LOCK] == 5


def test_the_page_freed_last_is_the_next_one_and_only_on_that_cpu() -> None:
    zone = Zone((0x800, 0xC00), cpus=2)
    first, second = zone.alloc(0), zone.alloc(0)
    assert first is not None
    assert second is not None
    zone.free(first, cpu=1)
    zone.free(second, cpu=1)
    assert zone.alloc(0) == 0x802
    assert zone.alloc(1) == second
    assert zone.alloc(1) == first


def test_memory_on_another_cpus_list_is_out_of_reach() -> None:
    # Linux would drain the lists before it gives up; the model says what is not modelled: reclaim.
    zone = Zone((0x800, 0x800 + PCP_BATCH), cpus=2)
    zone.alloc(0)
    assert zone.alloc(1) is None
    assert zone.pages.free_frames() == PCP_BATCH - 1


# --- what an allocation is --------------------------------------------------------------------------------


def test_an_allocated_page_has_one_reference_and_is_announced() -> None:
    zone = Zone((0x800, 0x900))
    assert zone.alloc() == 0x800
    off_its_list = {"next": 0xDEAD_0000_0000_0100, "prev": 0xDEAD_0000_0000_0122}  # LIST_POISON1 and 2
    assert zone.read(0x800) == UNUSED._replace(refcount=1, **off_its_list)
    assert zone.cpu.announced == [PageAllocated(0x800, 0, 0, "test", GFP_KERNEL, 0)]
    assert not zone.pages.is_free(0x800)
    assert zone.pages.is_free(0x801), "on the CPU's list"
    assert zone.pages.is_free(0x8FF), "in a block"
    assert not zone.pages.is_free(0x900)


def test_contents_are_left_alone_by_allocation() -> None:
    zone = Zone((0x800, 0x801))
    zone.cpu.write(DIRECT_MAP + 0x800 * PAGE, 0x1234)
    zone.alloc()
    assert zone.cpu.read(DIRECT_MAP + 0x800 * PAGE) == 0x1234


def test_exhaustion_is_announced_with_its_position() -> None:
    zone = Zone((0x800, 0x802))
    assert [zone.alloc() for _ in range(4)] == [0x800, 0x801, None, None]
    assert zone.cpu.heard(AllocationFailed) == [AllocationFailed("test", 0, n, GFP_KERNEL, 0) for n in (2, 3)]
    zone.free(0x801)
    assert zone.alloc() == 0x801


def test_a_generation_counts_how_often_a_frame_was_freed() -> None:
    zone = Zone((0x800, 0x801))
    for _ in range(3):
        zone.alloc()
        zone.free(0x800)
    assert [event.generation for event in zone.cpu.heard(PageAllocated)] == [0, 1, 2]
    assert [event.generation for event in zone.cpu.heard(PageFreed)] == [1, 2, 3]


# --- freeing ----------------------------------------------------------------------------------------------


def test_a_freed_frame_is_poisoned() -> None:
    zone = Zone((0x800, 0x802))
    zone.alloc()
    zone.alloc()
    zone.free(0x800)
    assert zone.cpu.read_bytes(DIRECT_MAP + 0x800 * PAGE, PAGE) == bytes((POISON_BYTE,)) * PAGE
    assert zone.cpu.read_bytes(DIRECT_MAP + 0x801 * PAGE, PAGE) == bytes(PAGE)
    assert POISON_BYTE == 0xAA


def test_without_page_poisoning_contents_stay() -> None:
    zone = Zone((0x800, 0x801), config=KernelConfig(page_poisoning=False))
    zone.alloc()
    zone.cpu.write(DIRECT_MAP + 0x800 * PAGE, 0x1234)
    zone.free(0x800)
    assert zone.cpu.read(DIRECT_MAP + 0x800 * PAGE) == 0x1234


def test_the_last_reference_frees() -> None:
    zone = Zone((0x800, 0x801))
    zone.alloc()
    zone.write(0x800, UNUSED._replace(refcount=3))
    zone.free(0x800)
    zone.free(0x800)
    assert (zone.read(0x800).refcount, zone.pages.is_free(0x800)) == (1, False)
    assert zone.cpu.heard(PageFreed) == []
    zone.free(0x800)
    assert (zone.read(0x800).refcount, zone.pages.is_free(0x800)) == (0, True)


def test_a_double_free_is_a_bug() -> None:
    zone = Zone((0x800, 0x801))
    zone.alloc()
    zone.free(0x800)
    assert zone.bug(0x800) == KernelBug(
        "put_page_testzero", f"VM_BUG_ON_PAGE(page_ref_count(page) == 0): {page(0x800):x}"
    )
    assert zone.pages.free_frames() == 1


def test_a_double_free_with_a_reference_in_between_is_a_bug() -> None:
    zone = Zone((0x800, 0x801))
    zone.alloc()
    zone.free(0x800)
    zone.write(0x800, zone.read(0x800)._replace(refcount=1))
    assert zone.bug(0x800) == KernelBug("free_unref_page", "double free of pfn 0x800")
    assert zone.pages.free_frames() == 1


def test_a_frame_that_was_never_given_out_cannot_be_freed() -> None:
    zone = Zone((0x800, 0x801))
    zone.write(0x4000, UNUSED._replace(refcount=1))
    assert zone.bug(0x4000) == KernelBug("free_unref_page", "double free of pfn 0x4000")


def test_without_debug_vm_a_count_that_goes_below_zero_is_not_noticed() -> None:
    # put_page_testzero(): VM_BUG_ON_PAGE() is nothing then, and -1 is not 0. The page just leaks.
    zone = Zone((0x800, 0x801), config=KernelConfig(debug_vm=False))
    zone.alloc()
    zone.free(0x800)
    zone.free(0x800)
    assert zone.cpu.heard(KernelBug) == []
    assert zone.read(0x800).refcount == 0xFFFF_FFFF


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        pytest.param({"mapping": 0xDEAD_0000_0000_0400}, "non-NULL mapping", id="mapping"),
        pytest.param({"page_type": 0}, "nonzero mapcount", id="mapcount"),
        pytest.param({"page_type": 0xF400_0000}, "nonzero mapcount", id="type"),
        pytest.param({"flags": BASE | LRU}, "PAGE_FLAGS_CHECK_AT_FREE flag(s) set", id="PG_lru"),
        pytest.param({"flags": BASE | PRIVATE}, "PAGE_FLAGS_CHECK_AT_FREE flag(s) set", id="PG_private"),
        pytest.param({"flags": BASE | RESERVED}, "PAGE_FLAGS_CHECK_AT_FREE flag(s) set", id="PG_reserved"),
        pytest.param({"flags": BASE | MLOCKED}, "PAGE_FLAGS_CHECK_AT_FREE flag(s) set", id="PG_mlocked"),
    ],
)
def test_a_bad_page_leaves_circulation_when_it_is_freed(wrong: dict[str, int], reason: str) -> None:
    zone = Zone((0x800, 0x801))
    zone.alloc()
    zone.write(0x800, zone.read(0x800)._replace(**wrong))
    zone.free(0x800)
    assert zone.cpu.heard(BadPage) == [BadPage(0x800, reason)]
    assert zone.cpu.heard(PageFreed) == []
    assert not zone.pages.is_free(0x800)
    assert zone.alloc() is None


@pytest.mark.parametrize("debug_vm", [True, False], ids=["DEBUG_VM", "no DEBUG_VM"])
def test_a_hwpoisoned_page_is_dropped_without_a_word_about_flags(debug_vm: bool) -> None:
    # PG_hwpoison is in neither of PAGE_FLAGS_CHECK_AT_FREE and _AT_PREP: free_pages_prepare() keeps the page
    # before it checks anything, in every configuration.
    zone = Zone((0x800, 0x801), config=KernelConfig(debug_vm=debug_vm))
    zone.alloc()
    zone.write(0x800, zone.read(0x800)._replace(flags=BASE | HWPOISON))
    zone.free(0x800)
    assert not zone.pages.is_free(0x800)
    assert zone.cpu.heard(BadPage) == []


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        pytest.param({"mapping": 1, "page_type": 0}, "non-NULL mapping", id="mapcount, mapping"),
        pytest.param(
            {"mapping": 1, "flags": BASE | LRU}, "PAGE_FLAGS_CHECK_AT_FREE flag(s) set", id="mapping, flags"
        ),
    ],
)
def test_of_several_reasons_the_last_is_given(wrong: dict[str, int], reason: str) -> None:
    # page_bad_reason(): each overwrites the one before.
    zone = Zone((0x800, 0x801))
    zone.alloc()
    zone.write(0x800, zone.read(0x800)._replace(**wrong))
    zone.free(0x800)
    assert zone.cpu.heard(BadPage) == [BadPage(0x800, reason)]


def test_a_bad_page_found_by_an_allocation_is_skipped() -> None:
    # rmqueue_pcplist(): do { take a page } while (check_new_pages()).
    zone = Zone((0x800, 0x802))
    zone.write(0x800, UNUSED._replace(mapping=1))
    assert zone.alloc() == 0x801
    assert zone.cpu.heard(BadPage) == [BadPage(0x800, "non-NULL mapping")]
    assert [event.pfn for event in zone.cpu.heard(PageAllocated)] == [0x801]
    assert zone.pages.free_frames() == 0


def test_a_head_flag_left_on_a_free_page_is_found_by_an_allocation() -> None:
    zone = Zone((0x800, 0x802))
    zone.write(0x800, UNUSED._replace(flags=BASE | 1 << 6))
    zone.alloc()
    assert zone.cpu.heard(BadPage) == [BadPage(0x800, "PAGE_FLAGS_CHECK_AT_PREP flag(s) set")]


def test_without_debug_vm_nobody_looks_at_the_struct_page() -> None:
    zone = Zone((0x800, 0x801), config=KernelConfig(debug_vm=False))
    zone.alloc()
    zone.write(0x800, zone.read(0x800)._replace(mapping=1))
    zone.free(0x800)
    assert zone.cpu.heard(BadPage) == []
    assert zone.alloc() == 0x800


# --- boot pages -------------------------------------------------------------------------------------------

BOOT_PAGE = UNUSED._replace(flags=BASE | RESERVED | PRIVATE, index=12, private=5, refcount=2)


def with_boot_page(config: KernelConfig | None = None) -> Zone:
    zone = Zone((0x800, 0x801), config=config)
    zone.pages.adopt(range(0x7E00, 0x8000))
    zone.write(0x7E07, BOOT_PAGE)
    return zone


def test_a_boot_page_is_freed_as_an_ordinary_one() -> None:
    zone = with_boot_page()
    zone.cpu.run(zone.pages.free_bootmem_page(page(0x7E07)))
    lru = page(0x7E07) + 8
    assert zone.read(0x7E07) == UNUSED._replace(next=lru, prev=lru)
    assert zone.pages.is_free(0x7E07)
    assert zone.cpu.heard(PageFreed) == [PageFreed(0x7E07, 0, 1)]
    assert zone.alloc() == 0x7E07


@pytest.mark.parametrize("refcount", [0, 1, 3])
def test_a_boot_page_with_another_count_than_2_is_a_bug(refcount: int) -> None:
    zone = with_boot_page()
    zone.write(0x7E07, BOOT_PAGE._replace(refcount=refcount))
    with pytest.raises(ContextKilled):
        zone.cpu.run(zone.pages.free_bootmem_page(page(0x7E07)))
    (bug,) = zone.cpu.heard(KernelBug)
    assert bug == KernelBug(
        "free_bootmem_page", f"VM_BUG_ON_PAGE(page_ref_count(page) != 2): {page(0x7E07):x}"
    )
    assert zone.read(0x7E07).refcount == refcount


def test_a_boot_page_without_section_info_is_a_bug() -> None:
    zone = with_boot_page()
    zone.write(0x7E07, BOOT_PAGE._replace(index=0))
    with pytest.raises(ContextKilled):
        zone.cpu.run(zone.pages.free_bootmem_page(page(0x7E07)))
    assert zone.cpu.heard(KernelBug)[0].where == "free_bootmem_page"


def test_without_debug_vm_a_boot_page_with_three_references_keeps_one_more() -> None:
    # put_page_bootmem() then only drops its reference.
    zone = with_boot_page(KernelConfig(debug_vm=False))
    zone.write(0x7E07, BOOT_PAGE._replace(refcount=3))
    zone.cpu.run(zone.pages.free_bootmem_page(page(0x7E07)))
    assert zone.cpu.heard(KernelBug) == []
    assert zone.read(0x7E07) == BOOT_PAGE
    assert not zone.pages.is_free(0x7E07)


# --- any use ----------------------------------------------------------------------------------------------


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 40)), min_size=1, max_size=4),
    st.lists(st.tuples(st.booleans(), st.integers(0, 2), st.integers(0, 99)), max_size=60),
)
def test_frames_stay_disjoint_and_none_is_lost(
    ranges: list[tuple[int, int]], uses: list[tuple[bool, int, int]]
) -> None:
    """Any ranges of free memory, any sequence of allocations and releases on three CPUs."""
    at, blocks = 0x800, []
    for gap, length in ranges:
        blocks.append((at + gap, at + gap + length))
        at += gap + length
    zone = Zone(*blocks, cpus=3)
    whole = {pfn for start, end in blocks for pfn in range(start, end)}
    held: list[int] = []
    for allocate, cpu, number in uses:
        if allocate:
            pfn = zone.alloc(cpu)
            assert pfn not in held
            if pfn is not None:
                assert pfn in whole
                held.append(pfn)
        elif held:
            zone.free(held.pop(number % len(held)), cpu)
        assert zone.pages.free_frames() == len(whole) - len(held)
    assert {pfn for pfn in whole if zone.pages.is_free(pfn)} == whole - set(held)
    assert {zone.read(pfn).refcount for pfn in held} <= {1}
    assert zone.cpu.heard(KernelBug) == zone.cpu.heard(BadPage) == []
    assert zone.cpu.words[ZONE_LOCK] == 0


# --- frames that somebody names ---------------------------------------------------------------------------


def test_the_frames_asked_for_leave_the_free_lists_and_no_others() -> None:
    lab = Lab(BootConfig(SECTION, 1, ()))
    pages = lab.system.kernel.pages
    before = pages.free_frames()
    block = lab.call(lambda: pages.alloc_contig_range(Pfn(0x4200), 9, "block"))
    assert block == page(0x4200)
    assert pages.free_frames() == before - 512
    assert not any(pages.is_free(pfn) for pfn in range(0x4200, 0x4400))
    assert all(pages.is_free(pfn) for pfn in (0x41FF, 0x4400))
    assert lab.call(lambda: pages.alloc_contig_range(Pfn(0x4200), 9, "block")) is None
    lab.call(lambda: pages.free_pages(block, 9))
    assert pages.free_frames() == before
    assert lab.call(lambda: pages.alloc_contig_range(Pfn(0x4000), 11, "block")) == page(0x4000)


def test_one_frame_in_use_is_enough_to_refuse_the_range() -> None:
    lab = Lab(BootConfig(SECTION, 1, ()))
    pages = lab.system.kernel.pages
    assert lab.call(lambda: pages.alloc_contig_range(Pfn(0x4C00), 3, "in the way")) is not None
    before = pages.free_frames()
    assert lab.call(lambda: pages.alloc_contig_range(Pfn(0x4000), 12, "block")) is None
    assert pages.free_frames() == before


def test_a_range_is_an_allocation_that_may_fail() -> None:
    lab = Lab(BootConfig(SECTION, 1, (), failures=FailAt(frozenset({0}))))
    pages = lab.system.kernel.pages
    assert lab.call(lambda: pages.alloc_contig_range(Pfn(0x4200), 9, "block")) is None
    assert lab.call(lambda: pages.alloc_contig_range(Pfn(0x4200), 9, "block")) == page(0x4200)
