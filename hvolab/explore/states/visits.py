"""The states that a search has come to, each with what was asleep then, and what lay behind.

A *visit* is one time that the search came to a state. It is finished once everything that matters from there
has been explored; what the steps behind it touched is then known, whatever way led to it. A run that comes to
the state again, with no more to explore than that visit had, need not go on: only the races between its own
way there and the steps behind are new.

A run that comes to a state on its own path has made a *loop*. Nothing in a loop is finished before its first
state is, since all of it lies behind each.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import NamedTuple

from hvolab.explore.footprint.conflict import Footprint
from hvolab.judge.sight.resource import Touched


@dataclass(frozen=True, slots=True)
class Remembers:
    """At most so many states, of those met one in so many: to look at one costs as much as some steps.

    Where looking does not pay fewer are looked at, down to one in `least`. `lives`: how many lives of
    processes, what the next step after each is, are remembered beside.
    """

    most: int = 1024 * 256
    one_in: int = 4
    least: int = 32
    lives: int = 1024 * 256

    @property
    def values(self) -> int:
        """How many values of parts of states are remembered."""
        return self.most * _VALUES_A_STATE


_VALUES_A_STATE = 8
_STATES_A_MIB = (
    256  # beside as many lives: 2 KiB each, with all that is kept of them, where that was measured
)


def within(mebibytes: int) -> Remembers:
    """As many states, and as many lives, as take about so much memory."""
    return Remembers(mebibytes * _STATES_A_MIB, lives=mebibytes * _STATES_A_MIB)


NO_STATES = Remembers(0)
EVERY_STATE = Remembers(one_in=1, least=1)
_PAYS = 200  # looks: one that ends a run in so many
_LOOKS = 500  # after so many it is asked whether they paid


class Made(NamedTuple):
    """A step, or one that never came: whose, what it touched, and what it may have had to wait for."""

    process: int
    footprint: Footprint
    waited_for: tuple[tuple[Touched, int | None], ...]


_NO_LOOP = 1 << 62


@dataclass(slots=True, eq=False)
class Visit:
    """`made`: steps behind the state. `behind`: states behind it, whose steps are so too.

    `cut_off`: a run behind it was ended by a budget, so that not everything from there was explored. While it
    is `on_path`, `depth` is its place there. `looped`: the processes that step in loops through it, and
    `could`: those that could step somewhere in these. `back_to`: the least depth that a loop behind it leads
    back to, and `waiting`: the visits that are finished when it is.
    """

    asleep: Set[int]
    depth: int = 0
    on_path: bool = True
    remembered: bool = False
    looped: set[int] = field(default_factory=set)
    could: set[int] = field(default_factory=set)
    back_to: int = _NO_LOOP
    waiting: list[Visit] = field(default_factory=list)
    made: set[Made] = field(default_factory=set)
    behind: dict[Visit, None] = field(default_factory=dict)
    finished: bool = False
    cut_off: bool = False
    _all: frozenset[Made] | None = None

    def moved(self, now: Sequence[int]) -> None:
        """The path has other states between its own: `now` has the new depths, by the old ones."""
        self.depth = now[self.depth]
        if self.back_to != _NO_LOOP:
            self.back_to = now[self.back_to]

    def all(self) -> frozenset[Made]:
        """The steps behind a finished visit, in no order."""
        if self._all is None:
            found: set[Made] = set()
            seen: set[Visit] = set()
            left = [self]
            while left:
                visit = left.pop()
                if visit in seen:
                    continue
                seen.add(visit)
                if visit._all is None:
                    found |= visit.made
                    left += visit.behind
                else:
                    found |= visit._all
            self._all = frozenset(found)
            self.made, self.behind = set(), {}
        return self._all


class Visits:
    """Of one search. Beyond the limit no state is remembered: one that is not is explored again when met."""

    def __init__(self, remembers: Remembers) -> None:
        self._remembers = remembers
        self._one_in = remembers.one_in
        self._looks = self._hits = 0
        self._of: dict[Hashable, list[Visit]] = {}
        self._made: dict[Made, Made] = {}

    def __len__(self) -> int:
        return len(self._of)

    @property
    def full(self) -> bool:
        """Whether there are states that are not remembered for their number."""
        return 0 < self._remembers.most <= len(self._of)

    def made(self, process: int, footprint: Footprint, waited_for: Mapping[Touched, int | None]) -> Made:
        """That step, the same object each time."""
        made = Made(process, footprint, tuple(waited_for.items()))
        return self._made.setdefault(made, made)

    def looks_at(self, progress: int, *, meets: bool) -> bool:
        """Whether a state that its CPUs have come to in so many steps is one to be remembered.

        Four times as many are of those where ways meet.
        """
        one_in = max(1, self._one_in // 4) if meets else self._one_in
        return self._remembers.most > 0 and not progress % one_in

    def finished(self, state: Hashable, asleep: Mapping[int, object]) -> Visit | None:
        """One that had no less to explore than there is with these processes asleep."""
        self._looked()
        for visit in self._of.get(state, ()):
            if visit.finished and not visit.cut_off and visit.asleep <= asleep.keys():
                self._hits += 1
                return visit
        return None

    def under_way(self, state: Hashable, asleep: Mapping[int, object]) -> Visit | None:
        """One on the path, that is to explore no less than there is with these processes asleep."""
        for visit in self._of.get(state, ()):
            if visit.on_path and visit.asleep <= asleep.keys():
                return visit
        return None

    def _looked(self) -> None:
        """Of the states that are looked at every other one will do, if few of them end a run."""
        self._looks += 1
        if self._looks == _LOOKS:
            if self._hits * _PAYS < _LOOKS and self._one_in < self._remembers.least:
                self._one_in *= 2
            self._looks = self._hits = 0

    def begin(self, state: Hashable | None, asleep: Mapping[int, object], depth: int) -> Visit:
        """The search has come to that state, so deep in its path. None: to one that is not looked at."""
        visit = Visit(frozenset(asleep), depth)
        if state is not None and (len(self._of) < self._remembers.most or state in self._of):
            visit.remembered = True
            self._of.setdefault(state, []).append(visit)
        return visit

    def finish(self, visit: Visit, above: Visit | None) -> None:
        """Everything from there has been explored. What is not remembered is a part of what lies above."""
        visit.on_path = False
        if visit.back_to < visit.depth and above is not None:
            above.back_to = min(above.back_to, visit.back_to)
            above.waiting += [visit, *visit.waiting]
        else:
            for one in (visit, *visit.waiting):
                one.finished = True
                one.cut_off |= visit.cut_off
        visit.waiting = []
        if not visit.remembered and above is not None:
            del above.behind[visit]
            above.behind |= visit.behind
            above.made |= visit.made

    def forget(self) -> None:
        """All of them: what they were explored with was not all there is to know."""
        self._of.clear()
        self._made.clear()
