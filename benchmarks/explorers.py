"""Which strategy finds what how soon: `python -m benchmarks.explorers`.

Runs to the first violation, counted from 1; of the random ones the median over 30 seeds. Counts: they
are the same on every machine.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace

from rich.console import Console
from rich.table import Table

from emu.paging.models import LAZY
from hvolab.catalog import scenario
from hvolab.command.exploring.telling import Quiet, Stops
from hvolab.explore.budget import Budget
from hvolab.explore.explorer import Exploration, explore
from hvolab.explore.reduce.dpor import Reduced
from hvolab.explore.search.bounds import Delays, Preemptions
from hvolab.explore.search.depth_first import Deepening
from hvolab.explore.search.interface import Freedom, Strategy
from hvolab.explore.search.randomly import Pct, Uniform, UniformWalk
from hvolab.subject.scenario import Setup

SEEDS = 30
MOST_RUNS = 200
FREEDOMS = frozenset({Freedom.SCHEDULE, Freedom.IRQ, Freedom.TLB})
SCENARIOS = (
    "missed-cpu",
    "use-after-free",
    "tail-write",
    "lost-update",
    "unfreeze-get-page",
    "optimize-compound-head",
)


@dataclass(frozen=True, slots=True)
class Contender:
    """A way to search; `seeds`: how many times, where chance has a part in it."""

    name: str
    strategy: Callable[[int], Strategy]
    seeds: int = SEEDS


CONTENDERS = (
    Contender("uniform (baseline)", lambda seed: Uniform(seed, MOST_RUNS)),
    Contender("PCT, d = 1", lambda seed: Pct(seed, MOST_RUNS, 1)),
    Contender("PCT, d = 2", lambda seed: Pct(seed, MOST_RUNS, 2)),
    Contender("PCT, d = 3", lambda seed: Pct(seed, MOST_RUNS, 3)),
    Contender("uniform walk", lambda seed: UniformWalk(seed, MOST_RUNS)),
    Contender("bounded, 0, 1 preemptions", lambda _seed: Deepening(Preemptions(1)), 1),
    Contender("bounded, 0, 1, 2 delays", lambda _seed: Deepening(Delays(2)), 1),
    Contender("exhaustive, reduced", lambda _seed: Reduced(), 1),
)


def main() -> None:
    console = Console(width=150)
    table = Table(title=f"runs to the first violation; of random ones the median of {SEEDS} seeds")
    table.add_column("")
    for name in SCENARIOS:
        table.add_column(name, justify="right")
    for contender in CONTENDERS:
        table.add_row(contender.name, *(_told(contender, name) for name in SCENARIOS))
    console.print(table)


def _told(contender: Contender, name: str) -> str:
    setup = scenario(name).build(2)
    setup = replace(setup, boot=replace(setup.boot, model=LAZY))
    counts = sorted(_runs_to_first(setup, contender.strategy(seed)) for seed in range(contender.seeds))
    middle = statistics.median_high(counts)
    median = f"more than {MOST_RUNS}" if middle > MOST_RUNS else str(middle)
    missed = sum(count > MOST_RUNS for count in counts)
    return median if not missed or contender.seeds == 1 else f"{median} ({missed} not in {MOST_RUNS})"


def _runs_to_first(setup: Setup, strategy: Strategy) -> int:
    """More than MOST_RUNS when nothing was found in so many."""

    done: Exploration = explore(setup, strategy, FREEDOMS, Budget(runs=MOST_RUNS), Quiet(Stops(first=True)))
    first = [one.at_run for one in done.found if one.finding.verdict.is_violation]
    return min(first, default=MOST_RUNS + 1)


main()
