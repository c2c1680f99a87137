"""The explorer: run after run on one machine, until the search or the budget ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from hvolab.explore.budget import Budget
from hvolab.explore.coverage import Coverage, Tally
from hvolab.explore.depth_first import DepthFirst
from hvolab.explore.search import Freedom, Next, Redundant, Search
from hvolab.fingerprint import stamped
from hvolab.run import Run, run_on
from hvolab.scenario import Setup
from hvolab.schedule import Schedule
from hvolab.verdict import Finding, Verdict, Where
from kernel_model.boot import System, boot


@dataclass(frozen=True, slots=True)
class Found:
    """A finding and the first run that had it, counted from 1."""

    finding: Finding
    schedule: Schedule
    at_run: int


@dataclass(frozen=True, slots=True)
class Exploration:
    """The findings, each kind once, in the order they were found."""

    coverage: Coverage
    found: tuple[Found, ...]


Progress = Callable[[int, int], None]


def explore(
    setup: Setup,
    search: Search,
    freedoms: frozenset[Freedom],
    budget: Budget,
    progress: Progress = lambda _runs, _found: None,
) -> Exploration:
    """Explore `setup`. `progress` is told after every run how many there were and how much was found.

    KeyboardInterrupt ends it like a budget does: what was found is kept. Raises what the search raises when
    it cannot explore the setup (CannotReduce).
    """
    system = boot(setup.boot)
    found: dict[tuple[Verdict, Where], Found] = {}
    tally = Tally()
    begun = time.monotonic()
    stopped_by: str | None = None
    try:
        while stopped_by is None and search.begin():
            done, following = _one_run(system, setup, search, freedoms, budget, tally)
            if done is not None:
                _note(done, tally.runs, found)
            if following is Next.START_AGAIN:
                tally.learned()
            progress(tally.runs, len(found))
            stopped_by = budget.spent(tally.runs, time.monotonic() - begun)
    except KeyboardInterrupt:
        stopped_by = "an interrupt"
    coverage = tally.coverage(
        search.extent(), freedoms, setup.boot.cpus, time.monotonic() - begun, stopped_by
    )
    kept = [replace(one, schedule=stamped(one.schedule, setup)) for one in found.values()]
    return Exploration(coverage, tuple(kept))


def explore_deepening(
    setup: Setup,
    preemptions: int,
    freedoms: frozenset[Freedom],
    budget: Budget,
    progress: Progress = lambda _runs, _found: None,
) -> Exploration:
    """Depth first with 0 preemptions, then 1, and so on: what needs the fewest is found first.

    The coverage is that of the last depth begun; its runs and time are those of all. The budget is for all.
    """
    found: dict[tuple[Verdict, Where], Found] = {}
    runs, begun = 0, time.monotonic()
    for bound in range(preemptions + 1):
        left = Budget(
            None if budget.runs is None else budget.runs - runs,
            None if budget.seconds is None else budget.seconds - (time.monotonic() - begun),
            budget.steps,
        )
        done = explore(setup, DepthFirst(bound), freedoms, left, progress)
        for one in done.found:
            key = (one.finding.verdict, one.finding.where)
            found.setdefault(key, replace(one, at_run=runs + one.at_run))
        runs += done.coverage.schedules
        if done.coverage.stopped_by is not None:
            break
    coverage = replace(done.coverage, schedules=runs, seconds=time.monotonic() - begun)
    return Exploration(coverage, tuple(found.values()))


def _one_run(
    system: System,
    setup: Setup,
    search: Search,
    freedoms: frozenset[Freedom],
    budget: Budget,
    tally: Tally,
) -> tuple[Run | None, Next]:
    """The next run, on a machine at time zero that is put back there; None for a redundant one."""
    done: Run | None = None
    try:
        done = run_on(system, setup, lambda system: search.strategy(system, freedoms), (), budget.steps)
        tally.completed(done)
    except Redundant:
        tally.given_up(system.machine.steps)
    following = search.end(system)
    system.reset()
    return done, following


def _note(done: Run, number: int, found: dict[tuple[Verdict, Where], Found]) -> None:
    for finding in done.findings:
        found.setdefault((finding.verdict, finding.where), Found(finding, done.schedule, number))
