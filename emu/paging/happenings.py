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
from emu.paging.tlb import Invalidation, Invlpg, Rule, TlbEntry, removes, removes_all


class Time(NamedTuple):
    """A point in the life of one CPU: so many stores by anybody, so many happenings of its own before it.

    Its own happenings are invalidations and loads of CR3. Stores alone do not order them: two can follow each
    other with no store between.
    """

    stores: Moment
    own: int


BEGINNING = Time(0, 0)
_NEVER_EMPTIED = (0, BEGINNING)


class _CarriedOut(NamedTuple):
    """It emptied the paging-structure caches too, at any time from its begin to its end, by their places."""

    what: Invalidation
    begun: int
    ended: int

    def drops_for(self, va: VirtAddr) -> int:
        """When it does at the latest. What else a page that it is of was walked for by then, it removes."""
        is_of = not isinstance(self.what, Invlpg) or self.what.holds(va)
        return self.begun if is_of else self.ended


class Happenings(Kept):
    """Asked again, each question looks only at what has happened since, however far back the answer is."""

    kept = ("_moments", "_events", "_what", "_drops", "_emptied", "_removed", "_floor", "_carried_out")

    def __init__(self, journal: Journal, rules: frozenset[Rule]) -> None:
        self._journal = journal
        self._rules = rules
        self.clear()

    def clear(self) -> None:
        """Nothing has happened yet."""
        self._moments: list[Moment] = []  # after how many stores each came
        self._events: list[int] = []
        self._what: list[Invalidation | None] = []  # None: CR3 was loaded, or one is only expected
        self._drops: list[int] = []  # which of them emptied the paging-structure caches
        self._carried_out: list[_CarriedOut] = []
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

    def expected(self, event: int) -> int:
        """One will be carried out later as if it were now. Returns its place among them."""
        self._add(None, event)
        return len(self._what) - 1

    def carried_out(self, what: Invalidation, place: int, event: int) -> None:
        """The one that was expected at that place has been. Answers given before count no more."""
        self._what[place] = what
        self._emptied.clear()
        self._removed.clear()
        if drops(what, self._rules):
            self._carried_out.append(_CarriedOut(what, place, len(self._what)))
        self._add(None, event)

    def everything_removed(self) -> None:
        """The last one left nothing at all."""
        self._floor = self.now()

    def last_event(self, time: Time) -> int:
        """The event of the last of them before that time; -1 when there was none."""
        return self._events[time.own - 1] if time.own else -1

    def before_store(self, index: Moment) -> Time:
        """The last moment before that store: what the CPU did after as many stores came before it."""
        return Time(index, bisect_right(self._moments, index))

    def directory_end(self, end: Time, va: VirtAddr) -> Time:
        """Until when a directory entry read until `end` could still start a walk that `va` may use."""
        at = bisect_right(self._drops, end.own - 1)
        dropped = self._drops[at : at + 1]
        dropped += [one.drops_for(va) for one in self._carried_out if one.begun >= end.own]
        if not dropped:
            return self.now()
        own = min(dropped)
        return Time(self._moments[own], own)

    def dropped_at(self) -> Moment:
        """The number of stores made before the paging-structure caches were emptied last."""
        own = max((*self._drops[-1:], *(one.begun for one in self._carried_out)), default=None)
        return 0 if own is None else self._moments[own]

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
