"""What one CPU did to its own TLB: invalidations and loads of CR3, in order, and what each of them ended.

The lazy TLB holds no entries that could be removed. It asks here until when one could have been held.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

from emu.addr import PageSize, VirtAddr
from emu.kept import Kept
from emu.memory import Journal, Moment
from emu.paging.psc import drops
from emu.paging.tlb import Invalidation, Rule, TlbEntry, removes, removes_all


class Time(NamedTuple):
    """A point in the life of one CPU: so many stores by anybody, so many happenings of its own before it.

    Its own happenings are invalidations and loads of CR3. Stores alone do not order them: two can follow each
    other with no store between.
    """

    stores: Moment
    own: int


BEGINNING = Time(0, 0)
_NEVER_EMPTIED = (0, BEGINNING)


class Happenings(Kept):
    """Asked again, each question looks only at what has happened since, however far back the answer is."""

    kept = ("_moments", "_events", "_what", "_drops", "_emptied", "_removed", "_floor")

    def __init__(self, journal: Journal, rules: frozenset[Rule]) -> None:
        self._journal = journal
        self._rules = rules
        self.clear()

    def clear(self) -> None:
        """Nothing has happened yet."""
        self._moments: list[Moment] = []  # after how many stores each came
        self._events: list[int] = []
        self._what: list[Invalidation | None] = []  # None: CR3 was loaded
        self._drops: list[int] = []  # which of them emptied the paging-structure caches
        # Answers given, each with how much had happened then.
        self._emptied: dict[tuple[VirtAddr, int], tuple[int, Time]] = {}
        self._removed: dict[tuple[VirtAddr, PageSize, bool, int], tuple[int, int]] = {}
        self._floor = BEGINNING

    @property
    def count(self) -> int:
        return len(self._what)

    def now(self) -> Time:
        return Time(self._journal.now, len(self._what))

    def loaded_root(self, event: int) -> None:
        """CR3 was loaded."""
        self._drops.append(len(self._what))
        self._add(None, event)

    def invalidated(self, what: Invalidation, event: int) -> None:
        """The CPU carried it out."""
        if drops(what, self._rules):
            self._drops.append(len(self._what))
        self._add(what, event)

    def _add(self, what: Invalidation | None, event: int) -> None:
        self._moments.append(self._journal.now)
        self._events.append(event)
        self._what.append(what)

    def everything_removed(self) -> None:
        """The last one left nothing at all."""
        self._floor = self.now()

    def last_event(self, time: Time) -> int:
        """The event of the last of them before that time; -1 when there was none."""
        return self._events[time.own - 1] if time.own else -1

    def before_store(self, index: Moment) -> Time:
        """The last moment before that store: what the CPU did after as many stores came before it."""
        return Time(index, bisect_right(self._moments, index))

    def directory_end(self, end: Time) -> Time:
        """Until when a directory entry read until `end` could still start a walk."""
        at = bisect_right(self._drops, end.own - 1)
        if at == len(self._drops):
            return self.now()
        own = self._drops[at]
        return Time(self._moments[own], own)

    def dropped_at(self) -> Moment:
        """The number of stores made before the paging-structure caches were emptied last."""
        return self._moments[self._drops[-1]] if self._drops else 0

    def emptied(self, page: VirtAddr, pcid: int) -> Time:
        """Since when nothing older can be used for a page under a PCID, of whatever kind."""
        key, count = (page, pcid), len(self._what)
        asked, found = self._emptied.get(key, _NEVER_EMPTIED)
        if asked == count:
            return found
        found = max(found, self._floor)
        for own in range(count - 1, max(asked, self._floor.own) - 1, -1):
            what = self._what[own]
            if what is not None and removes_all(what, page, pcid, self._rules):
                found = Time(self._moments[own], own + 1)
                break
        self._emptied[key] = (count, found)
        return found

    def survives(self, entry: TlbEntry, last: Time) -> bool:
        """Whether an entry that could be cached until `last` may still be held."""
        key, count = (entry.page, entry.page_size, entry.is_global, entry.pcid), len(self._what)
        asked, found = self._removed.get(key, (0, -1))
        if asked != count:
            for own in range(count - 1, max(asked, self._floor.own) - 1, -1):
                what = self._what[own]
                if what is not None and removes(what, entry, self._rules):
                    found = own
                    break
            self._removed[key] = (count, found)
        return last.own > max(found, self._floor.own - 1)
