"""Several processes find what one does."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from exploring import ALL, keys, setup_of
from user_files import written

from hvolab.explore.budget import Budget
from hvolab.explore.explorer import explore
from hvolab.explore.parallel import explore_with_jobs
from hvolab.explore.reduce.dpor import Reduced
from hvolab.load.user_file import load
from hvolab.subject.blame import LoadError


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
def test_several_processes_find_what_one_does(name: str, jobs: int) -> None:
    setup = setup_of(name)
    one = explore(setup, Reduced(), ALL, Budget())
    more = explore_with_jobs(setup, ALL, Budget(), jobs)
    assert keys(more) == keys(one)
    assert more.coverage.stopped_by is None
    assert more.coverage.schedules >= one.coverage.schedules  # each process has states of its own
    assert more.coverage.distinct_states == one.coverage.distinct_states


def test_several_processes_stop_when_the_time_is_up() -> None:
    begun = time.monotonic()
    done = explore_with_jobs(setup_of("spurious-write"), ALL, Budget(seconds=1.5), 2)
    assert done.coverage.stopped_by == "the budget of 1.5 s"
    assert time.monotonic() - begun < 60


LATE = """
from hvolab.api import *

async def stores(kernel, huge):
    for n in range(6):
        await Store(HUGE_PAGE.folio + 8 * n, 1)

async def raises_late(kernel, huge):
    seen = 0
    for n in range(6):
        seen += await Load(HUGE_PAGE.folio + 8 * n) == 1
    if seen == 3:
        raise ValueError("three of them")

S = scenario("late", [kernel(0, stores), kernel(1, raises_late), kernel(2, stores)], huge_page=HUGE_PAGE)
"""


def test_what_a_users_file_does_wrong_in_a_worker_is_told_as_in_one_process(tmp_path: Path) -> None:
    found = load(str(written(tmp_path, LATE)))
    setup = found.judged(found.scenarios[0].build(3))
    said = r"^mine.py:13, in raises_late: ValueError: three of them$"
    with pytest.raises(LoadError, match=said):
        explore(setup, Reduced(), ALL, Budget())
    with pytest.raises(LoadError, match=said):
        explore_with_jobs(setup, ALL, Budget(), 2)
