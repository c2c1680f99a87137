"""Who has touched what, over all runs of a search, and over what two steps of one run have conflicted.

A step is *private* if it conflicts with no step that another process makes in the same run. Nobody knows that
before the run has ended. So a step is taken for private unless something that it touches has been conflicted
over; where another process has touched some of it in another run, that is a *doubt*, to be looked after in
each run.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

from emu.machine import MOST_CPUS
from hvolab.explore.footprint.conflict import Footprint, conflict, conflicts
from hvolab.judge.sight.resource import Kind, Resource, Touched, kind_of

# That a stepwise handler keeps its CPU's thread from stepping moves nothing of either.
_CONTEXTS = frozenset(Resource(Kind.CONTEXT, cpu) for cpu in range(MOST_CPUS))
_NOTHING: frozenset[Touched] = frozenset()


@dataclass(slots=True)
class _All:
    """What the steps of one process have touched."""

    reads: set[Touched] = field(default_factory=set)
    writes: set[Touched] = field(default_factory=set)
    marks: set[Touched] = field(default_factory=set)

    def add(self, footprint: Footprint) -> bool:
        """Whether that is more than it was."""
        reads, writes, marks = footprint
        if reads <= self.reads and writes <= self.writes and marks <= self.marks:
            return False
        self.reads |= reads
        self.writes |= writes
        self.marks |= marks
        return True

    def conflicts(self, footprint: Footprint) -> set[Touched]:
        """What a step of another process with that footprint may conflict over with some of these."""
        reads, writes, marks = footprint
        return {
            *(writes & self.reads),
            *(writes & self.writes),
            *(writes & self.marks),
            *(reads & self.writes),
            *(reads & self.marks),
            *(marks & self.reads),
            *(marks & self.writes),
        }


class Knowledge(NamedTuple):
    """How much was known."""

    touches: int
    conflicts: int
    varied: int


class Contention:
    """Of one search. `blind_to`: kinds left out, which is unsound: for tests that show that they matter."""

    def __init__(self, blind_to: frozenset[Kind] = frozenset()) -> None:
        self._doubted: set[Touched] = set()  # what private steps may conflict over
        self.varied = 0  # how often a step that was known has been found to vary
        self._blind_to = blind_to
        self._touched: defaultdict[int, _All] = defaultdict(_All)
        self._touches: list[tuple[int, Footprint]] = []  # each with something new
        self._conflicts: list[frozenset[Touched]] = []
        self._conflicted: set[Touched] = set()

    @property
    def now(self) -> Knowledge:
        return Knowledge(len(self._touches), len(self._conflicts), self.varied)

    def note(self, process: int, footprint: Footprint) -> Footprint:
        """The process has made, or would make, such a step. What of it steps taken for private may touch."""
        counts = self.counting(footprint)
        if not self._touched[process].add(counts):
            return self.doubted(counts)
        self._touches.append((process, counts))
        return counts

    def doubted(self, footprint: Footprint) -> Footprint:
        """What of it there is doubt about."""
        return Footprint(*(some & self._doubted for some in footprint))

    def met(self, one: Footprint, other: Footprint) -> None:
        """Steps with these footprints have been made in one run, whether or not their order was free."""
        self.conflicted(conflicts(self.counting(one), self.counting(other)))

    def conflicted(self, over: frozenset[Touched]) -> None:
        """Two steps of one run have."""
        if not over <= self._conflicted:
            self._conflicts.append(over - self._conflicted)
            self._conflicted |= over

    def doubts(self, process: int, footprint: Footprint) -> frozenset[Touched] | None:
        """What such a step could conflict over, where it is taken for private. None where it is not."""
        counts = self.counting(footprint)
        found = _NOTHING
        for other, touched in self._touched.items():
            if other != process:
                found |= touched.conflicts(counts)
        if found and not self._conflicted.isdisjoint(found):
            return None
        self._doubted |= found
        return found

    def has_news(
        self, process: int, touched: Footprint, doubts: frozenset[Touched], since: Knowledge
    ) -> bool:
        """Whether anything learned since then concerns private steps that touch that, with those doubts."""
        if self.varied != since.varied:
            return True
        return any(
            other != process and conflict(touched, footprint)
            for other, footprint in self._touches[since.touches :]
        ) or not all(map(doubts.isdisjoint, self._conflicts[since.conflicts :]))

    def counting(self, footprint: Footprint) -> Footprint:
        """What of it can be conflicted over."""
        counting = (some - _CONTEXTS for some in footprint)
        if self._blind_to:
            counting = (
                frozenset(one for one in some if kind_of(one) not in self._blind_to) for some in counting
            )
        return Footprint(*counting)
