"""How to explore, from the options: a strategy, what may be chosen, and what it may cost."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import assert_never

import click

from hvolab.explore.audience import Audience
from hvolab.explore.budget import Budget
from hvolab.explore.checkpoint import Checkpoint
from hvolab.explore.explorer import Exploration, explore
from hvolab.explore.parallel import explore_with_jobs
from hvolab.explore.reduce.dpor import Reduced
from hvolab.explore.search.bounds import Delays, Preemptions
from hvolab.explore.search.depth_first import Deepening, everything
from hvolab.explore.search.interface import Freedom, Strategy
from hvolab.explore.search.portfolio import Portfolio
from hvolab.explore.search.randomly import Pct, Uniform, UniformWalk
from hvolab.explore.states.visits import within
from hvolab.subject.fingerprint import fingerprint
from hvolab.subject.scenario import Setup


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
    memory: int  # MiB, for states seen
    freedoms: frozenset[Freedom]
    budget: Budget
    checkpoint: Path | None


def check(plan: ExplorePlan) -> None:
    """Raises UsageError for options that do not go together."""
    if plan.jobs > 1 and plan.strategy is not StrategyName.EXHAUSTIVE:
        raise click.UsageError(f"--jobs is for --strategy exhaustive, not {plan.strategy.value}")
    if plan.jobs > 1 and plan.checkpoint is not None:
        raise click.UsageError("--checkpoint is for one process: leave --jobs out")


def freedoms_of(text: str) -> frozenset[Freedom]:
    """What `--nondet` names. Raises BadParameter."""
    known = {freedom.value: freedom for freedom in Freedom}
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if word not in known:
            raise click.BadParameter(f"{word!r} is not one of {', '.join(known)}", param_hint="--nondet")
    return frozenset(known[word] for word in words)


def _strategy(plan: ExplorePlan) -> Strategy:
    match plan.strategy:
        case StrategyName.EXHAUSTIVE:
            return Reduced(within(plan.memory))
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
            return Portfolio(
                (
                    Reduced(within(plan.memory)),
                    Pct(plan.seed, RUNS, plan.depth),
                    UniformWalk(plan.seed, RUNS),
                )
            )
        case _:
            assert_never(plan.strategy)


def carry_out(setup: Setup, plan: ExplorePlan, audience: Audience) -> Exploration:
    """Explore. Raises CannotReduce, CheckpointError."""
    if plan.jobs > 1:
        each = within(-(-plan.memory // plan.jobs))
        return explore_with_jobs(setup, plan.freedoms, plan.budget, plan.jobs, audience, each)
    checkpoint = None
    if plan.checkpoint is not None:
        identity = {
            "setup": fingerprint(setup),
            "strategy": f"{plan.strategy.value} {plan.bound} {plan.depth} {plan.seed}",
            "nondet": ",".join(sorted(freedom.value for freedom in plan.freedoms)),
        }
        checkpoint = Checkpoint(plan.checkpoint, identity)
    return explore(setup, _strategy(plan), plan.freedoms, plan.budget, audience, checkpoint)
