"""The lazy TLB: every version of a translation that the architecture lets a CPU use, chosen at the access.

Nothing is chosen at fill or eviction time. An access may use any version that was current at some moment
since this CPU last invalidated it: exactly what arbitrary speculative fills (R1) and evictions (R3) could
have left behind, at the price of one choice, and only where there is more than one version.

A walk may also start from a remembered directory entry and find nothing: such dead ends are offered beside
the versions. They are walks made now, of which only the directory entries are old.

The versions come out of the journal of memory, so nothing is stored here but the CPU's own history: its
invalidations and the roots it ran on. What this asks of the page tables: entries that can be walked have A
set, writable leaves D (a version without A is offered only by a walk made now; see R2, R7).

Not modelled: capacity and replacement, by nature.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from emu.addr import PAGE_SHIFT, PageSize, Pfn, VirtAddr, page_start
from emu.kept import Kept
from emu.memory import Moment, PhysicalMemory
from emu.paging.dead_end import DeadEnd, dead_ends
from emu.paging.happenings import Happenings, Time
from emu.paging.pte import Pte
from emu.paging.tlb import InvalidateAll, Invalidation, Port, Rule, TlbEntry, Usable, entry_from
from emu.paging.walk import (
    ALL_RIGHTS,
    TOP_LEVEL,
    Control,
    Rights,
    Walk,
    WalkStep,
    entry_address,
    reserved_bits,
)

Slot: TypeAlias = tuple[VirtAddr, PageSize, int]  # page, size, PCID

_LEAF = {1: PageSize.KIB4, 2: PageSize.MIB2, 3: PageSize.GIB1}


class Memory(Enum):
    """Which older versions there are: whether using one forgets those before it."""

    SET = "any version of the window, also an older one after a newer one"
    SINGLE = "one entry per page and size: the version used last, or one current since that use"
    NONE = "none: a store to a page table is seen by every TLB at once, as by every cache"


class DirectoryCache(Enum):
    """Whether a walk may start from a remembered directory entry."""

    NONE = "every walk reads all levels at one moment"
    PER_LEVEL = "a directory entry counts until the next invalidation after it was overwritten"


@dataclass(frozen=True, slots=True)
class LazySpec:
    memory: Memory = Memory.SET
    directories: DirectoryCache = DirectoryCache.PER_LEVEL


@dataclass(frozen=True, slots=True)
class _Period:
    """The CPU ran on this root with this PCID from that time on."""

    root: Pfn
    pcid: int
    since: Time


@dataclass(frozen=True, slots=True)
class Version:
    """One translation that a walk would have given from `first` to `last`, both included.

    `ended` is False while every word on the path still holds what the version was read from.
    """

    walk: Walk
    first: Time
    last: Time
    ended: bool


@dataclass(frozen=True, slots=True)
class _Known:
    """What was found for a page: true until a store to a table read for it, or a happening of our own."""

    entry: TlbEntry
    older: tuple[TlbEntry, ...]
    dead_ends: tuple[DeadEnd, ...]
    tables: tuple[tuple[int, int], ...]  # (frame, number of stores it had seen)
    own: int


class LazyTlb(Kept):
    """A `Tlb` that offers, beside a walk made now, every older version still in the window."""

    kept = ("_periods", "_last_used", "_touched", "_known")
    parts = ("_happened",)

    def __init__(
        self,
        spec: LazySpec,
        memory: PhysicalMemory,
        control: Control,
        physical_bits: int,
        rules: frozenset[Rule],
    ) -> None:
        self._spec = spec
        self._memory = memory
        self._control = control
        self._physical_bits = physical_bits
        self._rules = rules
        self._happened = Happenings(memory.journal, rules)
        self.clear()

    def clear(self) -> None:
        self._periods: list[_Period] = []
        self._happened.clear()
        self._last_used: dict[Slot, tuple[TlbEntry, Time]] = {}
        self._touched: dict[tuple[VirtAddr, int], None] = {}
        self._known: dict[tuple[VirtAddr, int], _Known] = {}
        self._read: set[int] = set()  # the tables that the versions of a page were read from

    def run_on(self, root: Pfn, pcid: int, event: int) -> None:
        """CR3 was loaded, by that event. Without a period nothing can be walked."""
        self._happened.loaded_root(event)
        self._periods.append(_Period(root, pcid, self._happened.now()))

    def usable(self, va: VirtAddr, pcid: int, port: Port) -> Usable:
        del port  # one window serves both sides
        key = (page_start(va), pcid)
        known = self._known.get(key)
        if known is not None and self._still_true(known):
            return Usable(known.older, walk=True, fresh=known.entry, dead_ends=known.dead_ends)
        self._touched[key] = None
        if self._has_no_older(key):
            return Usable((), walk=True, dead_ends=self._ends_kept(va))
        return Usable(tuple(self._older(va, pcid)), walk=True, dead_ends=self._dead_ends(va))

    def only(self, page: VirtAddr, pcid: int) -> TlbEntry | None:
        """What a walk has found, if there is nothing older to be used and to walk again changes nothing."""
        known = self._known.get((page, pcid))
        if known is None or known.older or known.dead_ends or not self._still_true(known):
            return None
        return known.entry

    def used(self, entry: TlbEntry, va: VirtAddr, port: Port) -> None:
        del va, port
        self._last_used[_slot(entry)] = (entry, self._happened.now())

    def used_last(self) -> Iterator[tuple[Slot, TlbEntry, Time]]:
        """The version that each page and size was used through last, and when."""
        for slot, (entry, time) in self._last_used.items():
            yield slot, entry, time

    def fill(self, entry: TlbEntry, va: VirtAddr, port: Port) -> None:
        self.used(entry, va, port)
        self._read = {step.pa >> PAGE_SHIFT for step in entry.steps}
        emptied = self._happened.emptied(page_start(va), entry.pcid)
        if self._unchanged(entry.steps, emptied, emptied.stores):
            older: tuple[TlbEntry, ...] = ()
            ends = self._ends_kept(va)
        else:
            older = tuple(self._older(va, entry.pcid))
            ends = self._dead_ends(va)
        counts = tuple((table, self._memory.journal.stores_to(table)) for table in self._read)
        known = _Known(entry, older, ends, counts, self._happened.count)
        self._known[page_start(va), entry.pcid] = known

    def invalidate(self, what: Invalidation, event: int) -> None:
        self._happened.invalidated(what, event)
        if isinstance(what, InvalidateAll) and Rule.ALL_REMOVES_GLOBALS in self._rules:
            self._happened.everything_removed()
            self._last_used.clear()
            del self._periods[:-1]

    def expect(self, event: int) -> int:
        return self._happened.expected(event)

    def carry_out(self, what: Invalidation, place: int, event: int) -> None:
        self._happened.carried_out(what, place, event)

    def evict(self, entry: TlbEntry) -> None:
        """Nothing is held, so nothing is lost: an access need not choose an old version."""

    def entries(self) -> tuple[TlbEntry, ...]:
        """The older versions that the pages accessed so far could still be read through."""
        changed = (key for key in self._touched if not self._has_no_older(key))
        held = {entry for va, pcid in changed for entry in self._older(va, pcid)}
        return tuple(sorted(held, key=lambda entry: (entry.page, entry.size, entry.pcid, entry.moment)))

    def _still_true(self, known: _Known) -> bool:
        if known.own != self._happened.count or self._spec.memory is Memory.SINGLE:
            return False
        stores_to = self._memory.journal.stores_to
        for table, count in known.tables:  # noqa: SIM110 (a generator costs more than the loop)
            if stores_to(table) != count:
                return False
        return True

    def _has_no_older(self, key: tuple[VirtAddr, int]) -> bool:
        """Whether it is plain that there is but one version: nothing has changed since a walk."""
        known = self._known.get(key)
        if known is None:
            return False
        emptied = self._happened.emptied(*key)
        return self._unchanged(known.entry.steps, emptied, min(emptied.stores, known.entry.moment))

    def _unchanged(self, steps: tuple[WalkStep, ...], emptied: Time, moment: Moment) -> bool:
        """Whether no word on a path has changed since that moment: nothing on it is older than the window."""
        if len(self._periods) > 1 and self._periods[-1].since > emptied:
            return False
        next_change = self._memory.journal.next_change
        for step in steps:  # noqa: SIM110
            if next_change(step.pa, 8, moment) is not None:
                return False
        return True

    def _older(self, va: VirtAddr, pcid: int) -> Iterator[TlbEntry]:
        if self._spec.memory is Memory.NONE:
            return
        now = self._happened.now()
        emptied = self._happened.emptied(page_start(va), pcid)
        oldest = bisect_right(self._periods, emptied, key=lambda period: period.since) - 1
        for index in range(max(oldest, 0), len(self._periods)):
            period = self._periods[index]
            current = index + 1 == len(self._periods)
            until = now if current else _just_before(self._periods[index + 1].since)
            first = max(period.since, emptied)
            for version in self._versions(va, TOP_LEVEL, period.root, ALL_RIGHTS, (), first, until):
                if current and not version.ended:
                    continue  # that is what a walk made now gives
                entry = self._entry(version, period.pcid)
                if entry is not None and self._may_use(entry, version, pcid):
                    yield entry

    def _entry(self, version: Version, pcid: int) -> TlbEntry | None:
        if any(not step.entry.accessed for step in version.walk.steps):
            return None
        if version.walk.pa >= self._memory.size:
            return None
        first, last = version.first, version.last
        after = self._happened.last_event(first)
        return entry_from(version.walk, pcid, self._control, -1, last.stores, first.stores, after)

    def _may_use(self, entry: TlbEntry, version: Version, pcid: int) -> bool:
        if not entry.is_global and entry.pcid != pcid:
            return False
        if not self._happened.survives(entry, version.last):
            return False
        if self._spec.memory is Memory.SINGLE:
            last = self._last_used.get(_slot(entry))
            return last is None or version.last >= last[1] or entry.steps == last[0].steps
        return True

    def _versions(
        self,
        va: VirtAddr,
        level: int,
        table: Pfn,
        rights: Rights,
        steps: tuple[WalkStep, ...],
        first: Time,
        last: Time,
    ) -> Iterator[Version]:
        """The versions read from this table between two times, in their order."""
        pa = entry_address(table, va, level)
        if pa + 8 > self._memory.size:
            return
        self._read.add(table)
        start: Time | None = first
        while start is not None and start <= last:
            entry = Pte(self._memory.word_at(pa, start.stores))
            change = self._memory.journal.next_change(pa, 8, start.stores)
            end = last if change is None else min(self._happened.before_store(change), last)
            if entry.present and not reserved_bits(entry, level, self._physical_bits, self._control):
                path = (*steps, WalkStep(level, pa, entry))
                below = rights.and_entry(entry)
                if level == 1 or (level < TOP_LEVEL and entry.page_size):
                    yield Version(Walk(va, path, _LEAF[level], below), start, end, ended=change is not None)
                else:
                    until = last if change is None else min(self._directory_end(change, va), last)
                    for found in self._versions(va, level - 1, entry.pfn, below, path, start, until):
                        ended = found.ended or change is not None
                        yield Version(found.walk, found.first, found.last, ended)
            start = None if change is None else Time(change + 1, self._happened.before_store(change).own)

    def _dead_ends(self, va: VirtAddr) -> tuple[DeadEnd, ...]:
        if self._spec.directories is DirectoryCache.NONE:
            return ()
        root, since = self._periods[-1].root, self._happened.dropped_at()
        return dead_ends(self._memory, root, va, since, self._control, self._physical_bits)

    def _ends_kept(self, va: VirtAddr) -> tuple[DeadEnd, ...]:
        """Those of a page that has one version only: an INVLPG that emptied it has dropped them too."""
        return () if Rule.INVLPG_EMPTIES_PSC in self._rules else self._dead_ends(va)

    def _directory_end(self, change: Moment, va: VirtAddr) -> Time:
        """Until when a directory entry that store `change` overwrote could still start a walk."""
        end = self._happened.before_store(change)
        if self._spec.directories is DirectoryCache.NONE:
            return end
        return self._happened.directory_end(end, va)


def _slot(entry: TlbEntry) -> Slot:
    """What a TLB with one entry per page and size tells entries apart by."""
    return (entry.page, entry.size, entry.pcid)


def _just_before(since: Time) -> Time:
    """The end of the period that the load of CR3 before `since` ended."""
    return Time(since.stores, since.own - 1)
