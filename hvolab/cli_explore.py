"""`hvolab explore`: many schedules of one scenario, and what they found."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import assert_never

import click
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from emu.machine import MOST_CPUS
from emu.models import LAZY
from hvolab.catalog import scenario
from hvolab.cli_common import MODEL_NAMES, cpu_count, repeated, with_failures, with_guest, with_model
from hvolab.explore.budget import Budget
from hvolab.explore.depth_first import everything
from hvolab.explore.explorer import Exploration, explore, explore_deepening
from hvolab.explore.explorer import Progress as Told
from hvolab.explore.randomly import Pct, Uniform
from hvolab.explore.search import Freedom
from hvolab.json_output import explore_json
from hvolab.report import Invocation, show_exploration
from hvolab.scenario import Setup
from hvolab.verdict import Verdict


class StrategyName(Enum):
    """The strategies by the names of the option."""

    BOUNDED = "bounded"
    EXHAUSTIVE = "exhaustive"
    PCT = "pct"
    UNIFORM = "uniform"


@dataclass(frozen=True, slots=True)
class Plan:
    """How to explore."""

    strategy: StrategyName
    preemptions: int
    depth: int
    runs: int
    seed: int
    freedoms: frozenset[Freedom]
    budget: Budget


@click.command(
    name="explore",
    short_help="Run many schedules of one scenario.",
    help="""\b
Example:  hvolab explore use-after-free
          hvolab explore stale-read --strategy pct --runs 1000

Let the scenario's actors run in many orders, its script aside, on CPUs that may
use any translation the architecture allows. Exit status 1 says that a violation
was found; the last line says what was covered.""",
)
@click.argument("name")
@click.option("--cpus", type=click.IntRange(1, MOST_CPUS), help="Number of CPUs.")
@click.option("--cpu-model", type=click.Choice(MODEL_NAMES), default=LAZY.name, show_default=True)
@click.option("--program", type=click.Path(path_type=Path), help="Assembly source to run as guest program.")
@click.option(
    "--strategy",
    type=click.Choice([strategy.value for strategy in StrategyName]),
    default=StrategyName.BOUNDED.value,
    show_default=True,
)
@click.option("--preemptions", type=click.IntRange(0), default=1, show_default=True, help="bounded: the k.")
@click.option("--depth", type=click.IntRange(1), default=3, show_default=True, help="pct: the depth d.")
@click.option("--runs", type=click.IntRange(1), help="At most so many runs (pct, uniform: 1000).")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), default=60.0, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="pct, uniform.")
@click.option(
    "--nondet",
    default="schedule,irq,tlb",
    show_default=True,
    help="What may be chosen: any of schedule, irq, tlb, alloc.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON (docs/json.md).")
def explore_command(
    name: str,
    cpus: int | None,
    cpu_model: str,
    program: Path | None,
    strategy: str,
    preemptions: int,
    depth: int,
    runs: int | None,
    seconds: float,
    seed: int,
    nondet: str,
    as_json: bool,  # noqa: FBT001
) -> int:
    chosen = scenario(name)
    count = cpu_count(chosen, cpus)
    freedoms = _freedoms(nondet)
    failures = "any" if Freedom.ALLOC in freedoms else None
    setup = with_failures(with_guest(with_model(chosen.build(count), cpu_model), program), failures)
    options = {"--cpu-model": cpu_model, "--program": program, "--failures": failures}
    invocation = Invocation(chosen, count, repeated(options))
    chosen_strategy = StrategyName(strategy)
    counts_runs = chosen_strategy in (StrategyName.PCT, StrategyName.UNIFORM)
    budget = Budget(None if counts_runs else runs, seconds)
    plan = Plan(chosen_strategy, preemptions, depth, runs or 1000, seed, freedoms, budget)
    if as_json:
        done = _explore(setup, plan, lambda _runs, _found: None)
        click.echo(json.dumps(explore_json(invocation, done), indent=1))
    else:
        console = Console()
        done = _with_progress(console, setup, plan)
        show_exploration(console, invocation, done)
    verdicts = {found.finding.verdict for found in done.found}
    if Verdict.MODEL_ERROR in verdicts:
        return 3
    return int(any(verdict.is_violation for verdict in verdicts))


def _freedoms(text: str) -> frozenset[Freedom]:
    known = {freedom.value: freedom for freedom in Freedom}
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if word not in known:
            raise click.BadParameter(f"{word!r} is not one of {', '.join(known)}", param_hint="--nondet")
    return frozenset(known[word] for word in words)


def _explore(setup: Setup, plan: Plan, told: Told) -> Exploration:
    match plan.strategy:
        case StrategyName.BOUNDED:
            return explore_deepening(setup, plan.preemptions, plan.freedoms, plan.budget, told)
        case StrategyName.EXHAUSTIVE:
            return explore(setup, everything(), plan.freedoms, plan.budget, told)
        case StrategyName.PCT:
            return explore(setup, Pct(plan.seed, plan.runs, plan.depth), plan.freedoms, plan.budget, told)
        case StrategyName.UNIFORM:
            return explore(setup, Uniform(plan.seed, plan.runs), plan.freedoms, plan.budget, told)
        case _:
            assert_never(plan.strategy)


def _with_progress(console: Console, setup: Setup, plan: Plan) -> Exploration:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("exploring")

        def told(runs: int, found: int) -> None:
            progress.update(task, description=f"{runs} schedules, {found} findings")

        return _explore(setup, plan, told)
