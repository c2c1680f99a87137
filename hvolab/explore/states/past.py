"""What is remembered of a run, as a number: equal pasts leave equal windows, endings, requests, owners.

Memory as it is now does not say what a TLB may still hold, which store ended a version, or since when a frame
is free. All of that follows from the stores to page tables, the invalidations, the interrupt requests and
what the kernel has announced, in their order; of each step what it did of that is appended. What a CPU with
one entry a page used last is beside it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Iterator
from hashlib import blake2b

from emu.addr import PAGE_SHIFT, PhysAddr
from emu.cpu.ops import Refers
from emu.events import Annotated, Invalidated, IpiSent, MachineEvent
from emu.kept import Bookmark, Kept
from emu.machine import Machine
from emu.memory import Overwritten
from emu.paging.lazy import LazySpec, LazyTlb, Memory
from emu.paging.tlb import NewRoot
from hvolab.explore.footprint.tables import Tables

_LONG = 64  # bytes: of longer stores a digest is kept
_NOTHING = 0


class Values:
    """Values by number: equal ones have one, those beyond the first `most` none."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._numbers: dict[Hashable, int] = {}

    def number(self, value: Hashable) -> int | None:
        found = self._numbers.get(value)
        if found is None and len(self._numbers) < self._most:
            found = self._numbers[value] = len(self._numbers) + 1
        return found

    def forget(self) -> None:
        self._numbers.clear()


class Past(Kept):
    """Of one run, from time zero on; told of each step when it has ended. `of_event` names announcements."""

    kept = ("_chain", "_moment", "_ranks", "_stored_at")

    def __init__(self, machine: Machine, tables: Tables, values: Values) -> None:
        self._machine = machine
        self._journal = machine.memory.journal
        self._tables = tables
        self._values = values
        self._chain: int | None = _NOTHING  # None: there is no room for what has been
        self._moment = self._journal.now
        self._ranks: dict[int, int] = {}  # event of an announcement -> how many came before
        self._stored_at: list[int] = []  # the moments of the stores to page tables
        self._latest: list[Hashable] = []
        spec = machine.cpus[0].mmu.model.tlb
        self._one_entry_a_page = isinstance(spec, LazySpec) and spec.memory is Memory.SINGLE
        machine.trace.listen(self.observe)

    def back(self, mark: Bookmark) -> None:
        super().back(mark)
        self._latest.clear()

    def observe(self, number: int, event: MachineEvent) -> None:
        """Something happened in the step under way."""
        match event:
            case Invalidated(cpu=cpu, what=what):
                root = self._machine.cpus[cpu].mmu.root if isinstance(what, NewRoot) else None
                self._append(what, root)
            case IpiSent(vector=vector, targets=targets):
                self._append(vector, targets)
            case Annotated(payload=payload):
                self._ranks[number] = len(self._ranks)
                self._append(payload.numbered(self._ranks) if isinstance(payload, Refers) else payload)
            case _:
                pass  # what it does is seen in memory, or is over with the step

    def _append(self, *what: object) -> None:
        self._latest.append((self._journal.now - self._moment, what))

    def passed(self) -> None:
        """Steps have been made that leave nothing of theirs here."""
        self._moment = self._journal.now

    def ended(self, cpu: int) -> None:
        """The step of that CPU has."""
        stores: list[Hashable] = []
        if self._journal.now != self._moment:
            at = self._journal.now
            for store in self._journal.since(self._moment):
                at -= 1
                if self._tables.is_table(store.pa >> PAGE_SHIFT):
                    stores.append((at - self._moment, store.pa, *self._changed(store)))
                    self._stored_at.append(at)
            self._stored_at.sort()
            self._moment = self._journal.now
        if self._chain is not None and (self._latest or stores):
            self._chain = self._values.number((self._chain, cpu, tuple(self._latest), tuple(stores)))
        self._latest.clear()

    def _changed(self, store: Overwritten) -> Iterator[bytes]:
        now = self._machine.memory.read(PhysAddr(store.pa), len(store.old))
        return (one if len(one) <= _LONG else blake2b(one).digest() for one in (store.old, now))

    def of_event(self, number: int) -> Hashable:
        return self._ranks[number]

    def state(self) -> Hashable | None:
        """Between two steps; None where there was no room to remember."""
        if self._chain is None or not self._one_entry_a_page:
            return self._chain
        return (self._chain, *(frozenset(self._used_last(cpu.mmu.tlb)) for cpu in self._machine.cpus))

    def _used_last(self, tlb: object) -> Iterator[Hashable]:
        assert isinstance(tlb, LazyTlb)
        for (page, size, pcid), entry, time in tlb.used_last():
            pages = range(page >> PAGE_SHIFT, (page + size) >> PAGE_SHIFT)
            if self._tables.is_any_volatile(pages):
                stores = bisect_left(self._stored_at, time.stores)
                yield (page, size, pcid, entry.steps, stores, time.own)
