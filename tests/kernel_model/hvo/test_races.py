"""HVO with others about: forced orders, many orders, and CPUs that keep stale translations."""

from __future__ import annotations

from random import Random

import pytest
from hvo_lab import (
    FOLIO_LIST,
    KEY,
    NON_HVO_FOLIOS,
    PAGE,
    STRUCT,
    Lab,
    OldestVersion,
    lab_2m,
    pages_of,
    region_of,
    regions_of,
    shared,
    split,
)

from emu.addr import VirtAddr
from emu.choice import Choice, Step, TakeInterrupt
from emu.events import Copied, Filled, MachineEvent, Stored
from emu.paging.models import LAZY, SKYLAKE, CpuModel
from firmware.catalog import program
from kernel_model.core.events import FlushBegun, KernelBug, KernelWarning, Oops, PageAllocated, PageFreed
from kernel_model.core.kconfig import KernelConfig
from kernel_model.flush.broken import NEVER
from kernel_model.layout import PerCpu
from kernel_model.mm.page import lru


def optimizing(lab: Lab, number: int, cpu: int) -> None:
    huge = lab.config.huge_pages[number]
    hvo = lab.kernel.hvo
    lab.start(lambda: hvo.hugetlb_vmemmap_optimize_folio(huge.hstate, huge.folio), cpu, f"optimize {number}")


# --- d8d55f5616cf and 3ce2c24cb68f: the race between two splits of one PMD ---------------------------------


