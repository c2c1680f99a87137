"""What optimizing and restoring one folio leaves behind, for the two sizes Linux has: 2 MiB and 1 GiB."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hvo_lab import (
    FOLIO_LIST,
    KEY,
    MIB,
    OPTIMIZED,
    PAGE,
    POISON1,
    POISON2,
    RW,
    STRUCT,
    VMEMMAP,
    Lab,
    Leaf,
    State,
    frames,
    lab_2m,
    lab_of_order,
    pages_of,
    regions_of,
    restored_tail,
    shared,
    split,
    with_byte,
)

from emu.paging.tlb import InvalidateAll, Invalidation, Invlpg
from kernel_model.core.events import FlushBegun, PageAllocated, PageFreed
from kernel_model.mm.buddy import POISON_BYTE
from kernel_model.mm.image import HugePage


@dataclass
class Numbers:
    """The numbers of one size, written down: pages of vmemmap, tables, and the counters over time."""

    pages: int
    tables: int
    free: tuple[int, int, int]
    boot_pages: tuple[int, int, int]
    memmap_pages: tuple[int, int, int]


# 2M: of 128 MiB (32768 frames) the kernel has 2048, vmemmap 512, the huge page 512.
# 1G: of 2176 MiB (557056 frames) the kernel has 2048, vmemmap 17 x 512, the huge page 262144.
NUMBERS = {
    9: Numbers(8, 1, (29696, 29696 + 7 - 1, 29696 - 1), (512, 504, 504), (0, 1, 8)),
    18: Numbers(4096, 8, (284160, 284160 + 4095 - 8, 284160 - 8), (8704, 4608, 4608), (0, 1, 4096)),
}


@dataclass
class Story:
    """One folio optimized and then restored, with what there was before, between and after."""

    lab: Lab
    huge: HugePage
    numbers: Numbers
    states: list[State] = field(default_factory=list)
    frames: list[list[int]] = field(default_factory=list)
    head_pages: list[bytes] = field(default_factory=list)
    freed_contents: set[bytes] = field(default_factory=set)
    freed_structs: set[bytes] = field(default_factory=set)
    head_allocated: list[PageAllocated] = field(default_factory=list)
    tails_allocated: list[int] = field(default_factory=list)
    freed: list[int] = field(default_factory=list)
    flushes: list[list[tuple[int, Invalidation]]] = field(default_factory=list)
    tail_contents: set[bytes] = field(default_factory=set)

    def note(self) -> None:
        self.states.append(self.lab.state())
        self.frames.append(self.lab.frames_of(self.huge))
        self.head_pages.append(self.lab.contents(self.frames[-1][0]))
        pages = [(flush.end - flush.start) // PAGE for flush in self.lab.heard(FlushBegun)]
        # What was asked for, beside what the other CPU did.
        self.flushes.append(list(zip(pages, self.lab.invalidations(1), strict=True)))


@pytest.fixture(scope="module", params=NUMBERS, ids=["2M", "1G"])
def story(request: pytest.FixtureRequest) -> Story:
    order: int = request.param
    lab = lab_2m() if order == 9 else lab_of_order(order)
    huge = lab.config.huge_pages[0]
    told = Story(lab, huge, NUMBERS[order])
    told.note()
    lab.optimize(huge)
    told.note()
    told.freed_contents = {lab.contents(pfn) for pfn in told.frames[0]}
    told.freed_structs = {lab.struct_page(pfn)._replace(next=0, prev=0).pack() for pfn in told.frames[0]}
    told.head_allocated = [e for e in lab.heard(PageAllocated) if e.purpose == "vmemmap head page"]
    told.freed = [e.pfn for e in lab.heard(PageFreed)]
    lab.mark()
    assert lab.restore(huge) == 0
    told.note()
    told.tails_allocated = [e.pfn for e in lab.heard(PageAllocated)]
    told.tail_contents = {lab.contents(pfn) for pfn in told.frames[2][1:]}
    return told


def test_the_size_is_the_one_meant(story: Story) -> None:
    assert len(pages_of(story.huge)) == story.numbers.pages
    assert len(regions_of(story.huge)) == story.numbers.tables


def test_the_tails_are_read_only_on_the_heads_fresh_frame(story: Story) -> None:
    before, optimized, _ = story.states
    head = story.frames[1][0]
    # The whole of vmemmap: the folio's own PMDs are split, their other PTEs map what they mapped.
    assert optimized.leaves == shared(split(before.leaves, regions_of(story.huge)), story.huge, head)
    assert head not in set(frames(before.leaves))
    assert [event.pfn for event in story.head_allocated] == [head]


def test_as_many_page_tables_as_there_are_pmds(story: Story) -> None:
    assert set(story.states[1].tables) == set(regions_of(story.huge))
    assert story.states[2].tables == story.states[1].tables
    assert not set(story.states[1].tables.values()) & {*frames(story.states[0].leaves), story.frames[1][0]}


def test_7_of_8_and_4095_of_4096_pages_are_free_then(story: Story) -> None:
    assert tuple(state.free_frames for state in story.states) == story.numbers.free
    assert sorted(story.freed) == sorted(story.frames[0])
    net = story.states[1].free_frames - story.states[0].free_frames + story.numbers.tables
    assert net == story.numbers.pages - 1


def test_the_counters_move_as_the_c_moves_them(story: Story) -> None:
    boot = tuple(state.counters["nr_memmap_boot_pages"] for state in story.states)
    memmap = tuple(state.counters["nr_memmap_pages"] for state in story.states)
    # A restored page counts in nr_memmap_pages, although it was a boot page before.
    assert (boot, memmap) == (story.numbers.boot_pages, story.numbers.memmap_pages)


def test_the_flag_and_the_static_key_follow(story: Story) -> None:
    assert [state.optimized for state in story.states] == [(False,), (True,), (False,)]
    assert [state.key for state in story.states] == [0, 1, 0]


def test_the_lists_are_as_they_were(story: Story) -> None:
    assert {tuple(state.folio_list) for state in story.states} == {(story.huge.folio,)}
    assert all(state.non_hvo == [] for state in story.states)


def test_only_the_private_byte_of_the_head_page_changes(story: Story) -> None:
    before, optimized, restored = story.head_pages
    assert before[40] == 0
    assert optimized == with_byte(before, 40, OPTIMIZED)
    assert restored == before


def test_freed_pages_are_poisoned_and_no_boot_pages_any_more(story: Story) -> None:
    assert story.freed_contents == {bytes((POISON_BYTE,)) * PAGE}
    unused = story.lab.struct_page(story.huge.pfn - 1)  # a frame that was never used
    assert unused.refcount == unused.index == unused.private == 0
    assert story.freed_structs == {unused.pack()}


def test_after_restore_every_page_is_private_and_writable(story: Story) -> None:
    _, optimized, restored = story.states
    expected = dict(optimized.leaves)
    for va, pfn in zip(pages_of(story.huge), story.frames[2], strict=True):
        expected[va] = Leaf(1, pfn, RW)
    assert restored.leaves == expected
    assert story.frames[2][0] == story.frames[1][0], "the head page stays where it is"
    assert len(set(story.frames[2])) == story.numbers.pages
    assert not set(story.frames[2]) & set(restored.tables.values())


def test_the_page_allocated_last_becomes_the_first_tail(story: Story) -> None:
    # list_add() and list_first_entry(): a stack.
    assert story.frames[2][1:] == story.tails_allocated[::-1]


def test_restored_tails_are_the_head_page_with_three_structs_reset(story: Story) -> None:
    # Copied while the flag was still set; that byte lies in struct 0, which is overwritten.
    assert story.tail_contents == {restored_tail(story.head_pages[1])}
    assert story.tail_contents == {restored_tail(story.head_pages[0])}


def test_a_page_at_a_time_is_flushed_for_2m_and_everything_for_1g(story: Story) -> None:
    pages, tables, everything = story.numbers.pages, story.numbers.tables, InvalidateAll()
    remap = (pages, everything if pages > 33 else Invlpg(story.huge.folio, 0, pages))
    assert story.flushes == [[], [(512, everything)] * tables + [remap], [remap]]


def test_everything_adds_up(story: Story) -> None:
    story.lab.check_conservation()


# --- the whole memory -------------------------------------------------------------------------------------


def _memory(lab: Lab) -> list[bytes]:
    """All of memory by frame."""
    whole = lab.machine.memory.read(0, lab.machine.memory.size)
    return [whole[at : at + PAGE] for at in range(0, len(whole), PAGE)]


def _changed(before: list[bytes], after: list[bytes]) -> set[int]:
    return {pfn for pfn, (one, other) in enumerate(zip(before, after, strict=True)) if one != other}


def _behind(lab: Lab, pfns: list[int]) -> set[int]:
    """The frames that hold the struct pages of these frames."""
    return {lab.frame(VMEMMAP + pfn * STRUCT) for pfn in pfns}


GLOBALS = 6 * MIB // PAGE
FREE_LISTS = GLOBALS + 2
BATCH = 16
CPU0_STACK = 4 * MIB // PAGE + 1


def test_optimizing_2m_writes_nothing_it_should_not() -> None:
    lab = lab_2m()
    huge = lab.config.huge_pages[0]
    before, old = _memory(lab), lab.frames_of(huge)
    lab.optimize(huge)
    head, table = lab.frame(huge.folio), lab.tables()[regions_of(huge)[0]]
    directory = next(iter(_changed(before, _memory(lab)) & set(range(1, 2 * MIB // PAGE))))
    # A batch of single frames came off the free lists, whose blocks are linked through their struct pages.
    assert {table, head} <= {*range(0x4200, 0x4200 + BATCH)}
    blocks = [0x4200, 0x7C00, *(0x4200 + (BATCH << n) for n in range(5))]
    expected = {directory, table, head, *old, GLOBALS, FREE_LISTS, CPU0_STACK}
    expected |= _behind(lab, [table, head, *old, *blocks])
    assert _changed(before, _memory(lab)) == expected
    assert lab.word(GLOBALS * PAGE) == 1
    # One reference each; the head's was on a list and was deleted from it.
    unused = lab.struct_page(huge.pfn - 1)
    assert lab.struct_page(table) == unused._replace(refcount=1)
    assert lab.struct_page(head) == unused._replace(refcount=1, next=POISON1, prev=POISON2)
    assert len(old) == 8
    for pfn in old:
        lru = VMEMMAP + pfn * STRUCT + 8
        assert lab.struct_page(pfn) == unused._replace(next=lru, prev=lru)


def test_restoring_2m_writes_nothing_it_should_not() -> None:
    lab = lab_2m()
    huge = lab.config.huge_pages[0]
    lab.optimize(huge)
    before = _memory(lab)
    assert lab.restore(huge) == 0
    head, *tails = lab.frames_of(huge)
    table = lab.tables()[regions_of(huge)[0]]
    expected = {table, head, *tails, *_behind(lab, tails), GLOBALS, CPU0_STACK}
    assert _changed(before, _memory(lab)) == expected
    unused = lab.struct_page(huge.pfn - 1)
    assert len(tails) == 7
    for pfn in tails:
        assert lab.struct_page(pfn) == unused._replace(refcount=1, next=POISON1, prev=POISON2)


def test_optimizing_again_after_restore_starts_from_split_pages() -> None:
    lab = lab_2m()
    huge = lab.config.huge_pages[0]
    lab.optimize(huge)
    lab.restore(huge)
    middle, old, tail = lab.state(), lab.frames_of(huge), lab.contents(lab.frames_of(huge)[1])
    lab.mark()
    lab.optimize(huge)
    # No table is needed, and now no boot page is freed: all 8 old pages count in nr_memmap_pages.
    assert [event.purpose for event in lab.heard(PageAllocated)] == ["vmemmap head page"]
    assert lab.vmemmap() == shared(middle.leaves, huge, lab.frame(huge.folio))
    assert lab.counters() == {"nr_memmap_pages": 8 + 1 - 8, "nr_memmap_boot_pages": 504}
    assert lab.kernel.pages.free_frames() == middle.free_frames + 7
    assert len(old) == 8
    assert all(lab.kernel.pages.is_free(pfn) for pfn in old)
    lab.restore(huge)
    assert {lab.contents(pfn) for pfn in lab.frames_of(huge)[1:]} == {tail}
    lab.check_conservation()


@pytest.mark.parametrize("order", [7, 8, 10, 11, 16])
def test_other_sizes_give_back_all_pages_but_one(order: int) -> None:
    lab = lab_of_order(order)
    huge = lab.config.huge_pages[0]
    pages, tables = (1 << order) * STRUCT // PAGE, max(1, (1 << order) // 32768)
    before = lab.state()
    lab.optimize(huge)
    optimized = lab.state()
    assert optimized.leaves == shared(split(before.leaves, regions_of(huge)), huge, lab.frame(huge.folio))
    assert optimized.free_frames == before.free_frames + pages - 1 - tables
    lab.check_conservation()
    assert lab.restore(huge) == 0
    assert lab.kernel.pages.free_frames() == before.free_frames - tables
    lab.check_conservation()


def test_counts_are_kept_by_the_cpu_that_counted() -> None:
    lab = lab_2m(0x4000, 0x4200)
    first, second = lab.config.huge_pages
    lab.optimize(first, cpu=0)
    lab.optimize(second, cpu=1)
    counters = lab.machine.counters
    assert counters["nr_memmap_boot_pages", 0] == 512 - 8
    assert counters["nr_memmap_boot_pages", 1] == -8
    assert counters["nr_memmap_pages", 0] == counters["nr_memmap_pages", 1] == 1
    lab.check_conservation()


def test_the_key_word_and_the_list_are_where_the_guest_looks() -> None:
    lab = lab_2m()
    assert lab.word_at(FOLIO_LIST) == lab.config.huge_pages[0].folio + 8
    lab.optimize(lab.config.huge_pages[0])
    assert lab.word_at(KEY) == 1
