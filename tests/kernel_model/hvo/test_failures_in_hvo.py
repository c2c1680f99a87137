"""Allocations that fail while lists of folios are optimized, and while folios are restored."""

from __future__ import annotations

import pytest
from hvo_lab import (
    ENOMEM,
    FOLIO_LIST,
    KEY,
    NON_HVO_FOLIOS,
    PAGE,
    Lab,
    lab_2m,
    lab_of_order,
    region_of,
)
from hvo_story import FIRST_KEY, FLUSH_ALL, HEAD, LAST_KEY, RCU, REMAP_2M, SPLIT, SPLIT_FLUSH, story
from hypothesis import given, settings
from hypothesis import strategies as st

from emu.choice import DecideQuestion, Question
from kernel_model.core.events import (
    AllocationFailed,
    FlushBegun,
    GracePeriodBegun,
    KernelBug,
    OperationReturned,
    PageAllocated,
    PageFreed,
)
from kernel_model.core.sites import FlushSite
from kernel_model.mm.failures import AllocationFailures, EachMayFail, FailAt, FailFrom, NoFailures

# Three folios, each in a PMD of its own. Without failures the allocations are: 0, 1, 2 a table each,
# 3, 4, 5 a head each.
THREE_SECTIONS = (0x4000, 0xA000, 0x12000)


def three(*failing: int, failures: AllocationFailures | None = None) -> Lab:
    return lab_2m(*THREE_SECTIONS, ram=384 << 20, failures=failures or FailAt(frozenset(failing)))


def folios(lab: Lab) -> list[int]:
    return [huge.folio for huge in lab.config.huge_pages]


SPLIT_AND_REMAP = ["flag set", *HEAD, *SPLIT, *SPLIT_FLUSH, "8 x set PTE"]


# --- optimizing a list ------------------------------------------------------------------------------------


def test_the_split_pass_stops_at_the_first_failure() -> None:
    lab = three(1)
    lab.optimize_list()
    # The second fails; the third is not tried. Both are split on demand, each with a flush of its own.
    assert story(lab) == [
        *("begin", *SPLIT, "no page table"),
        *FLUSH_ALL,
        *(*FIRST_KEY, *RCU, *REMAP_2M),
        *("key 1 -> 2", *SPLIT_AND_REMAP),
        *("key 2 -> 3", *SPLIT_AND_REMAP),
        *(*FLUSH_ALL, "24 x free", "return"),
    ]
    assert lab.state().optimized == (True, True, True)
    lab.check_conservation()


def test_out_of_memory_with_pages_in_hand_flushes_frees_and_retries() -> None:
    lab = three(1, 4)
    lab.optimize_list()
    assert story(lab) == [
        *("begin", *SPLIT, "no page table"),
        *FLUSH_ALL,
        *(*FIRST_KEY, *RCU, *REMAP_2M),
        *("key 1 -> 2", "flag set", *HEAD, "no page table", "key 2 -> 1", "flag cleared"),
        *(*FLUSH_ALL, "9 x free"),  # the first folio's eight, and the fresh head of the second
        *("key 1 -> 2", *SPLIT_AND_REMAP),
        *("key 2 -> 3", *SPLIT_AND_REMAP),
        *(*FLUSH_ALL, "16 x free", "return"),
    ]
    assert lab.state().optimized == (True, True, True)
    assert len(lab.heard(GracePeriodBegun)) == 1
    lab.check_conservation()


def test_the_retry_may_fail_too_and_the_next_folio_is_still_tried() -> None:
    lab = three(1, 4, 6)
    second = lab.config.huge_pages[1]
    its_pages = lab.frames_of(second)
    lab.optimize_list()
    failed = ["flag set", *HEAD, "no page table", "key 2 -> 1", "flag cleared"]
    assert story(lab) == [
        *("begin", *SPLIT, "no page table"),
        *FLUSH_ALL,
        *(*FIRST_KEY, *RCU, *REMAP_2M),
        *("key 1 -> 2", *failed),
        *(*FLUSH_ALL, "9 x free"),
        *("key 1 -> 2", *failed),  # no second retry
        *("key 1 -> 2", *SPLIT_AND_REMAP),
        *(*FLUSH_ALL, "9 x free", "return"),
    ]
    assert lab.state().optimized == (True, False, True)
    assert lab.frames_of(second) == its_pages
    assert lab.linked(FOLIO_LIST) == folios(lab)
    assert lab.counters() == {"nr_memmap_pages": 2, "nr_memmap_boot_pages": 3 * 512 - 16}
    lab.check_conservation()


