"""Several processes find what one does."""

from __future__ import annotations

import time

import pytest
from exploring import ALL, keys, setup_of

from hvolab.explore.budget import Budget
from hvolab.explore.explorer import explore
from hvolab.explore.parallel import explore_with_jobs
from hvolab.explore.reduce.dpor import Reduced


@pytest.mark.parametrize(
    ("name", "jobs"),
    [
        ("stale-read", 2),
        ("stale-read", 3),
        ("use-after-free", 2),
        pytest.param("missed-cpu", 2, marks=pytest.mark.slow),
        pytest.param("missed-cpu", 3, marks=pytest.mark.slow),
    ],
)
def test_several_processes_find_and_count_what_one_does(name: str, jobs: int) -> None:
    setup = setup_of(name)
    one = explore(setup, Reduced(), ALL, Budget())
    more = explore_with_jobs(setup, ALL, Budget(), jobs)
    assert keys(more) == keys(one)
    assert more.coverage.stopped_by is None
    assert more.coverage.schedules == one.coverage.schedules
    assert more.coverage.distinct_schedules == one.coverage.distinct_schedules
    assert more.coverage.distinct_states == one.coverage.distinct_states


def test_several_processes_stop_when_the_time_is_up() -> None:
    begun = time.monotonic()
    done = explore_with_jobs(setup_of("spurious-write"), ALL, Budget(seconds=1.5), 2)
    assert done.coverage.stopped_by == "the budget of 1.5 s"
    assert time.monotonic() - begun < 60
