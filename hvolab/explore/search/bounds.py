"""What a bounded search pays for: preemptions, or delays.

A preemption takes the turn from a CPU that could go on (CHESS, PLDI 2007). A delay makes the deterministic
scheduler, round robin without preemption, skip the one whose turn it is (Emmi et al., POPL 2011); with delays
the order in which CPUs follow one another is paid for as well, so a bound leaves fewer runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from hvolab.explore.search.interface import AnswerPoint, Point


@dataclass(frozen=True, slots=True)
class Preemptions:
    most: int

    def costs(self, point: Point, last: int) -> dict[int, int]:
        """What each option costs, the cheapest first."""
        del last
        if isinstance(point, AnswerPoint):
            return _free(point)
        if point.running is None:
            return dict.fromkeys(range(len(point.options)), 0)
        others = {option: 1 for option in range(len(point.options)) if option != point.running}
        return {point.running: 0, **others}

    def __str__(self) -> str:
        return f"bounded by {self.most} preemption{'' if self.most == 1 else 's'}"


@dataclass(frozen=True, slots=True)
class Delays:
    most: int

    def costs(self, point: Point, last: int) -> dict[int, int]:
        """What each option costs, the cheapest first. `last` is the CPU of the last step, -1 at first."""
        if isinstance(point, AnswerPoint):
            return _free(point)
        count = len(point.options)
        first = point.running
        if first is None:
            first = next((n for n, choice in enumerate(point.options) if choice.cpu > last), 0)
        return {(first + delays) % count: delays for delays in range(count)}

    def __str__(self) -> str:
        return f"bounded by {self.most} delay{'' if self.most == 1 else 's'}"


@dataclass(frozen=True, slots=True)
class Unbounded:
    most: int = 0

    def costs(self, point: Point, last: int) -> dict[int, int]:
        """Everything is free; the running one comes first."""
        return dict.fromkeys(Preemptions(0).costs(point, last), 0)

    def __str__(self) -> str:
        return "exhaustive"


Bound: TypeAlias = Preemptions | Delays | Unbounded


def _free(point: AnswerPoint) -> dict[int, int]:
    return dict.fromkeys(range(point.options), 0)