def test_the_first_folio_retries_with_nothing_but_its_own_fresh_head_in_hand() -> None:
    lab = three(0, 2)
    lab.optimize_list()
    assert story(lab) == [
        *("begin", "no page table"),
        *FLUSH_ALL,
        *(*FIRST_KEY, *RCU, "flag set", *HEAD, "no page table", *LAST_KEY, "flag cleared"),
        *(*FLUSH_ALL, "free"),
        *(*FIRST_KEY, *SPLIT_AND_REMAP),  # its grace period is paid already
        *("key 1 -> 2", *SPLIT_AND_REMAP),
        *("key 2 -> 3", *SPLIT_AND_REMAP),
        *(*FLUSH_ALL, "24 x free", "return"),
    ]
    lab.check_conservation()


def test_out_of_memory_with_empty_hands_is_not_retried() -> None:
    lab = three(failures=FailFrom(0))
    before = lab.state()
    lab.optimize_list()
    failed = ["flag set", "no vmemmap head page", "no page table", *LAST_KEY, "flag cleared"]
    assert story(lab) == [
        *("begin", "no page table"),
        *FLUSH_ALL,
        *(*FIRST_KEY, *RCU, *failed),
        *(*FIRST_KEY, *failed),
        *(*FIRST_KEY, *failed),
        *(*FLUSH_ALL, "return"),
    ]
    assert lab.state() == before


def test_a_batch_without_fresh_heads_reuses_the_old_ones() -> None:
    lab = three(3, 4, 5)
    old = [lab.frame(folio) for folio in folios(lab)]
    lab.optimize_list()
    assert [lab.frame(folio) for folio in folios(lab)] == old
    assert lab.counters() == {"nr_memmap_pages": 0, "nr_memmap_boot_pages": 3 * 512 - 21}
    assert len(lab.heard(PageFreed)) == 21
    assert lab.linked(FOLIO_LIST) == folios(lab)
    lab.check_conservation()


