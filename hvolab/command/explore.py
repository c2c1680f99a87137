"""`hvolab explore`: many schedules of one scenario, and what they found."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import assert_never

import click
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from emu.paging.models import LAZY
from hvolab.catalog import scenario
from hvolab.command.options import asked, cpu_count, shaped, subject_options
from hvolab.command.status import status_of_exploration
from hvolab.explore.budget import Budget
from hvolab.explore.checkpoint import Checkpoint, CheckpointError
from hvolab.explore.explorer import Exploration, Found, explore
from hvolab.explore.explorer import Progress as Told
from hvolab.explore.parallel import explore_with_jobs
from hvolab.explore.reduce.dpor import CannotReduce, Reduced
from hvolab.explore.retell.as_script import NoScript, as_script
from hvolab.explore.retell.shrink import shrink
from hvolab.explore.search.bounds import Delays, Preemptions
from hvolab.explore.search.depth_first import Deepening, everything
from hvolab.explore.search.interface import Freedom, Strategy
from hvolab.explore.search.portfolio import Portfolio
from hvolab.explore.search.randomly import Pct, Uniform, UniformWalk
from hvolab.show.json_output import explore_json
from hvolab.show.report import Invocation, show_exploration
from hvolab.subject.fingerprint import fingerprint, stamped
from hvolab.subject.scenario import Setup
from hvolab.subject.script import Script
from kernel_model.boot import System, boot


class StrategyName(Enum):
    """The strategies by the names of the option."""

    EXHAUSTIVE = "exhaustive"
    UNREDUCED = "unreduced"
    BOUNDED = "bounded"
    DELAYS = "delays"
    PCT = "pct"
    WALK = "walk"
    UNIFORM = "uniform"
    PORTFOLIO = "portfolio"


RANDOM = (StrategyName.PCT, StrategyName.WALK, StrategyName.UNIFORM)
RUNS = 1000  # of a random strategy, unless told otherwise


@dataclass(frozen=True, slots=True)
class ExplorePlan:
    """How to explore."""

    strategy: StrategyName
    bound: int
    depth: int
    runs: int
    seed: int
    jobs: int
    freedoms: frozenset[Freedom]
    budget: Budget
    checkpoint: Path | None


@click.command(
    name="explore",
    short_help="Run many schedules of one scenario.",
    help="""\b
Example:  hvolab explore use-after-free
          hvolab explore stale-read --strategy pct --runs 1000

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
@click.argument("name")
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
@click.option("--no-shrink", is_flag=True, help="Print the schedules as they were found.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON (docs/json.md).")
def explore_command(
    name: str,
    strategy: str,
    bound: int,
    depth: int,
    runs: int | None,
    seconds: float,
    steps: int,
    seed: int,
    jobs: int,
    nondet: str,
    checkpoint: Path | None,
    no_shrink: bool,  # noqa: FBT001
    as_json: bool,  # noqa: FBT001
) -> int:
    chosen, wanted = scenario(name), asked()
    count = cpu_count(chosen, wanted.cpus)
    freedoms = _freedoms(nondet)
    if Freedom.ALLOC in freedoms and wanted.chosen.failures is None:
        wanted = replace(wanted, chosen=replace(wanted.chosen, failures="any"))
    setup = shaped(chosen.build(count), wanted)
    if not setup.boot.model.is_lazy and wanted.chosen.cpu_model is None:
        wanted = replace(wanted, chosen=replace(wanted.chosen, cpu_model=LAZY.name))
        setup = shaped(chosen.build(count), wanted)
    invocation = Invocation(chosen, count, wanted.words())
    chosen_strategy = StrategyName(strategy)
    budget = Budget(None if chosen_strategy in RANDOM else runs, seconds, steps)
    plan = ExplorePlan(chosen_strategy, bound, depth, runs or RUNS, seed, jobs, freedoms, budget, checkpoint)
    _check(plan)
    try:
        if as_json:
            done = _told(setup, _explore(setup, plan, lambda _runs, _found: None), no_shrink)
            click.echo(json.dumps(explore_json(invocation, done), indent=1))
        else:
            console = Console()
            found = _with_progress(lambda told: _explore(setup, plan, told))
            done = _told(setup, found, no_shrink)
            show_exploration(console, invocation, done)
    except CannotReduce as error:
        raise click.UsageError(f"{error}: use --strategy unreduced, or another") from None
    except CheckpointError as error:
        raise click.UsageError(str(error)) from None
    return status_of_exploration(done)


