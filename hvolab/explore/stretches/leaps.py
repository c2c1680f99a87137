"""Leaps: private steps of one process in a run, one after the other, no scheduling point between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from emu.choice import Choice
from hvolab.explore.footprint.conflict import Footprint, all_of
from hvolab.explore.stretches.lives import KnownStep, QuietSteps, quiet_among


@dataclass(frozen=True, slots=True)
class Leap:
    """`touched`: by all its steps. `enabled`: what could happen, by process, all the while: what others wait
    for is not private.
    """

    steps: tuple[KnownStep, ...]
    touched: Footprint
    quiet: Mapping[int, QuietSteps]
    enabled: Mapping[int, Choice]

    def part(self, start: int, end: int) -> Leap | None:
        """The steps [start, end) of it; None if there are none."""
        if start == end:
            return None
        steps = self.steps[start:end]
        return Leap(steps, all_of(step.footprint for step in steps), quiet_among(steps), self.enabled)


class UnderWay:
    """The leap that a run is making. `step`: the one to be made now, or being made; None outside of leaps."""

    def __init__(self) -> None:
        self._steps: tuple[KnownStep, ...] = ()
        self._quiet: Mapping[int, QuietSteps] = {}
        self._made = 0
        self.step: KnownStep | None = None

    def begin(self, leap: Leap | None, made: int = 0) -> None:
        """So many of its steps have been made."""
        self._steps, self._quiet = ((), {}) if leap is None else (leap.steps, leap.quiet)
        self._made = made
        self.step = self._steps[made] if made < len(self._steps) else None

    @property
    def quiet(self) -> QuietSteps | None:
        """The quiet steps that begin with this one, if any do."""
        return self._quiet.get(self._made)

    @property
    def steps_made(self) -> int:
        return self._made

    def made(self, steps: int = 1) -> None:
        """So many have been."""
        self._made += steps
        self.step = self._steps[self._made] if self._made < len(self._steps) else None
