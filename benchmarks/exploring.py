"""How fast each strategy goes through the schedules of the two-CPU optimize-against-reader scenario."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from rich.console import Console
from rich.table import Table

from emu.choice import Defaults
from emu.paging.models import LAZY
from hvolab.catalog import scenario
from hvolab.explore.budget import Budget
from hvolab.explore.explorer import explore
from hvolab.explore.reduce.dpor import Reduced
from hvolab.explore.search.bounds import Delays, Preemptions
from hvolab.explore.search.depth_first import Deepening, everything
from hvolab.explore.search.interface import Freedom, Strategy
from hvolab.explore.search.randomly import Pct, Uniform, UniformWalk
from hvolab.subject.scenario import Setup, start_actors
from kernel_model.boot import boot

SCENARIO = "optimize-reader"
FREEDOMS = frozenset({Freedom.SCHEDULE, Freedom.IRQ, Freedom.TLB})
RUNS = 80
STRATEGIES: tuple[tuple[str, Callable[[], Strategy]], ...] = (
    ("exhaustive, reduced", Reduced),
    ("unreduced", everything),
    ("bounded, 1 preemption", lambda: Deepening(Preemptions(1))),
    ("delays, 2", lambda: Deepening(Delays(2))),
    ("PCT, d = 3", lambda: Pct(1, RUNS, 3)),
    ("uniform walk", lambda: UniformWalk(1, RUNS)),
    ("uniform", lambda: Uniform(1, RUNS)),
)


def show(console: Console) -> None:
    """A row for each search; the ratio is to the same steps with nobody looking on."""
    setup = scenario(SCENARIO).build(2)
    setup = replace(setup, boot=replace(setup.boot, model=LAZY))
    table = Table(title=f"exploring {SCENARIO}, {RUNS} schedules", title_justify="left")
    table.add_column("search")
    for column in ("schedules /s", "steps /s", "ratio to bare steps"):
        table.add_column(column, justify="right")
    for name, strategy in STRATEGIES:
        bare = _bare_steps(setup)
        begun = time.perf_counter()
        coverage = explore(setup, strategy(), FREEDOMS, Budget(runs=RUNS)).coverage
        seconds = time.perf_counter() - begun
        runs = coverage.schedules + coverage.redundant + coverage.learning
        steps = coverage.steps / seconds
        table.add_row(name, f"{runs / seconds:.1f}", f"{steps:,.0f}", f"{steps / bare:.2f}")
    console.print(table)


def _bare_steps(setup: Setup) -> float:
    """Steps a second of the same programs in order, resets included, no monitor and no search."""
    system = boot(setup.boot)
    answerer, steps = Defaults(), 0
    begun = time.perf_counter()
    for _ in range(20):
        start_actors(setup, system)
        while enabled := system.machine.enabled():
            system.machine.perform(enabled[0], answerer)
        steps += system.machine.steps
        system.reset()
    return steps / (time.perf_counter() - begun)
