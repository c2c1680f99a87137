"""The exported functions, for one folio and for lists: what they do, skip, and warn of."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hvo_lab import (
    DIRECT_MAP,
    FOLIO_LIST,
    NON_HVO_FOLIOS,
    OPTIMIZED,
    REGION,
    RW,
    Lab,
    Leaf,
    huge_2m,
    lab_2m,
    lab_of_order,
    region_of,
    regions_of,
    shared,
    split,
)

from emu.addr import Pfn, VirtAddr
from kernel_model.boot import BootConfig
from kernel_model.core.events import (
    FlushBegun,
    GracePeriodBegun,
    KernelBug,
    KernelWarning,
    OperationBegun,
    OperationReturned,
    PageAllocated,
    PageFreed,
)
from kernel_model.core.kconfig import KernelConfig
from kernel_model.hvo.hugetlb_vmemmap import WalkFlag
from kernel_model.mm.hstate import (
    HSTATE_1G,
    HSTATE_2M,
    HUGETLB_VMEMMAP_RESERVE_PAGES,
    HUGETLB_VMEMMAP_RESERVE_SIZE,
    Hstate,
    hugetlb_vmemmap_optimizable,
    hugetlb_vmemmap_optimizable_size,
    hugetlb_vmemmap_size,
)
from kernel_model.mm.image import HugePage
from kernel_model.mm.page import lru

THREE = (0x4000, 0x4200, 0x4400)
TWO_SECTIONS = (0x4000, 0xA000)


def folios(lab: Lab) -> list[int]:
    return [huge.folio for huge in lab.config.huge_pages]


def purposes(lab: Lab) -> list[str]:
    return [event.purpose for event in lab.heard(PageAllocated)]


# --- sizes (mm/hugetlb_vmemmap.h) -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("h", "size", "optimizable"),
    [
        (HSTATE_2M, 32 << 10, 28 << 10),
        (HSTATE_1G, 16 << 20, (16 << 20) - 4096),
        (Hstate("64K", 4), 1024, 0),
        (Hstate("256K", 6), 4096, 0),
        (Hstate("512K", 7), 8192, 4096),
    ],
)
def test_sizes_of_vmemmap(h: Hstate, size: int, optimizable: int) -> None:
    assert hugetlb_vmemmap_size(h) == size
    assert hugetlb_vmemmap_optimizable_size(h) == optimizable
    assert hugetlb_vmemmap_optimizable(h) == (optimizable > 0)


def test_one_page_of_64_structs_is_reserved() -> None:
    assert (HUGETLB_VMEMMAP_RESERVE_SIZE, HUGETLB_VMEMMAP_RESERVE_PAGES) == (4096, 64)


# --- one folio --------------------------------------------------------------------------------------------


def test_the_second_folio_under_a_split_pmd_does_not_split_again() -> None:
    lab = lab_2m(0x4000, 0x4200)
    first, second = lab.config.huge_pages
    lab.optimize(first)
    middle = lab.state()
    lab.mark()
    lab.optimize(second)
    assert purposes(lab) == ["vmemmap head page"]
    assert lab.tables() == middle.tables
    assert lab.vmemmap() == shared(middle.leaves, second, lab.frame(second.folio))
    assert lab.kernel.pages.free_frames() == middle.free_frames + 7
    assert [flush.end - flush.start for flush in lab.heard(FlushBegun)] == [8 * 4096]
    assert lab.key() == 2
    lab.check_conservation()


def test_an_optimized_folio_is_not_optimized_again() -> None:
    lab = lab_2m()
    huge = lab.config.huge_pages[0]
    lab.optimize(huge)
    before, moment = lab.state(), lab.machine.memory.journal.now
    lab.mark()
    lab.optimize(huge)
    assert lab.state() == before
    assert lab.heard(PageAllocated, PageFreed, FlushBegun, GracePeriodBegun) == []
    # All that is written is the list head on the stack.
    assert lab.machine.memory.journal.now == moment + 2


def test_a_folio_with_its_vmemmap_is_not_restored() -> None:
    lab = lab_2m()
    before, moment = lab.state(), lab.machine.memory.journal.now
    assert lab.restore(lab.config.huge_pages[0]) == 0
    assert lab.state() == before
    assert lab.heard(PageAllocated, FlushBegun, GracePeriodBegun) == []
    assert lab.machine.memory.journal.now == moment


@pytest.mark.parametrize("function", ["single", "list", "split"])
def test_nothing_is_optimized_with_the_sysctl_off(function: str) -> None:
    lab = lab_2m(kernel=KernelConfig(vmemmap_optimize_enabled=False))
    huge = lab.config.huge_pages[0]
    before = lab.state()
    if function == "single":
        lab.optimize(huge)
    elif function == "list":
        lab.optimize_list()
    else:
        assert lab.call(lambda: lab.kernel.hvo.hugetlb_vmemmap_split_folio(HSTATE_2M, huge.folio)) == 0
    assert lab.state() == before
    assert lab.heard(PageAllocated, GracePeriodBegun) == []


def test_the_sysctl_is_read_for_each_folio() -> None:
    lab = lab_2m(*THREE)
    first, second, third = lab.config.huge_pages
    lab.optimize(first)
    lab.call(lambda: lab.kernel.hvo.write_sysctl(0))
    lab.optimize(second)
    # Off means no new ones: what is optimized can still be restored.
    assert lab.restore(first) == 0
    lab.call(lambda: lab.kernel.hvo.write_sysctl(1))
    lab.optimize(third)
    assert lab.state().optimized == (False, False, True)
    lab.check_conservation()


@pytest.mark.parametrize("order", [3, 6])
def test_a_size_without_a_whole_page_to_save_is_left_alone(order: int) -> None:
    lab = lab_of_order(order)
    before = lab.state()
    lab.optimize(lab.config.huge_pages[0])
    assert lab.state() == before
    lab.optimize_list(lab.config.huge_pages[0].hstate)
    assert lab.state() == before
    assert lab.heard(PageAllocated, GracePeriodBegun) == []


def test_splitting_alone_changes_no_mapping() -> None:
    lab = lab_2m()
    huge = lab.config.huge_pages[0]
    assert lab.call(lambda: lab.kernel.hvo.hugetlb_vmemmap_split_folio(HSTATE_2M, huge.folio)) == 0
    assert lab.vmemmap() == split(lab.initial, regions_of(huge))
    assert (lab.state().optimized, lab.key()) == ((False,), 0)
    # The caller owes the flush.
    assert lab.heard(FlushBegun) == []
    assert purposes(lab) == ["page table"]
    lab.check_conservation()


def test_splitting_what_is_split_does_nothing() -> None:
    lab = lab_2m(0x4000, 0x4200)
    first, second = lab.config.huge_pages
    lab.call(lambda: lab.kernel.hvo.hugetlb_vmemmap_split_folio(HSTATE_2M, first.folio))
    before = lab.state()
    assert lab.call(lambda: lab.kernel.hvo.hugetlb_vmemmap_split_folio(HSTATE_2M, second.folio)) == 0
    assert lab.state() == before


def test_the_exported_functions_announce_begin_and_return() -> None:
    lab = lab_2m()
    huge = lab.config.huge_pages[0]
    lab.optimize(huge)
    lab.restore(huge)
    lab.optimize_list()
    lab.restore_list()
    begun, ended = lab.heard(OperationBegun), lab.heard(OperationReturned)
    assert [(event.function, event.folios) for event in begun] == [
        ("hugetlb_vmemmap_optimize_folio", (huge.folio,)),
        ("hugetlb_vmemmap_restore_folio", (huge.folio,)),
        ("hugetlb_vmemmap_optimize_folios", ()),
        ("hugetlb_vmemmap_restore_folios", ()),
    ]
    assert [event.function for event in ended] == [event.function for event in begun]
    assert [event.result for event in ended] == [None, 0, None, 1]
    assert [event.begun for event in ended] == [lab.number_of(event) for event in begun]


# --- lists of folios --------------------------------------------------------------------------------------


def test_a_list_of_folios_is_optimized_where_it_is() -> None:
    lab = lab_2m(*THREE)
    lab.optimize_list()
    expected = split(lab.initial, [region_of(lab.config.huge_pages[0].folio)])
    for huge in lab.config.huge_pages:
        expected = shared(expected, huge, lab.frame(huge.folio))
    assert lab.vmemmap() == expected
    assert len({lab.frame(huge.folio) for huge in lab.config.huge_pages}) == 3
    assert lab.linked(FOLIO_LIST) == folios(lab)
    assert lab.key() == 3
    assert lab.counters() == {"nr_memmap_pages": 3, "nr_memmap_boot_pages": 512 - 24}
    assert purposes(lab) == ["page table", *["vmemmap head page"] * 3]
    lab.check_conservation()


def test_an_empty_list_is_optimized_and_restored() -> None:
    lab = Lab(BootConfig(128 << 20, 2, ()))
    before = lab.state()
    lab.optimize_list()
    assert lab.restore_list() == 0
    assert lab.state() == before


def test_folios_in_two_pmds_need_two_tables() -> None:
    lab = lab_2m(*TWO_SECTIONS, ram=256 << 20)
    lab.optimize_list()
    assert purposes(lab) == [*["page table"] * 2, *["vmemmap head page"] * 2]
    assert set(lab.tables()) == {region_of(folio) for folio in folios(lab)}
    lab.check_conservation()


def test_an_optimized_folio_on_the_list_is_skipped() -> None:
    lab = lab_2m(*THREE)
    second = lab.config.huge_pages[1]
    lab.optimize(second)
    its_frame = lab.frame(second.folio)
    lab.mark()
    lab.optimize_list()
    assert lab.state().optimized == (True, True, True)
    assert lab.frame(second.folio) == its_frame
    assert purposes(lab) == ["vmemmap head page"] * 2
    lab.check_conservation()


def test_restored_folios_move_to_the_other_list_last_first() -> None:
    lab = lab_2m(*THREE)
    lab.optimize_list()
    middle = lab.state()
    assert lab.restore_list() == 3
    after = lab.state()
    # list_move() puts each in front.
    assert (after.folio_list, after.non_hvo) == ([], folios(lab)[::-1])
    assert after.free_frames == middle.free_frames - 21
    assert after.counters == {"nr_memmap_pages": 24, "nr_memmap_boot_pages": 512 - 24}
    assert {
        lab.leaf(va).flags for huge in lab.config.huge_pages for va in (huge.folio, huge.folio + 4096)
    } == {RW}
    assert after.optimized == (False, False, False)
    lab.check_conservation()


def test_a_list_may_mix_folios_with_and_without_vmemmap() -> None:
    lab = lab_2m(*THREE)
    lab.optimize(lab.config.huge_pages[1])
    assert lab.restore_list() == 1
    assert (lab.linked(FOLIO_LIST), lab.linked(NON_HVO_FOLIOS)) == ([], folios(lab)[::-1])
    lab.check_conservation()


def test_folios_without_hvo_only_move() -> None:
    lab = lab_2m(*THREE)
    assert lab.restore_list() == 0
    assert lab.linked(NON_HVO_FOLIOS) == folios(lab)[::-1]
    assert lab.heard(PageAllocated, FlushBegun, GracePeriodBegun) == []
    lab.check_conservation()


def test_lists_survive_the_remapping_of_the_memory_their_links_are_in() -> None:
    # The links are words of the head struct pages: copied to a new frame, and read there afterwards.
    lab = lab_2m(*THREE)
    for _ in range(3):
        lab.optimize_list()
        assert lab.linked(FOLIO_LIST) == folios(lab)
        assert lab.restore_list() == 3
        for folio in lab.linked(NON_HVO_FOLIOS):
            lists = lab.kernel.lists
            lab.call(lambda f=folio, ls=lists: ls.move(lru(VirtAddr(f)), VirtAddr(FOLIO_LIST)))  # type: ignore[misc]
        assert lab.linked(FOLIO_LIST) == folios(lab)
    lab.check_conservation()


def test_a_folio_that_spans_pmds_and_its_neighbours() -> None:
    # Order 16: two PMDs of vmemmap, all of both; the 2 MiB folio after it lies in the next.
    huge = HugePage(Pfn(0x10000), Hstate("256M", 16))
    small = huge_2m(0x20000)
    lab = Lab(BootConfig(1024 << 20, 2, (huge, small)))
    lab.optimize(huge)
    assert lab.vmemmap() == shared(split(lab.initial, regions_of(huge)), huge, lab.frame(huge.folio))
    assert lab.leaf(small.folio) == Leaf(2, lab.initial[region_of(small.folio)].pfn, "P W A D G NX PSE")
    assert region_of(small.folio) == huge.folio + 2 * REGION
    lab.check_conservation()


# --- VM_WARN_ON -------------------------------------------------------------------------------------------

NO_TYPE = "VM_WARN_ON_ONCE_FOLIO(!folio_test_hugetlb(folio))"
REFERENCED = "VM_WARN_ON_ONCE_FOLIO(folio_ref_count(folio))"


def warnings(lab: Lab) -> list[tuple[str, str]]:
    return [(event.where, event.message) for event in lab.heard(KernelWarning)]


def test_a_frozen_hugetlb_folio_is_nothing_to_warn_of() -> None:
    lab = lab_2m()
    lab.optimize(lab.config.huge_pages[0])
    lab.restore(lab.config.huge_pages[0])
    lab.optimize_list()
    lab.restore_list()
    assert warnings(lab) == []


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        pytest.param(48, 0xFFFF_FFFF, NO_TYPE, id="no type"),
        pytest.param(48, 0xF500_0000, NO_TYPE, id="another type"),
        pytest.param(52, 1, REFERENCED, id="one reference"),
    ],
)
def test_a_folio_that_is_not_frozen_or_not_hugetlb_is_warned_of(
    offset: int, value: int, message: str
) -> None:
    lab = lab_2m()
    huge = lab.config.huge_pages[0]
    lab.write(huge.folio + offset, value.to_bytes(4, "little"))
    lab.optimize(huge)
    assert warnings(lab) == [("__hugetlb_vmemmap_optimize_folio", message)]
    # A warning only: the work is done.
    assert lab.optimized(huge)
    lab.mark()
    assert lab.restore(huge) == 0
    assert warnings(lab) == [("__hugetlb_vmemmap_restore_folio", message)]


def test_only_the_top_byte_of_the_type_word_is_the_type() -> None:
    # v6.12 FOLIO_TYPE_OPS: page_type >> 24 == PGTY_hugetlb.
    lab = lab_2m()
    huge = lab.config.huge_pages[0]
    lab.write(huge.folio + 48, (0xF400_0001).to_bytes(4, "little"))
    lab.optimize(huge)
    assert warnings(lab) == []


def test_warnings_come_before_the_question_whether_there_is_work() -> None:
    lab = lab_2m(kernel=KernelConfig(vmemmap_optimize_enabled=False))
    huge = lab.config.huge_pages[0]
    lab.write(huge.folio + 48, bytes(4) + (1).to_bytes(4, "little"))
    lab.optimize(huge)
    assert [message for _, message in warnings(lab)] == [NO_TYPE, REFERENCED]


def test_without_debug_vm_nothing_is_warned_of() -> None:
    lab = lab_2m(kernel=KernelConfig(debug_vm=False))
    huge = lab.config.huge_pages[0]
    lab.write(huge.folio + 48, bytes(4) + (1).to_bytes(4, "little"))
    lab.optimize(huge)
    assert warnings(lab) == []
    assert lab.optimized(huge)


# --- BUG_ON -----------------------------------------------------------------------------------------------


def bug_of(lab: Lab, routine: Callable[[], Coroutine[Any, Any, Any]]) -> KernelBug:
    """The BUG that a routine ends in."""
    call = lab.start(routine)
    lab.run()
    assert not call.returned
    (bug,) = lab.heard(KernelBug)
    return bug


def test_restoring_a_tail_that_is_not_on_the_heads_frame_is_a_bug() -> None:
    lab = lab_2m()
    huge = lab.config.huge_pages[0]
    lab.optimize(huge)
    tail, head = huge.folio + 3 * 4096, lab.frame(huge.folio)
    entry = DIRECT_MAP + lab.tables()[region_of(tail)] * 4096 + (tail >> 12 & 511) * 8
    lab.write(entry, (1 << 63 | 0x3000 << 12 | 0x121).to_bytes(8, "little"))
    bug = bug_of(lab, lambda: lab.kernel.hvo.hugetlb_vmemmap_restore_folio(huge.hstate, huge.folio))
    assert bug.where == "vmemmap_restore_pte"
    assert f"{lab.page(0x3000):#x} != {lab.page(head):#x}" in bug.message


@pytest.mark.parametrize("function", ["split", "free", "alloc"])
def test_a_range_that_does_not_follow_its_reuse_page_is_a_bug(function: str) -> None:
    lab = lab_2m()
    hvo, folio, pages = lab.kernel.hvo, lab.config.huge_pages[0].folio, VirtAddr(NON_HVO_FOLIOS)
    start, end = VirtAddr(folio + 8192), VirtAddr(folio + 0x8000)
    routines = {
        "split": lambda: hvo.vmemmap_remap_split(start, end, folio),
        "free": lambda: hvo.vmemmap_remap_free(start, end, folio, pages, WalkFlag(0)),
        "alloc": lambda: hvo.vmemmap_remap_alloc(start, end, folio, WalkFlag(0)),
    }
    assert bug_of(lab, routines[function]) == KernelBug(
        f"vmemmap_remap_{function}", f"BUG_ON({start:#x} - {folio:#x} != PAGE_SIZE)"
    )
    assert lab.vmemmap() == lab.initial


def test_a_range_of_bytes_is_a_bug() -> None:
    lab = lab_2m()
    hvo, folio = lab.kernel.hvo, lab.config.huge_pages[0].folio
    start, end = VirtAddr(folio + 4096), VirtAddr(folio + 0x8000 - 64)
    bug = bug_of(lab, lambda: hvo.vmemmap_remap_split(start, end, folio))
    assert bug.where == "vmemmap_remap_range"
    assert bug.message.startswith("VM_BUG_ON(!PAGE_ALIGNED(")


# --- the flag's other bits ---------------------------------------------------------------------------------


def test_the_other_bits_of_private_stay() -> None:
    # HPG_freed and what lies above the flags. The real kernel's folios have 0x18 when they are in the pool.
    lab = lab_2m()
    huge = lab.config.huge_pages[0]
    private = 0x1234_5678_0000_0008
    lab.write(huge.folio + 40, private.to_bytes(8, "little"))
    lab.optimize(huge)
    assert lab.word_at(huge.folio + 40) == private | OPTIMIZED
    lab.restore(huge)
    assert lab.word_at(huge.folio + 40) == private
