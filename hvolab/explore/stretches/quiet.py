"""Quiet steps: private ones that are nothing but accesses, of which judges and footprints keep nothing.

What such a step does is known once it has been made, and need not be carried out again (`emu.cpu.repeat`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from emu.addr import PAGE_SHIFT
from emu.cpu.condition import Word
from emu.cpu.cpu import RoutineContext
from emu.cpu.ops import Count, StackRoom, ThisCpu
from emu.cpu.recall import HistoryNode, Recalled
from emu.cpu.repeat import Put, Repeated, StoreEvent, Through
from emu.events import Copied, Filled, Loaded, LoadedBytes, MachineEvent, Stored, TlbFilled
from emu.machine import Machine
from emu.paging.lazy import LazySpec, Memory
from emu.paging.pte import Pte, PteBit
from emu.paging.tlb import TlbEntry
from emu.paging.walk import Access, WalkStep
from hvolab.explore.footprint.conflict import Footprint
from hvolab.explore.footprint.tables import Tables
from hvolab.judge.sight.resource import Kind, Resource, Touched
from hvolab.judge.sight.sight import Sight

_Accessed = Loaded | LoadedBytes | Stored | Copied | Filled
_OF_MEMORY = frozenset({Kind.BULK_READ, Kind.BULK_WRITE})


class StepsSeen:
    """Of one run: listens to what happens in a step."""

    def __init__(self, machine: Machine, sight: Sight, tables: Tables) -> None:
        self._machine = machine
        self._tables = tables
        spec = machine.cpus[0].mmu.model.tlb
        # With one entry a page each use counts.
        self._repeats = isinstance(spec, LazySpec) and spec.memory is not Memory.SINGLE and sight.comparable
        self._events: list[MachineEvent] = []
        self._first = 0  # number of the first event
        self._stores = 0  # in the journal before the step
        machine.trace.listen(self.observe)

    def observe(self, _number: int, event: MachineEvent) -> None:
        self._events.append(event)

    def before(self) -> None:
        """A step is about to be made."""
        self._events.clear()
        self._first = self._machine.trace.next_number
        self._stores = self._machine.memory.journal.now

    def directories(self) -> frozenset[WalkStep]:
        """The entries of directories that the accesses of the step went through, or ended at."""
        return frozenset(
            WalkStep(step.level, step.pa, without_marks(step.entry))
            for event in self._events
            if isinstance(event, _Accessed)
            for entry in _entries(event)
            for step in entry.steps
            if step.level > 1
        )

    def made(self, context: RoutineContext, since: HistoryNode, footprint: Footprint) -> Repeated | None:
        """What the step has done, from where its routine was; None where that is not all there is to it."""
        assert isinstance(context.routine, Recalled)
        if not self._repeats or not _is_quiet(footprint):
            return None
        events = [event for event in self._events if not isinstance(event, TlbFilled)]
        accesses = [event for event in events if isinstance(event, _Accessed)]
        stores = [*self._machine.memory.journal.since(self._stores)][::-1]
        if (
            not accesses
            or len(accesses) != len(events)
            or any(self._tables.is_table(store.pa >> PAGE_SHIFT) for store in stores)
        ):
            return None
        done: list[Through | Put] = []
        for before, event in enumerate(accesses):
            done += _through(before, event)
            if isinstance(event, StoreEvent):
                if not stores:
                    return None
                store = stores.pop(0)
                data = self._machine.memory.read(store.pa, len(store.old))
                done.append(Put(before, store.pa, data, event))
        if stores:
            return None
        asides = [node.awaited for node in context.routine.node.path(since.depth)[:-1]]
        if not all(isinstance(aside, Count | StackRoom | ThisCpu) for aside in asides):
            return None
        counters = tuple((aside.counter, aside.delta) for aside in asides if isinstance(aside, Count))
        stack = sum(aside.size for aside in asides if isinstance(aside, StackRoom))
        return Repeated(1, len(events), tuple(done), counters, stack, context.routine.node)


def _is_quiet(footprint: Footprint) -> bool:
    """Whether nothing was written but memory, and nothing marked but memory and counters."""
    marked = (touched for touched in footprint.marks if not isinstance(touched, Word))
    return all(map(_is_of_memory, footprint.writes)) and all(map(_is_of_memory, marked))


def _is_of_memory(touched: Touched) -> bool:
    return isinstance(touched, int) or (isinstance(touched, Resource) and touched.kind in _OF_MEMORY)


def _through(before: int, event: _Accessed) -> Iterator[Through]:
    match event:
        case Copied(source_va=source_va, source_entry=source, to=to, to_entry=entry):
            yield Through(before, source_va, Access.READ, source.rights, source.dirty)
            yield Through(before, to, Access.WRITE, entry.rights, entry.dirty)
        case Loaded(va=va, entry=entry) | LoadedBytes(va=va, entry=entry):
            yield Through(before, va, Access.READ, entry.rights, entry.dirty)
        case Stored(va=va, entry=entry) | Filled(va=va, entry=entry):
            yield Through(before, va, Access.WRITE, entry.rights, entry.dirty)
        case _:
            assert_never(event)


def _entries(event: _Accessed) -> tuple[TlbEntry, ...]:
    return (event.source_entry, event.to_entry) if isinstance(event, Copied) else (event.entry,)


def without_marks(entry: Pte) -> Pte:
    """What of it others than the walker change."""
    return Pte(entry & ~(PteBit.ACCESSED | PteBit.DIRTY))
