"""A run that goes back, and on from there, shows an exploration what one from time zero shows."""

from __future__ import annotations

import pytest
from exploring import ALL, setup_of
from hypothesis import given, settings
from hypothesis import strategies as st
from small_catalog import all_small
from small_programs import KINDS, MODELS, setup_from

import hvolab.subject.run
from emu.cpu.recall import Recall
from emu.paging.models import CpuModel
from hvolab.explore.budget import Budget
from hvolab.explore.explorer import explore
from hvolab.explore.reduce.dpor import Reduced
from hvolab.explore.search.interface import Freedom
from hvolab.explore.states.visits import EVERY_STATE
from hvolab.subject.outcome import NO_LIMITS
from hvolab.subject.picker import InOrder
from hvolab.subject.run import Running
from hvolab.subject.scenario import Setup
from kernel_model.boot import boot


def seen(setup: Setup, runs: int = 400) -> tuple[object, ...]:
    """Everything that an exploration tells, but for the time."""
    done = explore(setup, Reduced(remembers=EVERY_STATE), frozenset(Freedom), Budget(runs=runs))
    told = done.coverage
    counts = (told.schedules, told.redundant, told.learning, told.steps, told.longest, told.deadlocks)
    found = [(one.finding, str(one.schedule), one.at_run) for one in done.found]
    return (*counts, told.distinct_schedules, told.distinct_states, found, done.warnings)


def both_ways(setup: Setup, apart: int, monkeypatch: pytest.MonkeyPatch) -> tuple[object, object]:
    """Going back to places so many steps apart, and each run from time zero."""
    with monkeypatch.context() as patched:
        patched.setattr(hvolab.subject.run, "_STEPS_A_PLACE", apart)
        back = seen(setup)
        patched.setattr(Running, "back", lambda _self, _steps: False)
        return back, seen(setup)


SMALL = all_small()


@pytest.mark.parametrize("apart", [1, pytest.param(5, marks=pytest.mark.slow)])
@pytest.mark.parametrize("small", SMALL, ids=[small.name for small in SMALL])
def test_small_programs_show_the_same(small: object, apart: int, monkeypatch: pytest.MonkeyPatch) -> None:
    back, again = both_ways(small.setup, apart, monkeypatch)  # type: ignore[attr-defined]
    assert back == again


@pytest.mark.parametrize("name", ["tail-write", "lost-update"])
def test_scenarios_show_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    back, again = both_ways(setup_of(name), 16, monkeypatch)
    assert back == again


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["missed-cpu", "restore-reader", "optimize-kpageflags", "demote-shrink", "second-error"]
)
def test_scenarios_show_the_same_at_length(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    back, again = both_ways(setup_of(name), 64, monkeypatch)
    assert back == again


def test_of_a_long_run_few_places_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = setup_of("tail-write")
    plain = both_ways(setup, 1000, monkeypatch)[1]
    monkeypatch.setattr(hvolab.subject.run, "_STEPS_A_PLACE", 2)
    monkeypatch.setattr(hvolab.subject.run, "_MOST_PLACES", 8)
    assert seen(setup) == plain
    system, search = boot(setup.boot), Reduced()
    system.machine.routines = Recall()
    assert search.begin()
    running = Running(system, setup, lambda system, sight: search.picker(system, sight, ALL))
    running.go(NO_LIMITS)
    places = []
    while running.back((places[-1] if places else system.machine.steps) - 1):
        places.append(system.machine.steps)
    assert len(places) <= 8
    assert places[-1] == 0


def test_a_run_whose_picker_cannot_go_back_does_not() -> None:
    setup = setup_of("tail-write")
    running = Running(boot(setup.boot), setup, lambda _system, _sight: InOrder())
    running.go(NO_LIMITS)
    assert not running.back(100)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(program=st.lists(st.lists(st.integers(0, KINDS - 1), min_size=1, max_size=3), min_size=2, max_size=3))
def test_random_programs_show_the_same(model: CpuModel, program: list[list[int]]) -> None:
    for apart in (1, 16):
        with pytest.MonkeyPatch.context() as patched:
            back, again = both_ways(setup_from(program, model), apart, patched)
        assert back == again
