"""Depth-first search over all choices, or over those with at most so many preemptions.

A preemption takes the turn from a CPU that could go on. Bounded by few of them, a search is small and still
finds most races (CHESS, PLDI 2007); unbounded it is exhaustive. Answers are free of charge.
"""

from __future__ import annotations

from dataclasses import dataclass

from hvolab.dump.fields import Place
from hvolab.explore.guide import PointSearch
from hvolab.explore.saved import Json, load_numbers
from hvolab.explore.search import Point, SchedulePoint, size


@dataclass(slots=True)
class _Branch:
    """A point of the current path: its options in the order they are tried, and which one it is at."""

    order: tuple[int, ...]
    at: int
    running: int | None


class DepthFirst(PointSearch):
    """`preemptions`: at most so many in one run; None for no bound."""

    def __init__(self, preemptions: int | None) -> None:
        self._bound = preemptions
        self._path: list[_Branch] = []
        self._depth = 0
        self._spent = 0
        self._started = False

    def begin(self) -> bool:
        if self._started and not self._backtrack():
            return False
        self._started = True
        self._depth = 0
        self._spent = 0
        return True

    def choose(self, point: Point) -> int:
        if self._depth == len(self._path):
            self._path.append(self._branch(point))
        branch = self._path[self._depth]
        self._depth += 1
        picked = branch.order[branch.at]
        if branch.running is not None and picked != branch.running:
            self._spent += 1
        return picked

    def extent(self) -> str:
        if self._bound is None:
            return "exhaustive"
        return f"bounded by {self._bound} preemption{'' if self._bound == 1 else 's'}"

    def save(self) -> Json:
        return {
            "started": int(self._started),
            "path": [
                [list[Json](branch.order), branch.at, -1 if branch.running is None else branch.running]
                for branch in self._path
            ],
        }

    def load(self, place: Place) -> None:
        self._started = bool(place.field("started").integer(0, 1))
        self._path = [_load_branch(row) for row in place.field("path").items()]

    def _branch(self, point: Point) -> _Branch:
        """The running CPU first: the path without preemptions is the first one tried."""
        running = point.running if isinstance(point, SchedulePoint) else None
        affordable = self._bound is None or self._spent < self._bound
        numbers = range(size(point)) if running is None else [running]
        others = [] if running is None else [n for n in range(size(point)) if n != running]
        order = (*numbers, *others) if affordable or running is None else (running,)
        return _Branch(tuple(order), 0, running)

    def _backtrack(self) -> bool:
        while self._path:
            if self._path[-1].at + 1 < len(self._path[-1].order):
                self._path[-1].at += 1
                return True
            self._path.pop()
        return False


class Deepening(PointSearch):
    """With 0 preemptions, then 1, and so on up to `preemptions`: what needs the fewest is found first."""

    def __init__(self, preemptions: int) -> None:
        self._most = preemptions
        self._bound = 0
        self._search = DepthFirst(0)

    def begin(self) -> bool:
        while not self._search.begin():
            if self._bound == self._most:
                return False
            self._bound += 1
            self._search = DepthFirst(self._bound)
        return True

    def choose(self, point: Point) -> int:
        return self._search.choose(point)

    def extent(self) -> str:
        return self._search.extent()

    def save(self) -> Json:
        return {"bound": self._bound, "search": self._search.save()}

    def load(self, place: Place) -> None:
        self._bound = place.field("bound").integer(0, self._most)
        self._search = DepthFirst(self._bound)
        self._search.load(place.field("search"))


def _load_branch(row: Place) -> _Branch:
    parts = row.items()
    if len(parts) != 3:
        raise row.wanted("options, a number, and the running one")
    order = tuple(load_numbers(parts[0]))
    running = parts[2].integer(-1, max(order, default=0))
    return _Branch(order, parts[1].integer(0, len(order) - 1), None if running < 0 else running)
