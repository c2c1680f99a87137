"""Points of a run, and how much there is to choose."""

from __future__ import annotations

from emu.choice import Step
from hvolab.explore.search.interface import AnswerPoint, SchedulePoint, size


def test_the_size_of_a_point_is_the_number_of_its_options() -> None:
    assert size(SchedulePoint((Step(0), Step(1), Step(4)), None)) == 3
    assert size(AnswerPoint(5)) == 5
