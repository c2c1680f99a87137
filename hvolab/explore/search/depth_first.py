"""Depth-first search over all choices, or over those within a bound. Answers inside a step are free."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hvolab.checked.json_value import Json
from hvolab.checked.place import Place
from hvolab.explore.search.bounds import Bound, Delays, Preemptions, Unbounded
from hvolab.explore.search.guide import PointStrategy
from hvolab.explore.search.interface import Point, SchedulePoint


@dataclass(slots=True)
class _Fork:
    """A point of the current path: its options with their costs, and which one it is at."""

    options: tuple[int, ...]
    costs: tuple[int, ...]
    at: int = 0


class DepthFirst(PointStrategy):
    """All runs within the bound, each once."""

    def __init__(self, bound: Bound) -> None:
        self._bound = bound
        self._path: list[_Fork] = []
        self._depth = 0
        self._spent = 0
        self._last = -1
        self._started = False

    def begin(self) -> bool:
        if self._started and not self._backtrack():
            return False
        self._started = True
        self._depth = 0
        self._spent = 0
        self._last = -1
        return True

    def choose(self, point: Point) -> int:
        if self._depth == len(self._path):
            self._path.append(self._branch(point))
        branch = self._path[self._depth]
        self._depth += 1
        picked = branch.options[branch.at]
        self._spent += branch.costs[branch.at]
        if isinstance(point, SchedulePoint):
            self._last = point.options[picked].cpu
        return picked

    def extent(self) -> str:
        return str(self._bound)

    def save(self) -> Json:
        return {
            "started": int(self._started),
            "path": [
                [list[Json](branch.options), list[Json](branch.costs), branch.at] for branch in self._path
            ],
        }

    def load(self, place: Place) -> None:
        self._started = bool(place.field("started").integer(0, 1))
        self._path = [_load_branch(row) for row in place.field("path").items()]

    def _branch(self, point: Point) -> _Fork:
        """The cheapest first: the path that costs nothing is the first one tried."""
        left = self._bound.most - self._spent
        costs = {
            option: cost for option, cost in self._bound.costs(point, self._last).items() if cost <= left
        }
        return _Fork(tuple(costs), tuple(costs.values()))

    def _backtrack(self) -> bool:
        while self._path:
            if self._path[-1].at + 1 < len(self._path[-1].options):
                self._path[-1].at += 1
                return True
            self._path.pop()
        return False


class Deepening(PointStrategy):
    """With 0 preemptions or delays, then 1, and so on: what needs the fewest is found first."""

    def __init__(self, bound: Preemptions | Delays) -> None:
        self._bound = bound
        self._strategy = DepthFirst(replace(bound, most=0))
        self._now = 0

    def begin(self) -> bool:
        while not self._strategy.begin():
            if self._now == self._bound.most:
                return False
            self._now += 1
            self._strategy = DepthFirst(replace(self._bound, most=self._now))
        return True

    def choose(self, point: Point) -> int:
        return self._strategy.choose(point)

    def extent(self) -> str:
        return self._strategy.extent()

    def save(self) -> Json:
        return {"bound": self._now, "search": self._strategy.save()}

    def load(self, place: Place) -> None:
        self._now = place.field("bound").integer(0, self._bound.most)
        self._strategy = DepthFirst(replace(self._bound, most=self._now))
        self._strategy.load(place.field("search"))


def everything() -> DepthFirst:
    """Every run there is, one by one: what a reduction is compared with."""
    return DepthFirst(Unbounded())


def _load_branch(row: Place) -> _Fork:
    parts = row.items()
    if len(parts) != 3:
        raise row.wanted("options, their costs, and a number")
    options, costs = tuple(parts[0].integers()), tuple(parts[1].integers())
    if len(options) != len(costs):
        raise row.wanted("as many costs as options")
    return _Fork(options, costs, parts[2].integer(0, len(options) - 1))
