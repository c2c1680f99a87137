"""`hvolab explore`: many schedules of one scenario, or of all that a patch touches, and what they found."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import click
from rich.console import Console

from hvolab.command.exploring.every import explore_every
from hvolab.command.exploring.plan import (
    RANDOM,
    RUNS,
    ExplorePlan,
    StrategyName,
    carry_out,
    check,
    freedoms_of,
)
from hvolab.command.exploring.telling import Quiet, Stops, as_found, at_once, retold, watched
from hvolab.command.options import asked, cpu_count, scenario_called, shaped_on_lazy_cpus, subject_options
from hvolab.command.status import status_of_exploration
from hvolab.explore.budget import Budget
from hvolab.explore.checkpoint import CheckpointError
from hvolab.explore.explorer import Exploration
from hvolab.explore.reduce.dpor import CannotReduce
from hvolab.explore.search.interface import Freedom
from hvolab.show.json_output import explore_json
from hvolab.show.report import Invocation, show_exploration
from hvolab.subject.scenario import Setup


@click.command(
    name="explore",
    help="""\b
Example:  hvolab explore use-after-free
          hvolab explore stale-read --strategy pct --runs 1000
          hvolab explore --all --load mine.py:Patch

Let the scenario's actors run in every order that can matter, its script aside,
on CPUs that may use any translation the architecture allows. Each finding is
shrunk to the shortest schedule that still shows it. Exit status 1 says that a
violation was found; the last line says what was covered.

\b
exhaustive  every order that can matter (partial-order reduction)
unreduced   every order, also those nobody can tell apart
bounded     at most --bound preemptions      delays   at most --bound delays
pct         random priorities, --depth       walk     uniform over schedules
uniform     each CPU as likely (a baseline)  portfolio  several in turn""",
)
@click.argument("name", required=False)
@subject_options
@click.option(
    "--strategy",
    type=click.Choice([strategy.value for strategy in StrategyName]),
    default=StrategyName.EXHAUSTIVE.value,
    show_default=True,
)
@click.option("--bound", type=click.IntRange(0), default=1, show_default=True, help="bounded, delays.")
@click.option("--depth", type=click.IntRange(1), default=3, show_default=True, help="pct, portfolio.")
@click.option("--runs", type=click.IntRange(1), help="At most so many runs (pct, walk, uniform: 1000).")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), default=60.0, show_default=True)
@click.option(
    "--steps",
    type=click.IntRange(1),
    default=Budget().steps,
    show_default=True,
    help="A run is cut off after so many.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="pct, walk, uniform.")
@click.option("--jobs", type=click.IntRange(1, 64), default=1, show_default=True, help="exhaustive.")
@click.option(
    "--memory",
    type=click.IntRange(0),
    default=1024,
    show_default=True,
    help="MiB for states seen and steps known. 0: none.",
)
@click.option(
    "--nondet",
    default="schedule,irq,tlb",
    show_default=True,
    help="What may be chosen: any of schedule, irq, tlb, alloc.",
)
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Keep the state in this file, and go on from it if it is there.",
)
@click.option("--first", is_flag=True, help="Stop at the first violation, and tell it at once.")
@click.option("--all", "every", is_flag=True, help="Every scenario that meets what --load changes.")
@click.option("--only", metavar="NAMES", help="--all: these of them, by name, with commas.")
@click.option(
    "--junit",
    type=click.Path(path_type=Path, dir_okay=False),
    help="--all: write the table there, as JUnit XML.",
)
@click.option(
    "--no-shrink",
    is_flag=True,
    help="Print the schedules as they were found; else they are shrunk, for half a minute at most.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON (docs/json.md).")
def explore_command(
    name: str | None,
    strategy: str,
    bound: int,
    depth: int,
    runs: int | None,
    seconds: float,
    steps: int,
    seed: int,
    jobs: int,
    memory: int,
    nondet: str,
    checkpoint: Path | None,
    first: bool,  # noqa: FBT001
    every: bool,  # noqa: FBT001
    only: str | None,
    junit: Path | None,
    no_shrink: bool,  # noqa: FBT001
    as_json: bool,  # noqa: FBT001
) -> int:
    wanted = asked()
    freedoms = freedoms_of(nondet)
    if Freedom.ALLOC in freedoms and wanted.chosen.failures is None:
        wanted = replace(wanted, chosen=replace(wanted.chosen, failures="any"))
    strategy_name = StrategyName(strategy)
    budget = Budget(None if strategy_name in RANDOM else runs, seconds, steps)
    plan = ExplorePlan(
        strategy_name, bound, depth, runs or RUNS, seed, jobs, memory, freedoms, budget, checkpoint
    )
    check(plan)
    stops = Stops(first)
    if every:
        if name is not None:
            raise click.UsageError(f"--all explores every scenario: leave {name} out, or name it with --only")
        if as_json or first or no_shrink or checkpoint is not None:
            raise click.UsageError(
                "--json, --first, --no-shrink and --checkpoint are for one scenario, not --all"
            )
        return explore_every(wanted, plan, only, junit)
    if name is None:
        raise click.UsageError("Missing argument 'NAME': a scenario, or --all")
    if only is not None or junit is not None:
        raise click.UsageError("--only and --junit go with --all")
    chosen = scenario_called(name, wanted.loaded)
    count = cpu_count(chosen, wanted.cpus)
    setup, wanted = shaped_on_lazy_cpus(chosen, count, wanted)
    invocation = Invocation(chosen, count, wanted.words())
    finish = at_once if first else as_found if no_shrink else retold
    try:
        if as_json:
            done = finish(setup, carry_out(setup, plan, Quiet(stops)))
            click.echo(json.dumps(explore_json(invocation, done), indent=1))
        else:
            done = finish(setup, _watched(setup, plan, stops))
            show_exploration(Console(), invocation, done)
    except CannotReduce as error:
        raise click.UsageError(f"{error}: use --strategy unreduced, or another") from None
    except CheckpointError as error:
        raise click.UsageError(str(error)) from None
    return status_of_exploration(done)


def _watched(setup: Setup, plan: ExplorePlan, stops: Stops) -> Exploration:
    most_runs = plan.runs if plan.strategy in RANDOM else plan.budget.runs
    with watched(stops, most_runs) as audience:
        return carry_out(setup, plan, audience)
