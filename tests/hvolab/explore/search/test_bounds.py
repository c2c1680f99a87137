"""Bounds: what each option costs, and the interleavings within a bound, counted by hand."""

from __future__ import annotations

import pytest
from small_schedules import ALL, setup_of

from emu.choice import Step
from hvolab.explore.budget import Budget
from hvolab.explore.explorer import explore
from hvolab.explore.search.bounds import Bound, Delays, Preemptions, Unbounded
from hvolab.explore.search.depth_first import DepthFirst
from hvolab.explore.search.interface import AnswerPoint, Point, SchedulePoint


@pytest.mark.parametrize(
    ("bound", "steps", "count"),
    [
        # aabb abab abba baab baba bbaa
        (Unbounded(), (2, 2), 6),
        # No preemption: aabb bbaa. One: abba baab. Two: abab baba.
        (Preemptions(0), (2, 2), 2),
        (Preemptions(1), (2, 2), 4),
        (Preemptions(2), (2, 2), 6),
        # No delay: aabb. One, at each of the two points of a where b waits: bbaa abba; after b, round robin
        # gives the turn back to a only when b has ended. Two: baab abab.
        (Delays(0), (2, 2), 1),
        (Delays(1), (2, 2), 3),
        # 4! / (2! 1! 1!): aabc and the other 11
        (Unbounded(), (2, 1, 1), 12),
        (Unbounded(), (3, 2), 10),
        (Unbounded(), (1, 1, 1), 6),
        (Delays(0), (1, 1, 1), 1),
    ],
)
def test_interleavings_counted_by_hand(bound: Bound, steps: tuple[int, ...], count: int) -> None:
    done = explore(setup_of(*steps), DepthFirst(bound), ALL, Budget(runs=500))
    assert done.coverage.schedules == count
    assert done.coverage.stopped_by is None
    assert done.coverage.longest == sum(steps)
    assert done.coverage.distinct_schedules == count


# --- what an option costs -------------------------------------------------------------------------------

A, B, C = Step(0), Step(1), Step(2)


@pytest.mark.parametrize(
    ("point", "costs"),
    [
        (SchedulePoint((A, B, C), 1), {1: 0, 0: 1, 2: 1}),
        (SchedulePoint((A, B, C), None), {0: 0, 1: 0, 2: 0}),
        (AnswerPoint(2), {0: 0, 1: 0}),
    ],
    ids=["one could go on", "nobody could go on", "an answer"],
)
def test_a_preemption_is_to_take_the_turn_from_who_could_go_on(point: Point, costs: dict[int, int]) -> None:
    assert list(Preemptions(1).costs(point, 0).items()) == list(costs.items()), "the cheapest first"


@pytest.mark.parametrize(
    ("point", "last", "costs"),
    [
        (SchedulePoint((A, B, C), 1), 1, {1: 0, 2: 1, 0: 2}),
        (SchedulePoint((A, C), None), 1, {1: 0, 0: 1}),
        (SchedulePoint((A, B), None), 2, {0: 0, 1: 1}),
        (SchedulePoint((A, B), None), -1, {0: 0, 1: 1}),
        (AnswerPoint(2), 1, {0: 0, 1: 0}),
    ],
    ids=["the running one", "the next after the last", "round to the first", "at the start", "an answer"],
)
def test_a_delay_skips_the_one_whose_turn_it_is(point: Point, last: int, costs: dict[int, int]) -> None:
    assert list(Delays(1).costs(point, last).items()) == list(costs.items()), "the cheapest first"


def test_without_a_bound_everything_is_free_and_the_running_one_comes_first() -> None:
    assert list(Unbounded().costs(SchedulePoint((A, B, C), 1), 0).items()) == [(1, 0), (0, 0), (2, 0)]


def test_a_bound_says_what_it_is() -> None:
    said = [str(bound) for bound in (Preemptions(0), Preemptions(1), Delays(1), Delays(2), Unbounded())]
    assert said == [
        "bounded by 0 preemptions",
        "bounded by 1 preemption",
        "bounded by 1 delay",
        "bounded by 2 delays",
        "exhaustive",
    ]
