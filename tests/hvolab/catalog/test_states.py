"""With states seen or without, an exploration of a scenario of the catalogue shows the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
from exploring import ALL, keys
from large_runs import LARGE_RUNS

from emu.paging.models import LAZY, LAZY_SINGLE
from hvolab.catalog import SCENARIOS, scenario
from hvolab.explore.budget import Budget
from hvolab.explore.explorer import Exploration, explore
from hvolab.explore.reduce.dpor import Reduced
from hvolab.explore.states.visits import EVERY_STATE, NO_STATES, Remembers
from hvolab.subject.axes import deviating
from hvolab.subject.scenario import Setup

SMALL = ("stale-read", "tail-write", "lost-update", "spurious-write", "use-after-free")
# The kernel by itself (-1), and with each of its bugs.
CASES = [
    (chosen.name, number)
    for chosen in SCENARIOS
    if chosen.name not in LARGE_RUNS
    for number in range(-1, len(chosen.bugs))
]
MOST_RUNS = 1000


def built(name: str, number: int) -> Setup:
    """On lazy CPUs, unless the bug is one of a CPU."""
    chosen = scenario(name)
    setup = chosen.build(max(2, chosen.cpus_min))
    boot = replace(setup.boot, model=LAZY)
    if number >= 0:
        boot = deviating(boot, chosen.bugs[number].deviation)
    return replace(setup, script=(), boot=boot)


def shown(done: Exploration) -> tuple[object, ...]:
    return keys(done), done.warnings, done.coverage.distinct_states


def same(setup: Setup, remembers: Remembers) -> bool | None:
    """Whether both show the same; None where the one without states does not end in so many runs.

    Then what it has shown by then must be among what the other shows, where that ends.
    """
    without = explore(setup, Reduced(NO_STATES), ALL, Budget(runs=MOST_RUNS))
    done = explore(setup, Reduced(remembers), ALL, Budget(runs=2 * MOST_RUNS))
    if without.coverage.complete:
        return done.coverage.complete and shown(done) == shown(without)
    assert not done.coverage.complete or keys(without) <= keys(done)
    return None


@pytest.mark.parametrize("name", SMALL)
def test_states_change_nothing_that_is_shown(name: str) -> None:
    assert same(built(name, -1), EVERY_STATE)


@pytest.mark.parametrize("name", ["stale-read", "tail-write"])
def test_nor_do_they_where_a_cpu_has_one_entry_a_page(name: str) -> None:
    setup = built(name, -1)
    assert same(replace(setup, boot=replace(setup.boot, model=LAZY_SINGLE)), EVERY_STATE)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "number"), CASES)
def test_states_change_nothing_that_is_shown_anywhere_in_the_catalogue(name: str, number: int) -> None:
    assert same(built(name, number), Remembers()) is not False
