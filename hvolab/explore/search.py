"""The seam between the explorer and its strategies: a search chooses at points, run after run."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol, TypeAlias

from emu.choice import Choice


class Freedom(Enum):
    """What may be chosen. What is not free is as a machine without that freedom would have it."""

    SCHEDULE = "schedule"  # which CPU steps; otherwise the lowest that can
    IRQ = "irq"  # when a pending interrupt is taken; otherwise at once
    TLB = "tlb"  # which version of a translation is used; otherwise a walk made now
    ALLOC = "alloc"  # whether an allocation fails; otherwise none does


@dataclass(frozen=True, slots=True)
class SchedulePoint:
    """What happens next. `running` is the choice made last, if it is among the options.

    To choose anything else then is a preemption.
    """

    options: tuple[Choice, ...]
    running: int | None


@dataclass(frozen=True, slots=True)
class AnswerPoint:
    """A question inside a step, with that many answers; the last is that of a machine without the freedom."""

    options: int


Point: TypeAlias = SchedulePoint | AnswerPoint


def size(point: Point) -> int:
    """The number of options."""
    return point.options if isinstance(point, AnswerPoint) else len(point.options)


class Search(Protocol):
    """A strategy. The explorer owns the loop: begin, any number of choose, and begin again."""

    def begin(self) -> bool:
        """Start another run. False when there is nothing left to explore."""
        ...

    def choose(self, point: Point) -> int:
        """The number of the option to take. Points with one option are not asked about."""
        ...

    def extent(self) -> str:
        """What a search that came to its end has covered, in words."""
        ...
