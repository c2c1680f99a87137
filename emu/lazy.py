"""The lazy TLB: every version of a translation that the architecture lets a CPU use, chosen at the access.

Nothing is chosen at fill or eviction time. An access may use any version that was current at some moment
since this CPU last invalidated it: exactly what arbitrary speculative fills (R1) and evictions (R3) could
have left behind, at the price of one choice, and only where there is more than one version.

The versions come out of the journal of memory, so nothing is stored here but the CPU's own history: its
invalidations and the roots it ran on. What this asks of the page tables: entries that can be walked have A
set, writable leaves D (a version without A is offered only by a walk made now; see R2, R7).

Not modelled: capacity and replacement, by nature.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from emu.addr import PAGE_SHIFT, PageSize, Pfn, VirtAddr, page_start
from emu.memory import Moment, PhysicalMemory
from emu.psc import drops
from emu.pte import Pte
from emu.tlb import InvalidateAll, Invalidation, Port, Rule, TlbEntry, Usable, entry_from, removes
from emu.walk import ALL_RIGHTS, TOP_LEVEL, Control, Rights, Walk, WalkStep, entry_address, reserved_bits

_LEAF = {1: PageSize.KIB4, 2: PageSize.MIB2, 3: PageSize.GIB1}


class Memory(Enum):
    """Whether using a version forgets the older ones."""

    SET = "any version of the window, also an older one after a newer one"
    SINGLE = "one entry per page and size: the version used last, or one current since that use"


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
    """The CPU ran on this root with this PCID from that moment on."""

    root: Pfn
    pcid: int
    since: Moment


@dataclass(frozen=True, slots=True)
class Version:
    """One translation that a walk would have given at moments `first` to `last`, both included.

    `ended` is False while every word on the path still holds what the version was read from.
    """

    walk: Walk
    first: Moment
    last: Moment
    ended: bool


@dataclass(frozen=True, slots=True)
class _Known:
    """What was found for a page; true until a table on its path is stored to, or something is invalidated."""

    entry: TlbEntry
    older: tuple[TlbEntry, ...]
    tables: tuple[tuple[int, int], ...]  # (frame, number of stores it had seen)
    invalidations: int


class LazyTlb:
    """A `Tlb` that offers, beside a walk made now, every older version still in the window."""

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
        self.clear()

    def clear(self) -> None:
        self._periods: list[_Period] = []
        self._invalidations: list[tuple[Moment, Invalidation]] = []
        self._directory_drops: list[Moment] = []
        self._last_used: dict[tuple[VirtAddr, PageSize], tuple[TlbEntry, Moment]] = {}
        self._touched: dict[tuple[VirtAddr, int], None] = {}
        self._known: dict[tuple[VirtAddr, int], _Known] = {}

    def run_on(self, root: Pfn, pcid: int) -> None:
        """CR3 was loaded. Without a period nothing can be walked."""
        self._periods.append(_Period(root, pcid, self._memory.journal.now))
        self._known.clear()

    def usable(self, va: VirtAddr, pcid: int, port: Port) -> Usable:
        del port  # one window serves both sides
        key = (page_start(va), pcid)
        known = self._known.get(key)
        if known is not None and self._still_true(known):
            return Usable(known.older, walk=True, fresh=known.entry)
        self._touched[key] = None
        return Usable(tuple(self._older(va, pcid)), walk=True)

    def used(self, entry: TlbEntry, va: VirtAddr, port: Port) -> None:
        del va, port
        self._last_used[entry.page, entry.size] = (entry, self._memory.journal.now)

    def fill(self, entry: TlbEntry, va: VirtAddr, port: Port) -> None:
        self.used(entry, va, port)
        tables = {step.pa >> PAGE_SHIFT for step in entry.steps}
        self._known[page_start(va), entry.pcid] = _Known(
            entry,
            tuple(self._older(va, entry.pcid)),
            tuple((table, self._memory.journal.stores_to(table)) for table in tables),
            len(self._invalidations),
        )

    def invalidate(self, what: Invalidation) -> None:
        now = self._memory.journal.now
        if isinstance(what, InvalidateAll) and Rule.ALL_REMOVES_GLOBALS in self._rules:
            self._invalidations.clear()  # nothing older can matter
            self._last_used.clear()
            self._known.clear()
        self._invalidations.append((now, what))
        if drops(what, self._rules):
            self._directory_drops.append(now)

    def evict(self, entry: TlbEntry) -> None:
        """Nothing is held, so nothing is lost: an access need not choose an old version."""

    def entries(self) -> tuple[TlbEntry, ...]:
        """The older versions that the pages accessed so far could still be read through."""
        held = {entry for va, pcid in self._touched for entry in self._older(va, pcid)}
        return tuple(sorted(held, key=lambda entry: (entry.page, entry.size, entry.pcid, entry.moment)))

    def _still_true(self, known: _Known) -> bool:
        journal = self._memory.journal
        return (
            self._spec.memory is Memory.SET
            and known.invalidations == len(self._invalidations)
            and all(journal.stores_to(table) == count for table, count in known.tables)
        )

    def _older(self, va: VirtAddr, pcid: int) -> Iterator[TlbEntry]:
        floor = self._window_floor()
        now = self._memory.journal.now
        for index, period in enumerate(self._periods):
            until = self._periods[index + 1].since if index + 1 < len(self._periods) else now
            current = index + 1 == len(self._periods)
            if until < floor:
                continue
            for version in self._versions(
                va, TOP_LEVEL, period.root, ALL_RIGHTS, (), max(period.since, floor), until
            ):
                if current and not version.ended:
                    continue  # that is what a walk made now gives
                entry = self._entry(version, period.pcid)
                if entry is not None and self._may_use(entry, version, pcid):
                    yield entry

    def _window_floor(self) -> Moment:
        """No version that ended before this moment can be left."""
        if self._invalidations and isinstance(self._invalidations[0][1], InvalidateAll):
            return self._invalidations[0][0]
        return 0

    def _entry(self, version: Version, pcid: int) -> TlbEntry | None:
        if any(not step.entry.accessed for step in version.walk.steps):
            return None
        return entry_from(version.walk, pcid, self._control, -1, version.last)

    def _may_use(self, entry: TlbEntry, version: Version, pcid: int) -> bool:
        if not entry.is_global and entry.pcid != pcid:
            return False
        if any(
            moment > version.last and removes(what, entry, self._rules)
            for moment, what in self._invalidations
        ):
            return False
        if self._spec.memory is Memory.SINGLE:
            last = self._last_used.get((entry.page, entry.size))
            return last is None or version.last >= last[1] or entry.steps == last[0].steps
        return True

    def _versions(
        self,
        va: VirtAddr,
        level: int,
        table: Pfn,
        rights: Rights,
        steps: tuple[WalkStep, ...],
        first: Moment,
        last: Moment,
    ) -> Iterator[Version]:
        """The versions read from this table between two moments, in the order of time."""
        pa = entry_address(table, va, level)
        if pa + 8 > self._memory.size:
            return
        now = self._memory.journal.now
        moment: Moment | None = first
        while moment is not None and moment <= last:
            entry = Pte(self._memory.word_at(pa, moment))
            change = self._memory.journal.next_change(pa, 8, moment)
            end = now if change is None else change
            if entry.present and not reserved_bits(entry, level, self._physical_bits, self._control):
                step = (*steps, WalkStep(level, pa, entry))
                below = rights.and_entry(entry)
                if level == 1 or (level < TOP_LEVEL and entry.page_size):
                    found = Walk(va, step, _LEAF[level], below)
                    yield Version(found, moment, min(end, last), ended=change is not None)
                else:
                    for version in self._versions(
                        va,
                        level - 1,
                        entry.pfn,
                        below,
                        step,
                        moment,
                        min(self._directory_end(end, change), last),
                    ):
                        yield Version(
                            version.walk, version.first, version.last, version.ended or change is not None
                        )
            moment = None if change is None else change + 1

    def _directory_end(self, end: Moment, change: Moment | None) -> Moment:
        """Until when a directory entry that was overwritten at `end` could still start a walk."""
        if change is None or self._spec.directories is DirectoryCache.NONE:
            return end
        return next((drop for drop in self._directory_drops if drop > end), self._memory.journal.now)