def _check(plan: ExplorePlan) -> None:
    if plan.jobs > 1 and plan.strategy is not StrategyName.EXHAUSTIVE:
        raise click.UsageError(f"--jobs is for --strategy exhaustive, not {plan.strategy.value}")
    if plan.jobs > 1 and plan.checkpoint is not None:
        raise click.UsageError("--checkpoint is for one process: leave --jobs out")


def _freedoms(text: str) -> frozenset[Freedom]:
    known = {freedom.value: freedom for freedom in Freedom}
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if word not in known:
            raise click.BadParameter(f"{word!r} is not one of {', '.join(known)}", param_hint="--nondet")
    return frozenset(known[word] for word in words)


def _strategy(plan: ExplorePlan) -> Strategy:
    match plan.strategy:
        case StrategyName.EXHAUSTIVE:
            return Reduced()
        case StrategyName.UNREDUCED:
            return everything()
        case StrategyName.BOUNDED:
            return Deepening(Preemptions(plan.bound))
        case StrategyName.DELAYS:
            return Deepening(Delays(plan.bound))
        case StrategyName.PCT:
            return Pct(plan.seed, plan.runs, plan.depth)
        case StrategyName.WALK:
            return UniformWalk(plan.seed, plan.runs)
        case StrategyName.UNIFORM:
            return Uniform(plan.seed, plan.runs)
        case StrategyName.PORTFOLIO:
            return Portfolio((Reduced(), Pct(plan.seed, RUNS, plan.depth), UniformWalk(plan.seed, RUNS)))
        case _:
            assert_never(plan.strategy)


def _explore(setup: Setup, plan: ExplorePlan, told: Told) -> Exploration:
    if plan.jobs > 1:
        return explore_with_jobs(setup, plan.freedoms, plan.budget, plan.jobs, told)
    checkpoint = None
    if plan.checkpoint is not None:
        identity = {
            "setup": fingerprint(setup),
            "strategy": f"{plan.strategy.value} {plan.bound} {plan.depth} {plan.seed}",
            "nondet": ",".join(sorted(freedom.value for freedom in plan.freedoms)),
        }
        checkpoint = Checkpoint(plan.checkpoint, identity)
    return explore(setup, _strategy(plan), plan.freedoms, plan.budget, told, checkpoint)


def _told(setup: Setup, done: Exploration, as_found: bool) -> Exploration:  # noqa: FBT001
    """The findings with the shortest schedules that show them, and as scripts."""
    if not done.found:
        return done
    system = boot(setup.boot)
    told: list[Found] = []
    for one in done.found:
        key = (one.finding.verdict, one.finding.where)
        if not as_found:
            result = shrink(system, setup, one.schedule, key, Budget(seconds=10))
            one = replace(one, finding=result.finding, schedule=stamped(result.schedule, setup))
        told.append(replace(one, script=_script_of(system, setup, one)))
    return replace(done, found=tuple(told))


def _script_of(system: System, setup: Setup, one: Found) -> Script:
    try:
        return as_script(system, setup, one.schedule, (one.finding.verdict, one.finding.where))
    except NoScript:
        return ()


def _with_progress(work: Callable[[Told], Exploration]) -> Exploration:
    """Tell how it goes on standard error, if somebody watches."""
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("exploring")

        def told(runs: int, found: int) -> None:
            elapsed = progress.tasks[task].elapsed or 0.0
            speed = f", {runs / elapsed:.0f}/s" if elapsed > 1 else ""
            progress.update(task, description=f"{runs} schedules{speed}, {found} findings")

        return work(told)
