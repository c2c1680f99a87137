"""A leap under way: which step is next, which of them are made at once, and what is left of one cut short."""

from __future__ import annotations

from emu.choice import Step
from emu.cpu.recall import HistoryNode
from emu.cpu.repeat import Repeated
from hvolab.explore.footprint.conflict import NOTHING
from hvolab.explore.stretches.leaps import Leap, UnderWay
from hvolab.explore.stretches.lives import KnownStep, Life, quiet_among

QUIET = Repeated(1, 1, (), (), 0, HistoryNode())


def step(number: int, does: Repeated | None = None) -> KnownStep:
    footprint = NOTHING._replace(writes=frozenset({number}))
    return KnownStep(0, frozenset(), footprint, {}, Life(), does, transacts=False)


STEPS = (step(1, QUIET), step(2, QUIET), step(3), step(4, QUIET))
LEAP = Leap(STEPS, NOTHING, quiet_among(STEPS), {0: Step(0)})


def test_quiet_steps_in_a_row_are_made_at_once() -> None:
    rows = {start: (row.does.steps, row.after) for start, row in quiet_among(STEPS).items()}
    assert rows == {0: (2, STEPS[1].after), 3: (1, STEPS[3].after)}


def test_a_leap_goes_from_step_to_step_and_over_quiet_ones() -> None:
    way = UnderWay()
    assert way.step is None
    way.begin(LEAP)
    seen = []
    while way.step is not None:
        quiet = way.quiet
        seen.append((way.steps_made, way.step, quiet is not None))
        way.made(1 if quiet is None else quiet.does.steps)
    assert seen == [(0, STEPS[0], True), (2, STEPS[2], False), (3, STEPS[3], True)]


def test_in_the_middle_of_quiet_steps_they_are_made_one_by_one() -> None:
    way = UnderWay()
    way.begin(LEAP, made=1)
    assert (way.step, way.quiet) == (STEPS[1], None)
    way.begin(LEAP, made=4)
    assert way.step is None
    way.begin(None)
    assert way.step is None


def test_a_part_of_a_leap_touches_what_its_steps_do() -> None:
    part = LEAP.part(1, 3)
    assert part is not None
    assert (part.steps, part.enabled) == (STEPS[1:3], LEAP.enabled)
    assert part.touched.writes == {2, 3}
    assert list(part.quiet) == [0]
    assert LEAP.part(2, 2) is None
