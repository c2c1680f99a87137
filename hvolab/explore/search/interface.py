"""The seam between the explorer and its strategies: one chooses at points, run after run."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol, TypeAlias, assert_never

from emu.choice import About, Choice, DecideQuestion, Question, VersionQuestion
from hvolab.checked.json_value import Json
from hvolab.checked.place import Place
from hvolab.judge.sight.sight import Sight
from hvolab.subject.picker import Picker
from kernel_model.boot import System


class Freedom(Enum):
    """What may be chosen. What is not free is as a machine without that freedom would have it."""

    SCHEDULE = "schedule"  # which CPU steps; otherwise the lowest that can
    IRQ = "irq"  # when a pending interrupt is taken; otherwise at once
    TLB = "tlb"  # which version of a translation is used; otherwise a walk made now
    ALLOC = "alloc"  # whether an allocation fails; otherwise none does


_DECIDED = {About.OUTCOME: Freedom.ALLOC, About.ARRIVAL: Freedom.IRQ}


def freedom_of(question: Question) -> Freedom:
    """Which it takes to answer otherwise than usual."""
    match question:
        case VersionQuestion():
            return Freedom.TLB
        case DecideQuestion(about=about):
            return _DECIDED[about]
        case _:
            assert_never(question)


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


@dataclass(frozen=True, slots=True)
class InMemory:
    """How many states a strategy remembers to have been in. `full`: there is room for no more."""

    states: int = 0
    full: bool = False


class Next(Enum):
    """What a strategy makes of a run that has ended."""

    GO_ON = "the run counts"
    START_AGAIN = "something was learned that the runs so far should have known: they do not count"


class Strategy(Protocol):
    """A way through the runs. The explorer owns the loop: begin, a run with the picker, end, and again."""

    def begin(self) -> bool:
        """Start another run. False when there is nothing left to explore."""
        ...

    @property
    def shared(self) -> int:
        """How many steps of the run just begun are those of the last one, whose picker picks in it too.

        0: it is a run from time zero, with a picker of its own.
        """
        ...

    @property
    def remembered(self) -> InMemory:
        """What it remembers of states."""
        ...

    def picker(self, system: System, sight: Sight, freedoms: frozenset[Freedom]) -> Picker:
        """What picks in the run just begun, and may watch Sight. It may raise `Redundant` from `pick`."""
        ...

    def end(self, system: System) -> Next:
        """The run is over; the machine still is as it was at its end."""
        ...

    def extent(self) -> str:
        """What a strategy that came to its end has covered, in words."""
        ...

    def save(self) -> Json:
        """Where it is, between two runs: a JSON value."""
        ...

    def load(self, place: Place) -> None:
        """Go on from there. Raises what `place` raises where the value is wrong."""
        ...


class Redundant(Exception):
    """The rest of this run can show nothing that other runs do not show."""


class SeenBefore(Redundant):
    """It has come to a state from which everything that matters has been explored."""


class NoProgress(SeenBefore):
    """It has come back to a state of its own, and whoever can step in the loop does: it can go on for ever.

    `where`: the CPUs that loop, and where each is.
    """

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self.where = where
