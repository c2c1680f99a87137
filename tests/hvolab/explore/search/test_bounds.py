"""Bounds: what each option costs, and the interleavings within a bound, counted by hand."""

from __future__ import annotations

import pytest
from small_schedules import ALL, setup_of

from hvolab.explore.budget import Budget
from hvolab.explore.explorer import explore
from hvolab.explore.search.bounds import Bound, Delays, Preemptions, Unbounded
from hvolab.explore.search.depth_first import DepthFirst


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
