"""The footprint of a step, recorded as it happens: what it touched, what enabled it, what judges asked in it.

A recorder listens to a machine and watches Sight. `before` and `after` each step it is told that one begins
and has ended. What the machine does it takes from events; what verdicts depend on it is told by Sight. See
docs/architecture.md.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import assert_never

from emu.addr import PAGE_SHIFT, PhysAddr, VirtAddr
from emu.choice import Choice, TakeInterrupt
from emu.cpu.condition import Word
from emu.cpu.cpu import Cpu, RoutineContext
from emu.cpu.ops import AddWords, Await
from emu.events import (
    Annotated,
    BroadcastCompleted,
    BroadcastSent,
    BusErrorSeen,
    Copied,
    Executed,
    Faulted,
    Filled,
    Finished,
    Invalidated,
    IpiAcknowledged,
    IpiSent,
    IpiTaken,
    Loaded,
    LoadedBytes,
    MachineEvent,
    Marked,
    MultiHitSeen,
    Started,
    Stored,
    TickNeeded,
    TickTaken,
    TlbFilled,
    Trapped,
)
from emu.kept import Kept
from emu.machine import Machine
from emu.paging.dead_end import DeadEnd
from emu.paging.lazy import LazySpec, Memory
from emu.paging.tlb import (
    ALL_RULES,
    TlbEntry,
)
from hvolab.explore.footprint.conflict import Footprint
from hvolab.explore.footprint.invalidations import ALL_TRANSLATIONS, DIRECTORIES, Invalidations
from hvolab.explore.footprint.process import in_handler
from hvolab.explore.footprint.sections import Sections
from hvolab.explore.footprint.tables import PAGES_OF_ALL, Tables
from hvolab.explore.footprint.waits import Waits
from hvolab.judge.sight.resource import Kind, Resource, Touched, kind_of

_WORD_BY_WORD = 64  # bytes: one struct page, which has nothing to do with the others in its frame


class Recorder(Kept):
    """Footprints of one run on one machine. `tables` outlives the run.

    `without` leaves kinds of resources out, which is unsound: for tests that show each of them matters.
    """

    kept = ("_spun", "_senders")
    parts = ("_invalidations", "_sections")

    def __init__(self, machine: Machine, tables: Tables, without: frozenset[Kind] = frozenset()) -> None:
        self._without = without
        self.replaying = False  # the step's footprint is known: only what later steps need is noted
        self._machine = machine
        self._tables = tables
        model = machine.cpus[0].mmu.model
        self._invalidations = Invalidations(len(machine.cpus), model, tables)
        self._windows = self._invalidations.windows
        self._sections = Sections(machine)
        self._waits = Waits(len(machine.cpus), self._sections)
        # Where versions that lead to one place are told apart all the same.
        self._all_count = model.rules != ALL_RULES or (
            isinstance(model.tlb, LazySpec) and model.tlb.memory is Memory.SINGLE
        )
        self.held: dict[Touched, int] = {}  # what others may wait for and the step changed, before it
        self._reads: set[Touched] = set()
        self._writes: set[Touched] = set()
        self._marks: set[Touched] = set()
        self._interrupts_enabled: list[bool] = []
        self._pending: frozenset[int] = frozenset()
        self._counters: dict[tuple[str, int], int] = {}
        self._spun: dict[int, frozenset[int]] = {}
        self._senders: dict[int, int] = {}
        machine.trace.listen(self.observe)

    def state(self) -> Hashable:
        """What the footprints of further steps depend on, beside machine and past."""
        return (frozenset(self._spun.items()), self._sections.state())

    # -- around a step -------------------------------------------------------------------------------

    def before(self, choice: Choice) -> None:
        """That choice is about to be performed."""
        cpu = self._machine.cpus[choice.cpu]
        if self.replaying:
            if not isinstance(choice, TakeInterrupt):
                self._spun.pop(cpu.number, None)
            return
        self._reads, self._writes, self._marks = set(), set(), set()
        self.held = {}
        self._interrupts_enabled = [cpu.interrupts_enabled for cpu in self._machine.cpus]
        self._pending = frozenset(self._machine.apic.interrupted)
        self._counters = dict(self._machine.counters)  # a plain one: compared at once
        if isinstance(choice, TakeInterrupt):
            self._reads.add(Resource(Kind.INTERRUPT_FLAG, cpu.number))
            return
        self._reads.add(Resource(Kind.CONTEXT, cpu.number))
        if in_handler(cpu):
            self._writes.add(Resource(Kind.CONTEXT, cpu.number))
        self._reads |= self._spun.pop(cpu.number, frozenset())
        if isinstance(cpu.top, RoutineContext):
            match cpu.top.pending:
                case Await(condition=condition, then=changes):
                    self._reads |= self._waits.touches(condition, cpu.number)
                    self._adds(changes)
                case AddWords(changes=changes):
                    self._adds(changes)
                case _:
                    pass  # what other ops touch, their events say

    def _adds(self, changes: tuple[tuple[Word, int], ...]) -> None:
        for word, _ in changes:
            self._writes.add(word)
            self.held.setdefault(word, self._machine.words[word])

    def after(self, choice: Choice) -> Footprint:
        """It has been performed: its footprint."""
        cpu = self._machine.cpus[choice.cpu]
        for other, was in zip(self._machine.cpus, self._interrupts_enabled, strict=True):
            if other.interrupts_enabled != was:
                self._writes.add(Resource(Kind.INTERRUPT_FLAG, other.number))
                self.held[Resource(Kind.INTERRUPT_FLAG, other.number)] = int(was)
        if isinstance(choice, TakeInterrupt):
            if in_handler(cpu):
                self._writes.add(Resource(Kind.CONTEXT, cpu.number))
        elif cpu.spinning:
            self._spun[cpu.number] = cpu.spinning
            self._reads |= cpu.spinning
        counters = dict(self._machine.counters)
        if self._counters != counters:
            # A sum: whoever adds first.
            for key, value in counters.items():
                if value != self._counters.get(key, 0):
                    self._marks.add(Word(key[0]))
        passed = self._sections.passed(self._writes)
        self._writes |= passed
        self.held.update(dict.fromkeys(passed, 0))
        self._reads |= self._wait_begun(cpu)
        return self._footprint(self._reads, self._writes, self._marks)

    def _wait_begun(self, cpu: Cpu) -> set[Touched]:
        """Of an EachOnce, what holds when the wait begins counts."""
        begun = self._sections.begins(cpu)
        if begun is None or begun:
            return begun or set()
        assert isinstance(cpu.top, RoutineContext)
        assert isinstance(cpu.top.pending, Await)
        return self._waits.touches(cpu.top.pending.condition, cpu.number)

    def replayed(self, choice: Choice, known: Footprint) -> None:
        """It has been performed again, and this was its footprint the first time."""
        cpu = self._machine.cpus[choice.cpu]
        if cpu.spinning and not isinstance(choice, TakeInterrupt):
            self._spun[cpu.number] = cpu.spinning
        self._sections.passed(known.writes)
        self._sections.begins(cpu)
        self._windows.changed(_remapped(known.writes))

    def waits_for(self, choice: Choice) -> dict[Touched, int | None]:
        """What the choice, about to be performed, may have to wait for: its value, where that is known."""
        if isinstance(choice, TakeInterrupt):
            return {Resource(Kind.INTERRUPT_FLAG, choice.cpu): 1, Resource(Kind.IPI, choice.cpu): 1}
        cpu = self._machine.cpus[choice.cpu]
        if isinstance(cpu.top, RoutineContext):
            if isinstance(cpu.top.pending, Await):
                return self._waits.parts(cpu.top.pending.condition, choice.cpu)
            return {}
        return dict.fromkeys(self._spun.get(choice.cpu, ()))

    def offered(self, found: Iterable[TlbEntry | DeadEnd]) -> None:
        """These could be used: what leads to them matters even if no run uses them."""
        for one in found:
            self._tables.learn(one)

    def blocked(self, choice: Choice) -> Footprint:
        """What a choice that cannot be made now waits for and would do."""
        cpu = self._machine.cpus[choice.cpu]
        if isinstance(choice, TakeInterrupt):
            flag, pending = Resource(Kind.INTERRUPT_FLAG, cpu.number), Resource(Kind.IPI, cpu.number)
            return self._footprint({flag}, {pending}, set())
        reads, writes = {Resource(Kind.CONTEXT, cpu.number), *self._spun.get(cpu.number, ())}, set[Touched]()
        if isinstance(cpu.top, RoutineContext) and isinstance(cpu.top.pending, Await):
            reads |= self._waits.touches(cpu.top.pending.condition, cpu.number)
            writes |= {word for word, _ in cpu.top.pending.then}
        return self._footprint(reads, writes, set())

    def _footprint(self, reads: set[Touched], writes: set[Touched], marks: set[Touched]) -> Footprint:
        if self._without:
            reads, writes, marks = (
                {touched for touched in some if kind_of(touched) not in self._without}
                for some in (reads, writes, marks)
            )
        return Footprint(frozenset(reads), frozenset(writes), frozenset(marks))

    # -- what judges ask -----------------------------------------------------------------------------

    def reads(self, touched: Touched) -> None:
        self._reads.add(touched)

    def writes(self, touched: Touched) -> None:
        self._writes.add(touched)

    def marks(self, touched: Touched) -> None:
        self._marks.add(touched)

    def reads_translation(self, page: int) -> None:
        if self.replaying or not self._tables.is_volatile(page):
            return
        self._reads.add(Resource(Kind.TRANSLATION, page))
        if self._tables.directories_change:
            self._reads.add(DIRECTORIES)
        if self._tables.everything_changes:
            self._reads.add(ALL_TRANSLATIONS)

    def lost(self, frame: int) -> None:
        """It counts for what leads to the frame from now on, and for what is read through it as a table."""
        if self.replaying:
            return
        self._reads.add(Resource(Kind.MAPPED, frame))
        pages = self._tables.through(frame)
        self._writes.update(Resource(Kind.TRANSLATION, page) for page in pages)
        self._windows.changed(pages)

    def flush_begun(self, start: int, end: int) -> None:
        """It counts for what was changed before: the changes, and the ends of large pages."""
        if self.replaying:
            return
        pages, large = self._invalidations.in_range(start, end)
        self._reads.update(Resource(Kind.SPLIT, page) for page in large)
        self._reads.update(Resource(Kind.TRANSLATION, page) for page in pages)
        self._marks.update(Resource(Kind.OWED, page) for page in pages)

    def flush_completed(self, start: int, end: int) -> None:
        if not self.replaying:
            self._marks.update(
                Resource(Kind.OWED, page) for page in self._invalidations.in_range(start, end)[0]
            )

    # -- events --------------------------------------------------------------------------------------

    def observe(self, number: int, event: MachineEvent) -> None:
        """Add what one event says the machine did."""
        if self.replaying and not isinstance(
            event, IpiSent | Invalidated | BroadcastSent | BroadcastCompleted
        ):
            return
        match event:
            case Loaded():
                self._read_words(event.pa, event.size)
                self._used(event.cpu, event.va, event.entry)
            case Stored():
                self._read_words(event.pa, event.size)
                self._write_words(event.pa, event.size)
                if event.size == 8 and not event.pa & 7:
                    self.held.setdefault(event.pa >> 3, event.old)
                self._used(event.cpu, event.va, event.entry)
                self._translations(event.pa, event.size, event.old.to_bytes(event.size, "little"))
            case Marked():
                self._write_words(event.pa, 8)
                self._translations(event.pa, 8, event.old.to_bytes(8, "little"))
            case Copied():
                self._reads.add(Resource(Kind.BULK_READ, event.source_pa >> PAGE_SHIFT))
                self._used(event.cpu, event.source_va, event.source_entry)
                self._bulk_write(event.to_pa, event.length)
                self._used(event.cpu, event.to, event.to_entry)
            case LoadedBytes():
                self._bulk_read(event.pa, event.length)
                self._used(event.cpu, event.va, event.entry)
            case Filled():
                self._bulk_write(event.pa, event.length)
                self._used(event.cpu, event.va, event.entry)
            case Invalidated():
                self._reads.update(self._invalidations.reads(event.what))
                self._writes.update(self._invalidations.carried_out(event.cpu, event.what))
            case BroadcastSent():
                self._windows.expect(number)
                self._reads.update(self._invalidations.reads(event.what))
            case BroadcastCompleted():
                for what in event.what:
                    self._reads.update(self._invalidations.reads(what))
                self._writes.update(self._invalidations.completed(event))
            case Faulted():
                if event.entry is not None:
                    self._used(event.cpu, event.fault.va, event.entry)
                else:
                    self._walked(event.cpu, event.fault.va >> PAGE_SHIFT)
            case IpiSent():
                self._senders[event.request] = event.cpu
                for target in event.targets:
                    self._writes.add(Resource(Kind.IPI, target))
                    self.held[Resource(Kind.IPI, target)] = int(target in self._pending)
            case TickNeeded():
                for target in event.cpus:
                    self._writes.add(Resource(Kind.IPI, target))
                    self.held[Resource(Kind.IPI, target)] = int(target in self._pending)
            case IpiTaken() | TickTaken():
                self._writes.add(Resource(Kind.IPI, event.cpu))
            case IpiAcknowledged():
                acknowledged = Resource(Kind.ACKNOWLEDGED, self._senders[event.request], event.cpu)
                self._writes.add(acknowledged)
                self.held[acknowledged] = 0
            case (
                Executed()
                | Annotated()
                | TlbFilled()
                | Started()
                | Finished()
                | MultiHitSeen()
                | BusErrorSeen()
                | Trapped()
            ):
                pass  # moves nothing; what the kernel announces is asked for through Sight
            case _:
                assert_never(event)

    def _read_words(self, pa: PhysAddr, size: int) -> None:
        self._reads.update(range(pa >> 3, (pa + size + 7) >> 3))
        self._marks.add(Resource(Kind.BULK_WRITE, pa >> PAGE_SHIFT))

    def _write_words(self, pa: PhysAddr, size: int) -> None:
        self._writes.update(range(pa >> 3, (pa + size + 7) >> 3))
        self._marks.add(Resource(Kind.BULK_READ, pa >> PAGE_SHIFT))

    def _bulk_read(self, pa: PhysAddr, length: int) -> None:
        if length <= _WORD_BY_WORD:
            self._read_words(pa, length)
        else:
            self._reads.add(Resource(Kind.BULK_READ, pa >> PAGE_SHIFT))

    def _bulk_write(self, pa: PhysAddr, length: int) -> None:
        frame = pa >> PAGE_SHIFT
        if length <= _WORD_BY_WORD:
            self._write_words(pa, length)
        else:
            self._writes |= {Resource(Kind.BULK_READ, frame), Resource(Kind.BULK_WRITE, frame)}
        journal = self._machine.memory.journal
        self._translations(pa, length, next(journal.since(journal.now - 1)).old)

    def _translations(self, pa: PhysAddr, length: int, before: bytes) -> None:
        """What a store changes for those who translate through it."""
        effect = self._tables.effect(pa, length, before)
        self._writes.update(Resource(Kind.TRANSLATION, page) for page in effect.pages)
        if effect.directories:
            self._writes.add(DIRECTORIES)
        if effect.everything:
            self._writes.add(ALL_TRANSLATIONS)
        self._writes.update(Resource(Kind.SPLIT, page) for page in effect.splits)
        self._windows.changed(effect.pages)
        self._windows.changed(~page for page in effect.splits)
        if effect.everything:
            self._windows.changed((PAGES_OF_ALL,))
        # Who fills a table before or after it is published gives it one version more or less.
        self._reads.update(Resource(Kind.BULK_READ, frame) for frame in effect.tables)

    def _walked(self, cpu: int, page: int) -> None:
        if not self._tables.is_volatile(page):
            return
        self._reads.add(Resource(Kind.TRANSLATION, page))
        self._reads.add(Resource(Kind.TLB, cpu, page))
        large = page & ~511
        if large in self._tables.split and (self._all_count or self._windows.is_open(cpu, page)):
            # Otherwise the large version, if it may be used, is as good as the small one.
            self._reads.add(Resource(Kind.TLB, cpu, ~large))
        if self._tables.directories_change:
            self._reads |= {DIRECTORIES, Resource(Kind.TLB, cpu, PAGES_OF_ALL)}
        if self._tables.everything_changes:
            self._reads.add(ALL_TRANSLATIONS)

    def _used(self, cpu: int, va: VirtAddr, entry: TlbEntry) -> None:
        self._tables.learn(entry)
        self._walked(cpu, va >> PAGE_SHIFT)


def _remapped(writes: Iterable[Touched]) -> set[int]:
    """The pages that a step gave another translation; ~page for a large page it split."""
    found: set[int] = set()
    for touched in writes:
        if isinstance(touched, Resource):
            if touched.kind is Kind.TRANSLATION:
                found.add(touched.a)
            elif touched.kind is Kind.SPLIT:
                found.add(~touched.a)
    return found
