"""What a search is asked, and what is settled without it."""

from __future__ import annotations

import pytest
from small_searches import Listed

from emu.choice import DecideQuestion, Question, Step, TakeInterrupt
from hvolab.explore.search.interface import AnswerPoint, Freedom, SchedulePoint

A, B, I0, I1 = Step(0), Step(1), TakeInterrupt(0), TakeInterrupt(1)
EVERY = frozenset(Freedom)


def without(freedom: Freedom) -> frozenset[Freedom]:
    return EVERY - {freedom}


def test_a_search_is_asked_where_there_is_something_to_choose_and_told_of_every_step() -> None:
    search = Listed("x", 1, option=1)
    guide = search.guide(EVERY)
    assert [guide.pick([A]), guide.pick([A, B]), guide.pick([B]), guide.pick([A, B])] == [A, B, B, B]
    assert search.asked == [SchedulePoint((A, B), 0), SchedulePoint((A, B), 1)]
    assert search.stepped_by == [0, 1, 1, 1]


def test_who_ran_last_and_cannot_go_on_runs_no_more() -> None:
    search = Listed("x", 1)
    guide = search.guide(EVERY)
    guide.pick([A])
    guide.pick([B, I1])
    assert search.asked == [SchedulePoint((B, I1), None)]


def test_interrupts_that_are_not_free_are_taken_at_once() -> None:
    search = Listed("x", 1)
    guide = search.guide(without(Freedom.IRQ))
    assert guide.pick([A, B, I1, I0]) == I1
    assert search.asked == []
    assert search.guide(EVERY).pick([A, I0]) == A


def test_a_schedule_that_is_not_free_goes_on_with_who_ran_or_the_first() -> None:
    search = Listed("x", 1, option=1)
    guide = search.guide(without(Freedom.SCHEDULE))
    assert [guide.pick([A, B]), guide.pick([B]), guide.pick([A, B])] == [A, B, B]
    assert search.asked == []


@pytest.mark.parametrize("option", [0, 1, 2])
def test_the_usual_answer_is_the_last_option_of_the_point(option: int) -> None:
    """A question whose default is its first option is turned round: the unusual come first."""
    search = Listed("x", 1, option=option)
    assert search.guide(EVERY).answer(question(3, default=0)) == [1, 2, 0][option]
    assert search.asked == [AnswerPoint(3)]


def test_an_answer_that_is_not_free_is_the_usual_one() -> None:
    search = Listed("x", 1, option=1)
    assert search.guide(without(Freedom.ALLOC)).answer(question(3, default=2)) == 2
    assert search.guide(EVERY).answer(question(1, default=0)) == 0
    assert search.asked == []


def question(options: int, default: int) -> Question:
    return DecideQuestion(0, "fails?", options, default)
