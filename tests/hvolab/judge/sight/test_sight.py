"""Sight's answers, and what each is said to depend on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from judge_lab import ELSEWHERE, FRAMES, HEAD, HUGE, TAIL_1, WORD
from noting_watcher import Noting

from emu.addr import Pfn, PhysAddr, VirtAddr
from emu.cpu.condition import Word
from emu.events import Annotated, Invalidated, RoutineSite, Source, Stored
from emu.paging.models import LAZY, SKYLAKE, CpuModel
from emu.paging.tlb import Invlpg, TlbEntry, entry_from
from emu.paging.walk import Access, Control, Privilege, Walk
from hvolab.judge.sight.frames import Loss
from hvolab.judge.sight.mappings import AddressRange
from hvolab.judge.sight.resource import Kind, Resource
from hvolab.judge.sight.sight import VMEMMAP, Sight
from kernel_model.boot import BootConfig, System, boot
from kernel_model.core.events import (
    FlushBegun,
    FlushCompleted,
    KernelEvent,
    OperationBegun,
    OperationReturned,
    PageAllocated,
    PageFreed,
)
from kernel_model.core.gfp import Gfp
from kernel_model.layout import direct_map
from kernel_model.mm.pgtable import PAGE_KERNEL, PAGE_TABLE, mk_pte, page_table

PAGE_OF_WORD = WORD >> 12
NOWHERE = VirtAddr(0x1000)
SITE = RoutineSite(("f",))


class Eyes:
    """Sight of a machine at time zero, with events made up."""

    def __init__(self, model: CpuModel = SKYLAKE) -> None:
        self.system: System = boot(BootConfig(16 << 20, 2, (HUGE,), model=model))
        self.machine = self.system.machine
        self.sight = Sight(self.machine, (HUGE,))
        self.watcher = Noting()
        self.sight.watched_by(self.watcher)
        self._number = 100

    def announce(self, payload: KernelEvent) -> int:
        return self._observe(Annotated(0, SITE, payload))

    def invalidate(self, cpu: int) -> int:
        return self._observe(Invalidated(cpu, Invlpg(TAIL_1)))

    def store(self, pa: PhysAddr, value: int) -> Stored:
        old = self.machine.memory.read_word(pa)
        self.machine.memory.write_word(pa, value)
        event = Stored(0, SITE, WORD, pa, 8, old, value, None, Source.WALK)  # type: ignore[arg-type]
        self._observe(event)
        return event

    def walk(self) -> Walk:
        found = self.machine.cpus[0].mmu.peek(WORD)
        assert isinstance(found, Walk)
        return found

    def entry(self) -> TlbEntry:
        now = self.machine.memory.journal.now
        self._number += 1
        return entry_from(self.walk(), 0, Control(), self._number, now, now, self._number)

    def _observe(self, event: object) -> int:
        self._number += 1
        self.sight.observe(self._number, event)  # type: ignore[arg-type]
        self.watcher.taken()
        return self._number


@pytest.fixture
def eyes() -> Eyes:
    return Eyes()


# --- memory and page tables -----------------------------------------------------------------------------


def looked_at(pa: int) -> list[tuple[str, object]]:
    """A word, which a bulk store to its frame would change."""
    return [("reads", pa >> 3), ("marks", Resource(Kind.BULK_WRITE, pa >> 12))]


ASKED: dict[str, tuple[Callable[[Sight], object], list[tuple[str, object]]]] = {
    "walk": (lambda sight: sight.walk(WORD), [("reads translation", PAGE_OF_WORD)]),
    "a walk that finds nothing": (lambda sight: sight.walk(NOWHERE), [("reads translation", 1)]),
    "word": (
        lambda sight: sight.word(WORD),
        [("reads translation", PAGE_OF_WORD), *looked_at((FRAMES + 1) * 4096 + 8)],
    ),
    "physical word": (lambda sight: sight.physical_word(PhysAddr(0x5008)), looked_at(0x5008)),
    "bytes over two words": (
        lambda sight: sight.read(PhysAddr(0x500C), 8),
        [("reads", 0xA01), ("reads", 0xA02), ("marks", Resource(Kind.BULK_WRITE, 5))],
    ),
    "last store": (lambda sight: sight.last_store(PhysAddr(0x5008)), looked_at(0x5008)),
    "frame": (lambda sight: sight.frame(Pfn(5)), [("reads", Resource(Kind.BULK_READ, 5))]),
    "counter": (lambda sight: sight.count("nr_memmap_pages"), [("reads", Word("nr_memmap_pages"))]),
    "who has a frame": (lambda sight: sight.free_now(5), [("reads", Resource(Kind.OWNER, 5))]),
    "requests": (lambda sight: sight.requests(WORD), [("reads", Resource(Kind.OWED, PAGE_OF_WORD))]),
    "holders": (
        lambda sight: sight.holders(HUGE.folio),
        [("reads", Resource(Kind.HELD, HUGE.folio // 64))],
    ),
    "for display": (lambda sight: (sight.displayed(WORD), [*sight.held_by_tlbs(WORD)]), []),
}


@pytest.mark.parametrize("name", ASKED)
def test_whoever_watches_is_told_what_an_answer_depends_on(name: str, eyes: Eyes) -> None:
    ask, told = ASKED[name]
    ask(eyes.sight)
    assert eyes.watcher.taken() == told


def test_what_is_mapped_nowhere_has_no_word(eyes: Eyes) -> None:
    assert (eyes.sight.walk(NOWHERE), eyes.sight.word(NOWHERE), eyes.sight.displayed(NOWHERE)) == (None,) * 3


def test_memory_is_answered_as_it_is_now(eyes: Eyes) -> None:
    pa = eyes.walk().pa
    assert eyes.sight.word(WORD) == HUGE.folio + 1, "compound_head of a tail"
    event = eyes.store(pa, 0x1122)
    assert eyes.sight.word(WORD) == eyes.sight.physical_word(pa) == 0x1122
    assert eyes.sight.read(PhysAddr(pa + 1), 2) == b"\x11\x00"
    assert eyes.sight.frame(Pfn(pa >> 12))[8:10] == b"\x22\x11"
    assert eyes.sight.last_store(pa) == (101, event)
    assert eyes.sight.memory_bytes == 16 << 20


def test_only_the_ranges_named_are_judged() -> None:
    machine = boot(BootConfig(16 << 20, 1, (HUGE,))).machine
    vmemmap, other = Sight(machine), Sight(machine, ranges=(AddressRange(0x1000, 0x2000), AddressRange(8, 9)))
    asked = (8, 9, 0xFFF, 0x1000, 0x1FFF, 0x2000, HEAD, direct_map(0))
    assert [vmemmap.is_judged(va) for va in asked] == [False] * 6 + [True, False]
    assert [other.is_judged(va) for va in asked] == [True, False, False, True, True, False, False, False]


def test_what_is_looked_at_in_a_block_is_noted_in_words_with_those_of_the_path(eyes: Eyes) -> None:
    with eyes.sight.looking() as words:
        eyes.sight.word(WORD)
    found = eyes.walk()
    assert words == {step.pa >> 3 for step in found.steps} | {found.pa >> 3}
    eyes.sight.word(HEAD)
    assert len(words) == len(found.steps) + 1, "nothing after the block"


# --- a translation --------------------------------------------------------------------------------------


def freed(pfn: int) -> PageFreed:
    return PageFreed(Pfn(pfn), 0, 1)


def test_a_frame_is_lost_to_a_translation_that_was_there_before_it_was_freed(eyes: Eyes) -> None:
    entry = eyes.entry()
    assert eyes.sight.lost(TAIL_1, entry) is None
    number = eyes.announce(freed(FRAMES + 1))
    lost = eyes.sight.lost(TAIL_1, entry)
    assert lost is not None
    assert (lost.how, lost.event) == (Loss.FREED, number)
    assert eyes.watcher.taken() == [("reads", Resource(Kind.LOST, FRAMES + 1))]


def test_a_frame_freed_before_it_was_mapped_is_not_lost_to_that_translation(eyes: Eyes) -> None:
    eyes.announce(freed(FRAMES + 1))
    leaf = eyes.walk().steps[-1]
    eyes.store(leaf.pa, 0)
    eyes.store(leaf.pa, leaf.entry)
    assert eyes.sight.lost(TAIL_1, eyes.entry()) is None


def test_a_frame_is_lost_to_an_address_whose_rights_change_afterwards(eyes: Eyes) -> None:
    number = eyes.announce(freed(FRAMES + 1))
    leaf = eyes.walk().steps[-1]
    eyes.store(leaf.pa, leaf.entry & ~2)
    lost = eyes.sight.lost(TAIL_1, eyes.entry())
    assert lost is not None
    assert lost.event == number


def test_a_frame_is_lost_to_an_address_whose_large_page_is_split_afterwards(eyes: Eyes) -> None:
    before = eyes.walk()
    frame = before.pa >> 12
    number = eyes.announce(freed(frame))
    first = before.leaf.leaf_pfn(before.size)
    table = PhysAddr(ELSEWHERE << 12)
    eyes.machine.memory.load_image(table, page_table(first, PAGE_KERNEL))
    eyes.store(before.steps[-1].pa, mk_pte(Pfn(ELSEWHERE), PAGE_TABLE))
    assert len(eyes.walk().steps) == 1 + len(before.steps)
    lost = eyes.sight.lost(TAIL_1, eyes.entry())
    assert lost is not None
    assert lost.event == number


def test_a_frame_is_free_until_somebody_has_it_again(eyes: Eyes) -> None:
    eyes.announce(freed(5))
    assert eyes.sight.free_now(5) is not None
    eyes.announce(PageAllocated(Pfn(5), 0, 1, "test", Gfp(0), 0))
    assert eyes.sight.free_now(5) is None


def test_a_table_is_lost_to_who_can_only_have_read_it_after_it_was_freed(eyes: Eyes) -> None:
    """Freed while a directory entry leads to it: who had cached the translation reads no table any more."""
    table = with_a_table_of_its_own(eyes)
    before = eyes.entry()
    eyes.store(PhysAddr(0x5000), 1)
    eyes.announce(freed(table))
    assert eyes.sight.lost_table(before) is None
    after = eyes.entry()
    found = eyes.sight.lost_table(after)
    assert found is not None
    assert (found[0], found[1].how) == (table, Loss.FREED)
    offered = replace(after, filled_at=-1, since=before.moment, after=-1)
    assert eyes.sight.lost_table(offered) is None, "it may have been read before"
    assert eyes.sight.lost_table(replace(offered, after=after.filled_at)) == found, "not before that flush"


def test_a_translation_cached_just_before_its_table_is_freed_did_not_read_it_afterwards(eyes: Eyes) -> None:
    table = with_a_table_of_its_own(eyes)
    before = eyes.entry()
    assert eyes.announce(freed(table)) > before.filled_at
    assert eyes.sight.lost_table(before) is None


def with_a_table_of_its_own(eyes: Eyes) -> Pfn:
    """The 2 MiB around the word are mapped by a page table from now on; its frame."""
    table = Pfn(ELSEWHERE)
    entries = mk_pte(Pfn(FRAMES), PAGE_TABLE).to_bytes(8, "little") * 512
    eyes.machine.memory.write(PhysAddr(table << 12), entries)
    eyes.store(eyes.walk().steps[-1].pa, mk_pte(table, PAGE_TABLE))
    return table


def test_a_hit_must_have_been_removed_by_an_invalidation_and_a_walk_never(eyes: Eyes) -> None:
    entry = eyes.entry()
    number = eyes.invalidate(1)
    assert eyes.sight.removed(1, entry, Source.HIT) == eyes.sight.last_removal(1, entry, number + 1) == number
    assert eyes.sight.removed(1, entry, Source.WALK) is None
    assert eyes.sight.removed(0, entry, Source.HIT) is None


# --- flushes and operations -----------------------------------------------------------------------------


def test_a_flush_covers_what_a_store_before_it_has_ended(eyes: Eyes) -> None:
    entry, leaf = eyes.entry(), eyes.walk().steps[-1]
    what = FlushBegun("flush_tlb_all", 0, 1 << 64, frozenset({0, 1}))
    early = eyes.announce(what)
    eyes.store(leaf.pa, 0)
    late = eyes.announce(what)
    eyes.announce(FlushCompleted(early))
    ending = eyes.sight.ending_of(WORD, entry)
    assert [one.begun for one in eyes.sight.requests(WORD)] == [early, late]
    assert [one.begun for one in eyes.sight.covering(WORD, ending)] == [late]
    assert eyes.sight.covering(WORD, None) == []
    assert eyes.sight.ended(entry)


def test_an_operation_holds_its_folios_until_it_returns(eyes: Eyes) -> None:
    assert not eyes.sight.is_at_rest(), "nothing has been done yet"
    begun = eyes.announce(OperationBegun("optimize", (HUGE.folio,)))
    eyes.store(eyes.walk().steps[-1].pa, 0)
    assert [one.begun for one in eyes.sight.holders(HUGE.folio)] == [begun]
    assert eyes.sight.holders(HEAD + 64) == []
    assert not eyes.sight.is_at_rest()
    eyes.announce(OperationReturned("optimize", begun, 0, (HUGE.folio,)))
    assert eyes.sight.holders(HUGE.folio) == []
    assert eyes.sight.is_at_rest()
    operation = eyes.sight.operation(begun)
    assert (operation.function, operation.returned) == ("optimize", begun + 2)
    assert eyes.watcher.taken()[-1] == ("reads", Resource(Kind.OPERATION, 0, 0))
    assert PAGE_OF_WORD in eyes.sight.changed_by(begun)


# --- what a CPU may use ---------------------------------------------------------------------------------


def test_a_cpu_with_a_geometry_may_use_what_it_holds_of_judged_pages(eyes: Eyes) -> None:
    for va in (WORD, direct_map(0x5000)):
        eyes.machine.cpus[1].mmu.translate(va, Access.READ, Privilege.SUPERVISOR)
    assert [*eyes.sight.may_use(0)] == []
    used = [(va, entry.frame_of(va)) for va, entry in eyes.sight.may_use(1)]
    assert (TAIL_1, FRAMES + 1) in used
    assert {eyes.sight.is_judged(va) for va, _ in used} == {True}
    assert [cpu for cpu, _ in eyes.sight.held_by_tlbs(WORD)] == [1]


def test_a_lazy_cpu_may_use_every_version_of_a_page_that_ever_had_another() -> None:
    eyes = Eyes(LAZY)
    assert [*eyes.sight.may_use(1)] == []
    eyes.store(eyes.walk().steps[-1].pa, 0)
    used = {(va, entry.frame_of(va)) for va, entry in eyes.sight.may_use(1)}
    assert (TAIL_1, FRAMES + 1) in used
    eyes.machine.cpus[1].mmu.invalidate(Invlpg(TAIL_1))
    assert (TAIL_1, FRAMES + 1) not in {(va, entry.frame_of(va)) for va, entry in eyes.sight.may_use(1)}


@pytest.mark.parametrize("config", [BootConfig(16 << 20, 2, (HUGE,)), BootConfig(128 << 20, 2, (HUGE,))])
def test_the_walks_of_what_is_judged_go_through_each_table_there_is(config: BootConfig) -> None:
    system = boot(config)
    every = set()
    for start in range(VMEMMAP.start, VMEMMAP.start + (1 << 30), 2 << 20):
        found = system.machine.cpus[0].mmu.peek(VirtAddr(start))
        if isinstance(found, Walk):
            every |= {(step.level, step.pa >> 12) for step in found.steps}
    walks = list(Sight(system.machine).judged_walks())
    assert every
    assert {(step.level, step.pa >> 12) for walk in walks for step in walk.steps} == every
    assert len(walks) < 8
