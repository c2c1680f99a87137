"""Which store ended a version of a translation, and since when it was there: out of the journal.

A version ends with the first store that changes a bit of an entry behind it that counts. With
paging-structure caches a version can be one whose directory entry was overwritten before its lower entries
were read: then the store that overwrote the directory entry ended it.
"""

from __future__ import annotations

from dataclasses import dataclass

from emu.addr import PAGE_SHIFT, PhysAddr
from emu.events import Stored
from emu.kept import Kept
from emu.memory import Moment, PhysicalMemory
from emu.paging.pte import Pte, PteBit
from emu.paging.tlb import TlbEntry
from emu.paging.walk import WalkStep

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


class Endings(Kept):
    """Follows the stores of one run."""

    kept = ("_events", "_last", "_born_stale", "_word_touched", "_frame_touched")

    def __init__(self, memory: PhysicalMemory) -> None:
        self._memory = memory
        self._events: dict[Moment, tuple[int, Stored, int | None]] = {}
        self._last: dict[int, tuple[int, Stored]] = {}
        self._born_stale: set[int] = set()  # by the event that filled them
        # The moments after which nothing has been stored to a word, or in bulk to a frame.
        self._word_touched: dict[int, Moment] = {}
        self._frame_touched: dict[int, Moment] = {}

    def stored(self, number: int, event: Stored, operation: int | None) -> None:
        """`event` was the last thing to change memory."""
        now = self._memory.journal.now
        self._events[now - 1] = (number, event, operation)
        self._last[event.pa] = (number, event)
        for word in range(event.pa & ~7, event.pa + event.size, 8):
            self._word_touched[word] = now

    def bulk(self, pa: PhysAddr) -> None:
        """A copy or fill was the last thing to change memory, somewhere in the frame of `pa`."""
        self._frame_touched[pa >> PAGE_SHIFT] = self._memory.journal.now

    def filled(self, entry: TlbEntry) -> None:
        """A walk found this. Started from a remembered directory entry it may be stale from the first."""
        if any((step.entry ^ self._memory.read_word(step.pa)) & ~NO_VERSION for step in entry.steps):
            self._born_stale.add(entry.filled_at)

    def last_to(self, pa: int) -> tuple[int, Stored] | None:
        """The latest store to exactly that physical address, with its event."""
        return self._last.get(pa)

    def ending_of(self, entry: TlbEntry) -> Ending | None:
        """The store that ended the version; None while it is what a walk gives."""
        if self._as_when_cached(entry):
            return None
        endings = (self._ending(step, entry.moment) for step in entry.steps)
        return min((one for one in endings if one is not None), key=lambda one: one.moment, default=None)

    def ending_of_step(self, step: WalkStep, moment: Moment) -> Ending | None:
        """The store that ended one entry of a path, as it was known at that moment."""
        return self._ending(step, moment)

    def installed_at(self, steps: tuple[WalkStep, ...], moment: Moment) -> Moment:
        """Since when the entries of a path had all been in the page table when it was known."""
        return max(self._installed(step, moment) for step in steps)

    def _as_when_cached(self, entry: TlbEntry) -> bool:
        """Whether no word behind the entry was stored to since it was cached: the usual case, and quick."""
        if entry.filled_at < 0 or entry.filled_at in self._born_stale:
            return False
        since = entry.moment
        word, frame = self._word_touched, self._frame_touched
        for step in entry.steps:
            if word.get(step.pa, 0) > since or frame.get(step.pa >> PAGE_SHIFT, 0) > since:
                return False
        return True

    def _ending(self, step: WalkStep, moment: Moment) -> Ending | None:
        departed = self._departure(step, moment)
        if departed is None:
            departed = self._next_departure(step, moment)
        if departed is None:
            return None
        event, store, operation = self._events.get(departed, (None, None, None))
        after = Pte(self._memory.word_at(step.pa, departed + 1))
        return Ending(departed, event, store, operation, step.level, step.entry, after)

    def _departure(self, step: WalkStep, moment: Moment) -> Moment | None:
        """The last store before `moment` that replaced what the step holds; None where it still was there."""
        if _same(self._memory.word_at(step.pa, moment), step.entry):
            return None
        journal = self._memory.journal
        at = journal.last_change(step.pa, 8, moment)
        while at is not None and not _same(self._memory.word_at(step.pa, at), step.entry):
            at = journal.last_change(step.pa, 8, at)
        return at

    def _next_departure(self, step: WalkStep, moment: Moment) -> Moment | None:
        """The first store from `moment` on that replaced what the step holds."""
        journal = self._memory.journal
        at = journal.next_change(step.pa, 8, moment)
        while at is not None and _same(self._memory.word_at(step.pa, at + 1), step.entry):
            at = journal.next_change(step.pa, 8, at + 1)
        return at

    def _installed(self, step: WalkStep, moment: Moment) -> Moment:
        """The moment after the last store, before it was known, that put there what the step holds."""
        departed = self._departure(step, moment)
        before = moment if departed is None else departed
        at = self._memory.journal.last_change(step.pa, 8, before)
        while at is not None:
            if not _same(self._memory.word_at(step.pa, at), self._memory.word_at(step.pa, at + 1)):
                return at + 1
            at = self._memory.journal.last_change(step.pa, 8, at)
        return 0


def _same(a: int, b: int) -> bool:
    """Whether two values of an entry make one version."""
    return not (a ^ b) & ~NO_VERSION
