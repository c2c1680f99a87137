"""Depth-first search over all choices, or over those with at most so many preemptions.

A preemption takes the turn from a CPU that could go on. Bounded by few of them, a search is small and still
finds most races (CHESS, PLDI 2007); unbounded it is exhaustive. Answers are free of charge.
"""

from __future__ import annotations

from dataclasses import dataclass

from hvolab.explore.guide import PointSearch
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