def filled_a_table(lab: Lab) -> object:
    """Whether the event is the filling of a page table with entries (not the zeroing before it)."""

    def seen(event: MachineEvent) -> bool:
        return (
            isinstance(event, Filled)
            and event.length == PAGE
            and lab.contents(event.pa // PAGE)[:8] != bytes(8)
        )

    return seen


def test_the_page_table_of_a_lost_split_race_is_not_taken_for_the_vmemmap_block() -> None:
    """CPU 0 has built its table when CPU 1 splits the same PMD and remaps its own folio in it."""
    lab = lab_2m(0x4000, 0x4200)
    first, second = lab.config.huge_pages
    optimizing(lab, 0, cpu=0)
    lab.run_until(0, filled_a_table(lab))  # type: ignore[arg-type]
    optimizing(lab, 1, cpu=1)
    lab.run(pick=lambda enabled: _prefer(enabled, 1))
    expected = split(lab.initial, regions_of(first))
    expected = shared(shared(expected, first, lab.frame(first.folio)), second, lab.frame(second.folio))
    assert lab.vmemmap() == expected
    # The loser's table is freed, the winner's is in use.
    tables = [event.pfn for event in lab.heard(PageAllocated) if event.purpose == "page table"]
    assert len(tables) == 2
    assert list(lab.tables().values()) == [tables[1]]
    assert lab.kernel.pages.is_free(tables[0])
    # The loser does not flush: it has changed nothing.
    assert [flush.end - flush.start for flush in lab.heard(FlushBegun)] == [2 << 20, 32 << 10, 32 << 10]
    lab.check_conservation()


def _prefer(enabled: list[Choice], cpu: int) -> Choice:
    return next((choice for choice in enabled if choice.cpu == cpu), enabled[0])


def test_the_head_of_a_split_is_sampled_with_the_lock_held() -> None:
    # The PMD is read twice under the lock: when the block is looked up and before the table is installed.
    lab = lab_2m(0x4000, 0x4200)
    optimizing(lab, 0, cpu=0)
    optimizing(lab, 1, cpu=1)
    pmd = lab.pmd_address(lab.config.huge_pages[0].folio)
    locked: list[bool] = []

    def listen(_number: int, event: MachineEvent) -> None:
        if isinstance(event, Stored) and event.pa == pmd:
            locked.append(lab.word_named("init_mm.page_table_lock") != 0)

    lab.machine.trace.listen(listen)
    lab.run()
    assert locked == [True]


def test_two_splits_in_one_batch_pass_and_one_single_call() -> None:
    lab = lab_2m(0x4000, 0x4200)
    hvo = lab.kernel.hvo
    second = lab.config.huge_pages[1]
    lab.start(lambda: hvo.hugetlb_vmemmap_split_folio(second.hstate, second.folio), 0)
    lab.run_until(0, filled_a_table(lab))  # type: ignore[arg-type]
    optimizing(lab, 0, cpu=1)
    lab.run(pick=lambda enabled: _prefer(enabled, 1))
    assert lab.state().optimized == (True, False)
    lab.check_conservation()


# --- any order --------------------------------------------------------------------------------------------


class Priorities:
    """A random order in which a CPU may fall far behind: random priorities, changed now and then."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._priority: dict[Choice, float] = {}

    def __call__(self, enabled: list[Choice]) -> Choice:
        if self._random.random() < 0.02:
            self._priority.clear()
        for choice in enabled:
            self._priority.setdefault(choice, self._random.random())
        return max(enabled, key=lambda choice: self._priority[choice])


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("model", [SKYLAKE, LAZY], ids=lambda model: model.name)
def test_two_cpus_optimize_and_restore_neighbours_in_any_order(seed: int, model: CpuModel) -> None:
    lab = lab_2m(0x4000, 0x4200, model=model)
    hvo = lab.kernel.hvo
    for cpu, huge in enumerate(lab.config.huge_pages):

        async def work(huge=huge) -> None:
            await hvo.hugetlb_vmemmap_optimize_folio(huge.hstate, huge.folio)
            await hvo.hugetlb_vmemmap_restore_folio(huge.hstate, huge.folio)
            await hvo.hugetlb_vmemmap_optimize_folio(huge.hstate, huge.folio)

        lab.start(work, cpu)
    lab.run(pick=Priorities(seed), answerer=OldestVersion())
    assert lab.state().optimized == (True, True)
    assert lab.heard(KernelBug, KernelWarning, Oops) == []
    lab.check_conservation()


@pytest.mark.parametrize("seed", range(12))
def test_a_pfn_walker_never_takes_a_reference_to_a_frozen_folio(seed: int) -> None:
    """get_page_unless_zero() of a tail and of the head, again and again, while the folio is optimized."""
    lab = lab_2m(cpus=3)
    huge = lab.config.huge_pages[0]
    walker = program("get_page_unless_zero")
    for cpu, struct in ((1, 64), (2, 0)):
        for _ in range(6):
            page, nesting = huge.folio + struct * STRUCT, PerCpu(cpu).rcu_nesting
            lab.start_guest(walker, cpu, rdi=page, rsi=KEY, rdx=nesting)
    optimizing(lab, 0, cpu=0)
    lab.run(pick=Priorities(seed))
    assert lab.heard(Oops, KernelBug) == []
    assert lab.optimized(huge)
    assert lab.struct_page(huge.pfn).refcount == 0
    assert [lab.word_at(PerCpu(cpu).rcu_nesting) for cpu in range(3)] == [0, 0, 0]
    lab.check_conservation()


# --- stale translations -----------------------------------------------------------------------------------


@pytest.mark.parametrize("function", ["single", "list"])
def test_the_optimized_flag_is_not_lost_with_the_old_head_page(function: str) -> None:
    """Set after the copy, through a translation not flushed yet, it would be on the page that is freed."""
    lab = lab_2m(model=LAZY)
    huge = lab.config.huge_pages[0]
    hvo = lab.kernel.hvo
    if function == "single":
        lab.call(
            lambda: hvo.hugetlb_vmemmap_optimize_folio(huge.hstate, huge.folio), answerer=OldestVersion()
        )
    else:
        lab.optimize_list(answerer=OldestVersion())
    assert lab.optimized(huge)
    copied = next(n for n, e in enumerate(lab.events) if isinstance(e, Copied) and e.source_va == huge.folio)
    flagged = next(n for n, e in enumerate(lab.events) if isinstance(e, Stored) and e.va == huge.folio + 40)
    assert flagged < copied


def test_lists_survive_cpus_that_keep_stale_translations_as_long_as_they_may() -> None:
    lab = lab_2m(0x4000, 0x4200, 0x4400, model=LAZY)
    folios = [huge.folio for huge in lab.config.huge_pages]

    async def move_back() -> None:
        for folio in lab.linked(NON_HVO_FOLIOS):
            await lab.kernel.lists.move(lru(VirtAddr(folio)), VirtAddr(FOLIO_LIST))

    for cpu in (0, 1, 0):
        lab.optimize_list(cpu=cpu, answerer=OldestVersion())
        lab.check_conservation()
        assert lab.restore_list(cpu=1 - cpu, answerer=OldestVersion()) == 3
        lab.check_conservation()
        lab.call(move_back, answerer=OldestVersion())
        assert lab.linked(FOLIO_LIST) == folios


def test_a_flush_tlb_all_that_does_nothing_corrupts_the_list_as_it_did_on_s390() -> None:
    """3d03b8c0f398: optimize a list, move the folio to the pool's list, restore it on another CPU."""
    lab = lab_2m(policy=NEVER, kernel=KernelConfig(page_poisoning=False))
    huge = lab.config.huge_pages[0]
    lab.optimize_list(cpu=0)
    # CPU 0 still writes to the frame that the head page was on, which is free by now.
    old_head = lab.initial[region_of(huge.folio)].pfn + (huge.folio - region_of(huge.folio)) // PAGE
    assert lab.kernel.pages.is_free(old_head)
    pool, lists = VirtAddr(NON_HVO_FOLIOS), lab.kernel.lists
    lab.mark()
    lab.call(lambda: lists.move(lru(huge.folio), pool), cpu=0)
    written = {
        event.pa // PAGE for event in lab.seen(Stored) if event.va in (huge.folio + 8, huge.folio + 16)
    }
    assert written == {old_head}
    # CPU 1 finds the links as they were when the page was copied.
    call = lab.start(
        lambda: lab.kernel.hvo.hugetlb_vmemmap_restore_folios(huge.hstate, pool, VirtAddr(FOLIO_LIST)), cpu=1
    )
    lab.run()
    assert not call.returned
    (bug,) = lab.heard(KernelBug)
    assert bug.where == "__list_del_entry_valid"
    assert bug.message == (
        f"list_del corruption. prev->next should be {huge.folio + 8:016x}, but was {FOLIO_LIST:016x}. "
        f"(prev={FOLIO_LIST:016x})"
    )


def test_with_poisoning_a_missed_flush_shows_at_the_first_read() -> None:
    lab = lab_2m(policy=NEVER)
    huge = lab.config.huge_pages[0]
    lab.optimize_list(cpu=0)
    call = lab.start(lambda: lab.kernel.lists.move(lru(huge.folio), VirtAddr(NON_HVO_FOLIOS)), cpu=0)
    lab.run()
    assert not call.returned
    assert [oops.va for oops in lab.heard(Oops)] == [0xAAAA_AAAA_AAAA_AAAA]


def test_with_the_flush_the_same_story_ends_well() -> None:
    lab = lab_2m()
    huge = lab.config.huge_pages[0]
    pool, lists, hvo = VirtAddr(NON_HVO_FOLIOS), lab.kernel.lists, lab.kernel.hvo
    lab.optimize_list(cpu=0)
    lab.call(lambda: lists.move(lru(huge.folio), pool), cpu=0)
    restored = lab.call(
        lambda: hvo.hugetlb_vmemmap_restore_folios(huge.hstate, pool, VirtAddr(FOLIO_LIST)), cpu=1
    )
    assert restored == 1
    assert lab.linked(FOLIO_LIST) == [huge.folio]
    lab.check_conservation()


# --- waiting ----------------------------------------------------------------------------------------------


def test_no_page_is_freed_while_a_cpu_has_not_taken_its_flush() -> None:
    lab = lab_2m()
    huge = lab.config.huge_pages[0]
    optimizing(lab, 0, cpu=0)
    # Let CPU 1 take what comes until the last flush, and that one not.
    while len(lab.heard(FlushBegun)) < 2:
        enabled = lab.machine.enabled()
        lab.perform(Step(0) if Step(0) in enabled else TakeInterrupt(1))
    while Step(0) in lab.machine.enabled():
        lab.perform(Step(0))
    assert lab.heard(PageFreed) == []
    assert len(set(lab.frames_of(huge))) == 1, "everything is remapped"
    assert lab.machine.enabled() == [TakeInterrupt(1)]
    lab.run()
    assert len(lab.heard(PageFreed)) == 8


def test_pages_are_listed_in_the_frames_own_struct_pages() -> None:
    # While they wait to be freed, the old pages hang on a list head on the stack of the CPU at work.
    lab = lab_2m()
    huge = lab.config.huge_pages[0]
    old = lab.frames_of(huge)
    optimizing(lab, 0, cpu=0)
    while len(lab.heard(FlushBegun)) < 2:
        enabled = lab.machine.enabled()
        lab.perform(Step(0) if Step(0) in enabled else TakeInterrupt(1))
    on_list = lab.linked(PerCpu(0).stack)
    assert on_list == [lab.page(pfn) for pfn in old[::-1]]
    lab.run()
    assert len(pages_of(huge)) == 8
