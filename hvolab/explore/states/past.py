"""What is remembered of a run, as a number: equal pasts leave equal windows, endings, requests, owners.

Memory as it is now does not say what a TLB may still hold, which store ended a version, or since when a frame
is free. All of that follows from the stores to page tables, the invalidations, the interrupt requests and
what the kernel has announced, as far as footprints say that their order matters; of each step what it did of
that is put in. Where a CPU has one entry a page, all of their order matters, and what it used last is beside
them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Iterator
from hashlib import blake2b
from typing import TypeAlias, assert_never

from emu.addr import PAGE_SHIFT, PhysAddr
from emu.cpu.ops import Refers
from emu.events import Annotated, BroadcastCompleted, BroadcastSent, Invalidated, IpiSent, MachineEvent
from emu.kept import Bookmark, Kept
from emu.machine import Machine
from emu.memory import Overwritten
from emu.paging.lazy import LazySpec, LazyTlb, Memory
from emu.paging.tlb import NewRoot
from hvolab.explore.footprint.conflict import NOTHING, Footprint
from hvolab.explore.footprint.tables import Tables
from hvolab.explore.states.partial_order import PartialOrder
from hvolab.explore.states.values import Values
from hvolab.judge.sight.resource import Kind, Resource

# What other events do is seen in memory, or is over with the step.
_InPast: TypeAlias = Invalidated | BroadcastSent | BroadcastCompleted | IpiSent | Annotated
_LONG = 64  # bytes: of longer stores a digest is kept
# What all of them write where every order counts: any one resource will do.
_ALL_IN_ORDER = NOTHING._replace(writes=frozenset({Resource(Kind.DIRECTORIES)}))


class Past(Kept):
    """Of one run, from time zero on; told of each step when it has ended. Names announcements and requests.

    The n-th thing that a process announces or sends has that for its name, in whatever order others did.
    """

    kept = ("_moment", "_named", "_events", "_requests", "_stored_at")
    parts = ("_order",)

    def __init__(self, machine: Machine, tables: Tables, values: Values) -> None:
        self._machine = machine
        self._journal = machine.memory.journal
        self._tables = tables
        self._order = PartialOrder(values)
        self._moment = self._journal.now
        self._named: dict[int, int] = {}  # by process
        self._events: dict[int, int] = {}  # event of an announcement -> its name
        self._requests: dict[int, int] = {}
        self._stored_at: list[int] = []  # the moments of the stores to page tables
        self._latest: list[tuple[int, int, _InPast]] = []
        spec = machine.cpus[0].mmu.model.tlb
        self._one_entry_a_page = isinstance(spec, LazySpec) and spec.memory is Memory.SINGLE
        machine.trace.listen(self.observe)

    def back(self, mark: Bookmark) -> None:
        super().back(mark)
        self._latest.clear()

    def observe(self, number: int, event: MachineEvent) -> None:
        """Something happened in the step under way."""
        if isinstance(event, _InPast):
            self._latest.append((self._journal.now - self._moment, number, event))

    def passed(self) -> None:
        """Steps have been made that leave nothing of theirs here."""
        self._moment = self._journal.now

    def ended(self, process: int, footprint: Footprint) -> None:
        """A step of that process has."""
        stores = tuple(self._stores()) if self._journal.now != self._moment else ()
        if self._latest or stores:
            did = (
                stores,
                tuple((at, self._told(process, number, what)) for at, number, what in self._latest),
            )
            self._order.add(process, did, _ALL_IN_ORDER if self._one_entry_a_page else footprint)
            self._latest.clear()

    def _stores(self) -> Iterator[Hashable]:
        """Those of the step to page tables, the last one first."""
        at = self._journal.now
        for store in self._journal.since(self._moment):
            at -= 1
            if self._tables.is_table(store.pa >> PAGE_SHIFT):
                yield (at - self._moment, store.pa, *self._changed(store))
                self._stored_at.append(at)
        self._stored_at.sort()
        self._moment = self._journal.now

    def _changed(self, store: Overwritten) -> Iterator[bytes]:
        now = self._machine.memory.read(PhysAddr(store.pa), len(store.old))
        return (one if len(one) <= _LONG else blake2b(one).digest() for one in (store.old, now))

    def _told(self, process: int, number: int, event: _InPast) -> Hashable:
        """An event of the step, without what is numbered in the order of the run."""
        match event:
            case Invalidated(cpu=cpu, what=what):
                return (what, self._machine.cpus[cpu].mmu.root if isinstance(what, NewRoot) else None)
            case BroadcastSent(what=what):
                self._events[number] = self._name(process)
                return what
            case BroadcastCompleted(begun=begun):
                return tuple(self._events[one] for one in begun)
            case IpiSent(request=request, vector=vector, targets=targets):
                self._requests[request] = self._name(process)
                return (vector, targets)
            case Annotated(payload=payload):
                self._events[number] = self._name(process)
                return payload.numbered(self._events) if isinstance(payload, Refers) else payload
            case _:
                assert_never(event)

    def _name(self, process: int) -> int:
        nth = self._named[process] = self._named.get(process, 0) + 1
        return nth * 2 * len(self._machine.cpus) + process

    def of_event(self, number: int) -> Hashable:
        return self._events[number]

    def of_request(self, number: int) -> Hashable:
        return self._requests[number]

    def state(self) -> Hashable | None:
        """Between two steps; None where there was no room to remember."""
        order = self._order.state()
        if order is None or not self._one_entry_a_page:
            return order
        return (order, *(frozenset(self._used_last(cpu.mmu.tlb)) for cpu in self._machine.cpus))

    def _used_last(self, tlb: object) -> Iterator[Hashable]:
        assert isinstance(tlb, LazyTlb)
        for (page, size, pcid), entry, time in tlb.used_last():
            pages = range(page >> PAGE_SHIFT, (page + size) >> PAGE_SHIFT)
            if self._tables.is_any_volatile(pages):
                stores = bisect_left(self._stored_at, time.stores)
                yield (page, size, pcid, entry.steps, stores, time.own)
