"""A routine's next op depends on nothing but its beginning and the results of its ops: in every scenario.

Every run is made by the routines themselves beside what is known of them, and any difference is an error.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from large_runs import LARGE_RUNS

from emu.cpu.recall import Recall
from emu.paging.models import LAZY
from hvolab.catalog import SCENARIOS, scenario
from hvolab.explore.search.interface import Freedom
from hvolab.explore.search.randomly import UniformWalk
from hvolab.subject.axes import deviating
from hvolab.subject.run import run_watched
from hvolab.subject.scenario import Setup
from kernel_model.boot import boot

NAMES = [chosen.name for chosen in SCENARIOS if chosen.name not in LARGE_RUNS]


def nodes_after(setup: Setup, runs: int) -> tuple[int, int]:
    """(routine steps made, histories known) after so many random runs, each checked."""
    system, recall, steps = boot(setup.boot), Recall(), 0
    recall.checking = True
    system.machine.routines = recall
    walk = UniformWalk(1, runs)
    while walk.begin():
        run_watched(system, setup, lambda system, sight: walk.picker(system, sight, frozenset(Freedom)))
        walk.end(system)
        steps += system.machine.steps - system.machine.guest_steps
        system.reset()
    return steps, recall.nodes


def lazy(name: str) -> Setup:
    chosen = scenario(name)
    setup = chosen.build(max(2, chosen.cpus_min))
    return replace(setup, boot=replace(setup.boot, model=LAZY))


@pytest.mark.parametrize("name", NAMES)
def test_after_the_same_results_every_routine_asks_for_the_same(name: str) -> None:
    steps, known = nodes_after(lazy(name), 3)
    assert 0 < known < 2 * steps


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_after_the_same_results_every_routine_asks_for_the_same_at_length(name: str) -> None:
    for bug in (None, *scenario(name).bugs):
        setup = lazy(name)
        if bug is not None:
            setup = replace(setup, boot=deviating(setup.boot, bug.deviation))
        steps, known = nodes_after(setup, 60)
        assert 0 < known < steps