def test_a_large_folio_is_rolled_back_and_retried_with_the_old_head_page() -> None:
    # Order 16: the split pass gets one table of two, so does the first try; the rollback frees one page.
    lab = lab_of_order(16, failures=FailAt(frozenset({1, 3})))
    huge = lab.config.huge_pages[0]
    before = lab.state()
    lab.optimize_list(huge.hstate)
    assert lab.optimized(huge)
    half = FlushBegun(
        "flush_tlb_kernel_range", huge.folio, huge.folio + 512 * PAGE, frozenset({0, 1}), FlushSite.RESTORE
    )
    flushes = [(flush.function, (flush.end - flush.start) // PAGE) for flush in lab.heard(FlushBegun)]
    everything = ("flush_tlb_all", (1 << 64) // PAGE)
    # After the split pass; the rollback's; before the retry; the split on demand; the last.
    assert flushes == [
        everything,
        ("flush_tlb_kernel_range", 512),
        everything,
        (half.function, 512),
        everything,
    ]
    assert lab.heard(FlushBegun)[1] == half
    freed = [event.pfn for event in lab.heard(PageFreed)]
    assert freed[0] == before.leaves[region_of(huge.folio)].pfn, "the old head page goes before the retry"
    assert len(freed) == 1 + 1024
    boot = before.counters["nr_memmap_boot_pages"] - 1024
    assert lab.counters() == {"nr_memmap_pages": 1, "nr_memmap_boot_pages": boot}
    lab.check_conservation()


# --- restoring one folio ----------------------------------------------------------------------------------


@pytest.mark.parametrize("failing", range(7))
def test_a_restore_that_gets_not_all_pages_changes_nothing(failing: int) -> None:
    # Positions 0 and 1 were the head and the page table.
    lab = lab_2m(failures=FailAt(frozenset({2 + failing})))
    huge = lab.config.huge_pages[0]
    lab.optimize(huge)
    before, head_page = lab.state(), lab.bytes_at(huge.folio, PAGE)
    lab.mark()
    assert lab.restore(huge) == ENOMEM
    assert lab.state() == before
    assert lab.bytes_at(huge.folio, PAGE) == head_page
    assert lab.optimized(huge)
    # The grace period is paid; no flush, for nothing was remapped; what was allocated is freed again.
    assert (len(lab.heard(GracePeriodBegun)), lab.heard(FlushBegun)) == (1, [])
    allocated = [event.pfn for event in lab.heard(PageAllocated)]
    assert len(allocated) == failing
    assert [event.pfn for event in lab.heard(PageFreed)] == allocated[::-1]
    assert [event.result for event in lab.heard(OperationReturned)] == [ENOMEM]
    lab.check_conservation()
    # The next try may succeed.
    assert lab.restore(huge) == 0
    lab.check_conservation()


# --- restoring a list -------------------------------------------------------------------------------------

# Three folios in one PMD: position 0 was the table, 1 to 3 the heads; each restore takes seven from 4 on.
THREE = (0x4000, 0x4200, 0x4400)


@pytest.mark.parametrize(("failing", "restored"), [(4, 0), (10, 0), (11, 1), (13, 1), (18, 2), (24, 2)])
def test_restoring_a_list_stops_at_the_folio_that_fails(failing: int, restored: int) -> None:
    lab = lab_2m(*THREE, failures=FailAt(frozenset({failing})))
    lab.optimize_list()
    before = lab.state()
    lab.mark()
    assert lab.restore_list() == ENOMEM
    after = lab.state()
    # The failing folio and those behind it stay where they are.
    assert after.folio_list == folios(lab)[restored:]
    assert after.non_hvo == folios(lab)[:restored][::-1]
    assert after.optimized == (False,) * restored + (True,) * (3 - restored)
    assert after.key == 3 - restored
    assert after.free_frames == before.free_frames - 7 * restored
    assert after.counters["nr_memmap_pages"] == 3 + 7 * restored
    flushes = [flush.function for flush in lab.heard(FlushBegun)]
    assert flushes == (["flush_tlb_all"] if restored else [])
    assert len(lab.heard(GracePeriodBegun)) == 1
    assert [event.result for event in lab.heard(OperationReturned)] == [ENOMEM]
    lab.check_conservation()


def test_folios_with_their_vmemmap_move_before_the_failure() -> None:
    lab = lab_2m(*THREE, failures=FailAt(frozenset({4})))
    first, second, third = lab.config.huge_pages
    lab.optimize(second)
    lab.optimize(third)  # positions 0 to 2: two heads and a table
    lab.mark()
    assert [event.position for event in lab.heard(AllocationFailed)] == []
    assert lab.restore_list() == ENOMEM
    assert lab.linked(NON_HVO_FOLIOS) == [first.folio]
    assert lab.linked(FOLIO_LIST) == [second.folio, third.folio]
    assert lab.heard(FlushBegun) == []
    lab.check_conservation()


def test_a_failed_restore_can_be_repeated_for_what_is_left() -> None:
    lab = lab_2m(*THREE, failures=FailAt(frozenset({13})))
    lab.optimize_list()
    assert lab.restore_list() == ENOMEM
    assert lab.restore_list() == 2
    assert (lab.linked(FOLIO_LIST), lab.linked(NON_HVO_FOLIOS)) == ([], folios(lab)[::-1])
    lab.check_conservation()


# --- memory that is really gone ---------------------------------------------------------------------------


def test_an_exhausted_machine_optimizes_without_fresh_pages_once_it_is_split() -> None:
    # HVO gives memory back even where there is none to begin with.
    lab = lab_2m(0x4000, 0x4200)
    first, second = lab.config.huge_pages
    lab.call(lambda: lab.kernel.hvo.hugetlb_vmemmap_split_folio(first.hstate, first.folio))
    lab.kernel.pages.failures = FailFrom(0)
    lab.optimize(first)
    lab.kernel.pages.failures = NoFailures()
    assert lab.optimized(first)
    assert lab.counters() == {"nr_memmap_pages": 0, "nr_memmap_boot_pages": 512 - 7}
    lab.optimize(second)
    lab.check_conservation()


# --- each allocation a free choice ------------------------------------------------------------------------


class Deciding:
    """Answers the n-th decision with the n-th of the given outcomes, and 0 when they are used up."""

    def __init__(self, outcomes: list[bool]) -> None:
        self._outcomes = iter(outcomes)
        self.asked: list[str] = []

    def answer(self, question: Question) -> int:
        if not isinstance(question, DecideQuestion):
            return question.default
        self.asked.append(question.label)
        assert question.options == 2
        return int(next(self._outcomes, False))


def test_each_allocation_is_a_decision_with_a_name() -> None:
    lab = lab_2m(failures=EachMayFail())
    huge = lab.config.huge_pages[0]
    hvo, deciding = lab.kernel.hvo, Deciding([])
    lab.call(lambda: hvo.hugetlb_vmemmap_optimize_folio(huge.hstate, huge.folio), answerer=deciding)
    assert deciding.asked == ["allocation 0: vmemmap head page", "allocation 1: page table"]
    deciding = Deciding([False] * 3 + [True])
    result = lab.call(lambda: hvo.hugetlb_vmemmap_restore_folio(huge.hstate, huge.folio), answerer=deciding)
    assert result == ENOMEM
    assert deciding.asked == [f"allocation {n}: vmemmap tail page" for n in range(2, 6)]


@pytest.mark.parametrize("no_head", [False, True])
@pytest.mark.parametrize("no_table", [False, True])
def test_both_outcomes_of_both_allocations(no_head: bool, no_table: bool) -> None:
    lab = lab_2m(failures=EachMayFail())
    huge = lab.config.huge_pages[0]
    hvo, deciding = lab.kernel.hvo, Deciding([no_head, no_table])
    lab.call(lambda: hvo.hugetlb_vmemmap_optimize_folio(huge.hstate, huge.folio), answerer=deciding)
    assert len(deciding.asked) == 2
    assert lab.optimized(huge) == (not no_table)
    moved = lab.frame(huge.folio) != lab.initial[region_of(huge.folio)].pfn + huge.folio % (2 << 20) // PAGE
    assert moved == (not no_head and not no_table)
    lab.check_conservation()


OPERATIONS = st.sampled_from(
    ["optimize list", "restore list", "optimize 0", "optimize 2", "restore 0", "restore 2"]
)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(OPERATIONS, min_size=1, max_size=5), st.lists(st.booleans(), max_size=60))
def test_whatever_fails_everything_adds_up(operations: list[str], failing: list[bool]) -> None:
    """Two folios in one PMD and one in another; any allocation may fail in any operation."""
    lab = lab_2m(0x4000, 0x4200, 0xA000, ram=256 << 20, failures=EachMayFail())
    deciding, hvo = Deciding(failing), lab.kernel.hvo
    for operation in operations:
        before = lab.state()
        match operation.split():
            case ["optimize", "list"]:
                lab.optimize_list(answerer=deciding)
            case ["restore", "list"]:
                lab.restore_list(answerer=deciding)
            case [verb, number]:
                huge = lab.config.huge_pages[int(number)]
                function = getattr(hvo, f"hugetlb_vmemmap_{verb}_folio")
                lab.call(lambda f=function, h=huge: f(h.hstate, h.folio), answerer=deciding)  # type: ignore[misc]
        lab.check_conservation()
        after = lab.state()
        assert sorted(after.folio_list + after.non_hvo) == sorted(before.folio_list + before.non_hvo)
        assert set(after.tables) >= set(before.tables)
    assert lab.heard(KernelBug) == []
    assert lab.key() == sum(lab.state().optimized)
    assert lab.word_at(KEY) == lab.key()
    # Whatever happened, the head struct pages are what they were but for the flag and their links.
    heads = [lab.struct_page(huge.pfn) for huge in lab.config.huge_pages]
    assert [(head.refcount, head.page_type) for head in heads] == [(0, 0xF400_0000)] * 3
