"""What a monitor remembers of a run: stores to page tables, flushes, frames freed, operations.

Each class folds events and answers one kind of question. They look at memory and its journal, and change
nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from emu.addr import PAGE_BYTES, PAGE_SHIFT, PhysAddr, VirtAddr, page_start
from emu.events import Invalidated, MachineEvent, Stored
from emu.memory import Moment, PhysicalMemory
from emu.paging.pte import Pte, PteBit
from emu.paging.tlb import Invalidation, Rule, TlbEntry, removes
from kernel_model.core.events import (
    FlushBegun,
    FlushCompleted,
    OperationBegun,
    OperationReturned,
    PageFreed,
)

# A and D make no new version of a translation, nor do the bits that are software's.
_SOFTWARE = int(PteBit.SOFT_9 | PteBit.SOFT_10 | PteBit.SOFT_11) | (0x7F << 52)
NO_VERSION = int(PteBit.ACCESSED | PteBit.DIRTY) | _SOFTWARE


@dataclass(frozen=True, slots=True)
class Ending:
    """The store that ended a version: its place in the journal, and, where known, its event.

    `operation` is the event in which the kernel operation began that made it.
    """

    moment: Moment
    event: int | None
    store: Stored | None
    operation: int | None
    level: int
    before: Pte
    after: Pte


class Stores:
    """Which store ended a translation."""

    def __init__(self, memory: PhysicalMemory) -> None:
        self._memory = memory
        self._events: dict[Moment, tuple[int, Stored, int | None]] = {}
        self._last: dict[int, tuple[int, Stored]] = {}
        self._born_stale: set[int] = set()  # by the event that filled them
        # The moments after which nothing has been stored to a word, or in bulk to a frame.
        self._word_touched: dict[int, Moment] = {}
        self._frame_touched: dict[int, Moment] = {}

    def observe(self, number: int, event: Stored, operation: int | None) -> None:
        """`event` was the last thing to change memory."""
        now = self._memory.journal.now
        self._events[now - 1] = (number, event, operation)
        self._last[event.pa] = (number, event)
        for word in range(event.pa & ~7, event.pa + event.size, 8):
            self._word_touched[word] = now

    def bulk(self, pa: PhysAddr) -> None:
        """A copy or fill was the last thing to change memory, somewhere in the frame of `pa`."""
        self._frame_touched[pa >> PAGE_SHIFT] = self._memory.journal.now

    def _untouched(self, entry: TlbEntry) -> bool:
        """Whether no word behind the entry was stored to since it was cached: the usual case, and quick."""
        since = entry.moment
        word, frame = self._word_touched, self._frame_touched
        for step in entry.steps:
            if word.get(step.pa, 0) > since or frame.get(step.pa >> PAGE_SHIFT, 0) > since:
                return False
        return True

    def last_to(self, pa: int) -> tuple[int, Stored] | None:
        """The latest store to exactly that physical address, with its event."""
        return self._last.get(pa)

    def filled(self, entry: TlbEntry) -> None:
        """A walk found this. Started from a remembered directory entry it may be stale from the first."""
        if any((step.entry ^ self._memory.read_word(step.pa)) & ~NO_VERSION for step in entry.steps):
            self._born_stale.add(entry.filled_at)

    def ending_of(self, entry: TlbEntry) -> Ending | None:
        """The store that ended the version: the first that changed a version-relevant bit behind it."""
        born_stale = entry.filled_at in self._born_stale
        if self._untouched(entry) and not born_stale:
            return None
        endings = [
            ending
            for step in entry.steps
            if (ending := self._first_change(step.level, step.pa, step.entry, entry.moment)) is not None
        ]
        if born_stale:
            endings += [
                ending
                for step in entry.steps
                if (ending := self._last_departure(step.level, step.pa, step.entry, entry.moment)) is not None
            ]
        return min(endings, key=lambda ending: ending.moment, default=None)

    def installed_at(self, entry: TlbEntry) -> Moment:
        """Since when the translation had been in the page table when it was cached. A and D do not count."""
        return max(self._last_version_store(step.pa, entry.moment) for step in entry.steps)

    def _last_version_store(self, pa: PhysAddr, before: Moment) -> Moment:
        """The moment after the last store before `before` that made another version; 0 when none did."""
        moment = self._memory.journal.last_change(pa, 8, before)
        while moment is not None:
            changed = self._memory.word_at(pa, moment) ^ self._memory.word_at(pa, moment + 1)
            if changed & ~NO_VERSION:
                return moment + 1
            moment = self._memory.journal.last_change(pa, 8, moment)
        return 0

    def _last_departure(self, level: int, pa: PhysAddr, cached: Pte, before: Moment) -> Ending | None:
        """The last store before `before` that replaced what is cached, if that is gone."""
        moment = self._memory.journal.last_change(pa, 8, before)
        while moment is not None:
            was, became = Pte(self._memory.word_at(pa, moment)), Pte(self._memory.word_at(pa, moment + 1))
            if not (was ^ cached) & ~NO_VERSION and (became ^ cached) & ~NO_VERSION:
                return self._ending(moment, level, cached, became)
            moment = self._memory.journal.last_change(pa, 8, moment)
        return None

    def _ending(self, moment: Moment, level: int, before: Pte, after: Pte) -> Ending:
        event, store, operation = self._events.get(moment, (None, None, None))
        return Ending(moment, event, store, operation, level, before, after)

    def _first_change(self, level: int, pa: PhysAddr, cached: Pte, since: Moment) -> Ending | None:
        moment: Moment | None = since
        while moment is not None:
            moment = self._memory.journal.next_change(pa, 8, moment)
            if moment is None:
                return None
            after = Pte(self._memory.word_at(pa, moment + 1))
            if (cached ^ after) & ~NO_VERSION:
                return self._ending(moment, level, cached, after)
            moment += 1
        return None


@dataclass(frozen=True, slots=True)
class Request:
    """A flush request as far as it has come. `completed` is the event of its completion."""

    begun: int
    cpu: int
    what: FlushBegun
    completed: int | None = None

    def in_range(self, va: VirtAddr) -> bool:
        page = page_start(va)
        return self.what.start < page + PAGE_BYTES and page < self.what.end

    def __str__(self) -> str:
        ended = "not completed" if self.completed is None else f"completed at event {self.completed}"
        cpus = ", ".join(map(str, sorted(self.what.cpus))) or "none"
        return f"{self.what.function} by cpu{self.cpu}, begun at event {self.begun}, for cpus {cpus}; {ended}"


class Flushes:
    """Flush requests and the invalidations each CPU carried out. `promised`: the rules those follow."""

    def __init__(self, promised: frozenset[Rule]) -> None:
        self._promised = promised
        self.requests: dict[int, Request] = {}
        self._invalidated: dict[int, list[tuple[Moment, int, Invalidation]]] = {}

    def begun(self, number: int, cpu: int, what: FlushBegun) -> None:
        self.requests[number] = Request(number, cpu, what)

    def completed(self, number: int, what: FlushCompleted) -> None:
        request = self.requests[what.begun]
        self.requests[what.begun] = Request(request.begun, request.cpu, request.what, number)

    def invalidated(self, number: int, moment: Moment, event: Invalidated) -> None:
        self._invalidated.setdefault(event.cpu, []).append((moment, number, event.what))

    def covering(self, va: VirtAddr, ending: Ending) -> list[Request]:
        """The requests with `va` in range that began after the store."""
        if ending.event is None:
            return []
        return [r for r in self.requests.values() if r.begun > ending.event and r.in_range(va)]

    def removed(self, cpu: int, entry: TlbEntry) -> int | None:
        """The event of an invalidation on that CPU that must have removed the entry, if there was one."""
        for moment, number, what in self._invalidated.get(cpu, ()):
            # A lazily offered version (filled_at < 0) could be cached until its moment; a stored one since.
            later = moment > entry.moment if entry.filled_at < 0 else number > entry.filled_at
            if later and removes(what, entry, self._promised):
                return number
        return None


class Frames:
    """When each frame was last freed."""

    def __init__(self) -> None:
        self._freed: dict[int, tuple[Moment, int]] = {}

    def freed(self, number: int, moment: Moment, what: PageFreed) -> None:
        for pfn in range(what.pfn, what.pfn + (1 << what.order)):
            self._freed[pfn] = (moment, number)

    def last_freed(self, pfn: int) -> tuple[Moment, int] | None:
        """When the frame was last freed: the moment and the event."""
        return self._freed.get(pfn)


class Operations:
    """Which exported functions of the port are under way on which CPU, and which have returned."""

    def __init__(self) -> None:
        self._under_way: dict[int, list[int]] = {}
        self.returned: dict[int, int] = {}
        self.names: dict[int, str] = {}

    def begun(self, number: int, cpu: int, what: OperationBegun) -> None:
        self._under_way.setdefault(cpu, []).append(number)
        self.names[number] = what.function

    def ended(self, number: int, cpu: int, what: OperationReturned) -> None:
        self._under_way[cpu].remove(what.begun)
        self.returned[what.begun] = number

    @property
    def idle(self) -> bool:
        """Whether none is under way."""
        return not any(self._under_way.values())

    def current(self, event: MachineEvent) -> int | None:
        """The operation under way on the event's CPU."""
        under_way = self._under_way.get(event.cpu)
        return under_way[-1] if under_way else None
