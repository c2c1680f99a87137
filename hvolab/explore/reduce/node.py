"""The states on the path of a reduced search: what can step there, what has been tried, what is left."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field

from emu.choice import Choice
from hvolab.checked.json_value import Json
from hvolab.checked.place import Place
from hvolab.explore.footprint.conflict import NOTHING, Footprint
from hvolab.explore.reduce.saved import (
    load_by_process,
    load_choices,
    load_footprint,
    load_process,
    save_by_process,
    save_choices,
    save_footprint,
)
from hvolab.explore.states.visits import Visit
from hvolab.explore.stretches.leaps import Leap


@dataclass(slots=True)
class AnswerBranch:
    """A question inside a step: its options as groups of equal outcome, and which group it is at."""

    options: tuple[int, ...]
    at: int = 0

    @classmethod
    def load(cls, place: Place) -> AnswerBranch:
        both = place.items()
        if len(both) != 2:
            raise place.wanted("options and a number")
        options = tuple(both[0].integers())
        return cls(options, both[1].integer(0, len(options) - 1))


@dataclass(slots=True)
class Node:
    """A state on the current path: what can step there, what has been tried, what is still to be.

    Between two of them lie the private steps of the process that steps in the first.
    """

    enabled: dict[int, Choice]
    sleep: dict[int, Footprint]
    current: int
    to_try: set[int] = field(default_factory=set)
    tried: dict[int, Footprint] = field(default_factory=dict)
    footprint: Footprint = NOTHING  # of the current process, over all answers so far
    answers: list[AnswerBranch] = field(default_factory=list)
    in_loop: bool = False
    at: int = 0  # steps of the run before it
    leap: Leap | None = None  # what the current process makes by itself after its step
    visit: Visit | None = None  # None where the path came out of a checkpoint: what lay behind is not known

    def next_answer(self) -> bool:
        """Move on to other answers inside the same step."""
        while self.answers:
            if self.answers[-1].at + 1 < len(self.answers[-1].options):
                self.answers[-1].at += 1
                return True
            self.answers.pop()
        return False

    def asleep_beside(self) -> dict[int, Footprint]:
        """What sleeps while the current process steps. In a loop nobody: loops must meet in one state."""
        if self.in_loop:
            return {}
        return {p: footprint for p, footprint in (self.sleep | self.tried).items() if p != self.current}

    def next_process(self) -> bool:
        """Move on to another process."""
        self.tried[self.current] = self.footprint
        left = [p for p in sorted(self.to_try) if p not in self.tried and p not in self.sleep]
        if not left:
            return False
        self.current, self.footprint = left[0], NOTHING
        return True

    def covers(self, firsts: Set[int]) -> bool:
        """Whether one of these processes is tried here, or need not be."""
        return any(p in self.to_try or p in self.tried or p in self.sleep for p in firsts)

    def save(self) -> Json:
        return {
            "enabled": save_choices(self.enabled),
            "sleep": save_by_process(self.sleep),
            "current": self.current,
            "to_try": list[Json](sorted(self.to_try)),
            "tried": save_by_process(self.tried),
            "footprint": save_footprint(self.footprint),
            "in_loop": int(self.in_loop),
            "answers": [[list[Json](answer.options), answer.at] for answer in self.answers],
        }

    @classmethod
    def load(cls, place: Place) -> Node:
        enabled = load_choices(place.field("enabled"))
        current = load_process(place.field("current"))
        to_try = set(place.field("to_try").integers())
        if current not in enabled or not to_try <= set(enabled):
            raise place.error("a process that is not enabled is to be tried")
        return cls(
            enabled,
            load_by_process(place.field("sleep")),
            current,
            to_try,
            load_by_process(place.field("tried")),
            load_footprint(place.field("footprint")),
            [AnswerBranch.load(row) for row in place.field("answers").items()],
            bool(place.field("in_loop").integer(0, 1)),
        )
