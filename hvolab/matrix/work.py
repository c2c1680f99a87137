"""What a matrix explores, and exploring one cell of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from pathlib import Path

from emu.paging.models import SKYLAKE
from hvolab.explore.audience import Audience, Found
from hvolab.explore.budget import Budget
from hvolab.explore.explorer import Exploration, explore
from hvolab.explore.reduce.dpor import Reduced
from hvolab.explore.retell.shrink import NotShown, shrink
from hvolab.explore.search.bounds import Preemptions
from hvolab.explore.search.depth_first import Deepening
from hvolab.explore.search.interface import Freedom
from hvolab.explore.states.visits import within
from hvolab.judge.verdict import Finding, Verdict
from hvolab.load.applied import applied, tried
from hvolab.load.user_file import NOTHING_LOADED, UserFile
from hvolab.matrix.cell import Cell, CellCoverage, CellDone, worst_first
from hvolab.show.report import Invocation
from hvolab.subject.axes import Chosen
from hvolab.subject.costs import Costs
from hvolab.subject.fingerprint import fingerprint, stamped
from hvolab.subject.outcome import Limits
from hvolab.subject.picker import InOrder
from hvolab.subject.run import run
from hvolab.subject.scenario import Scenario, Setup
from hvolab.subject.schedule import Schedule
from kernel_model.boot import boot
from kernel_model.variants.named import UPSTREAM_HVO

_SHRINKING = 60  # runs
_SIMPLE = 0.25  # of the time
_PREEMPTIONS = 3
FREEDOMS = frozenset({Freedom.SCHEDULE, Freedom.IRQ, Freedom.TLB})


@dataclass(frozen=True, slots=True)
class Spent:
    """How much a cell may cost: seconds, and MiB for states seen and steps known."""

    seconds: int
    memory: int


@dataclass(frozen=True, slots=True)
class MatrixAxes:
    """The axes. `files`: the user's file that brings a policy, by the policy's name."""

    policies: Sequence[str]
    scenarios: Sequence[Scenario]
    cpu_models: Sequence[str]
    cpus: int | None
    files: Mapping[str, UserFile]


@dataclass(frozen=True, slots=True)
class Task:
    """A cell that is to be explored. `reason`: why it cannot be."""

    cell: Cell
    scenario: Scenario
    chosen: Chosen
    loaded: UserFile
    reason: str = ""


def tasks(asked: MatrixAxes) -> Iterator[Task]:
    """Scenario by scenario, so that a row of policies is told together."""
    for model in asked.cpu_models:
        for scenario in asked.scenarios:
            for policy in asked.policies:
                yield _task(asked, policy, scenario, model)


def _task(asked: MatrixAxes, policy: str, scenario: Scenario, model: str) -> Task:
    cpus = max(2, scenario.cpus_min) if asked.cpus is None else asked.cpus
    chosen = Chosen(variant=UPSTREAM_HVO.name, policy=policy, cpu_model=model)
    reason = ""
    if cpus < scenario.cpus_min:
        reason = f"it has actors on {scenario.cpus_min} CPUs"
    loaded = asked.files.get(policy, NOTHING_LOADED)
    return Task(Cell(policy, scenario.name, model, cpus), scenario, chosen, loaded, reason)


class CellWork:
    """One cell: the setup, what a result of it is known by, and the exploration."""

    def __init__(self, task: Task, spent: Spent) -> None:
        """Raises UnknownName, LoadError."""
        self._task = task
        self._spent = spent
        setup = applied(task.scenario.build(task.cell.cpus), task.chosen, task.loaded)
        self._setup: Setup = tried(setup, task.loaded)
        cost = f"{spent.seconds} s {spent.memory} MiB"
        told = f"{code_digest()} {fingerprint(self._setup)} {task.cell} {cost} {task.loaded.option}"
        self.made_from = sha256(told.encode()).hexdigest()[:16]

    def explore(self, audience: Audience) -> tuple[Exploration, CellDone]:
        """Every order that can matter, and one run for the costs. Raises what exploring raises.

        Where nothing has been found in three quarters of the time, and there is no end yet, the last one goes
        to runs with few preemptions: a search that tries all of one stretch first may stay far from those.
        """
        simple = self._spent.seconds * _SIMPLE
        budget = Budget(seconds=self._spent.seconds - simple)
        done = explore(self._setup, Reduced(within(self._spent.memory)), FREEDOMS, budget, audience)
        coverage, found, told = done.coverage, done.found, str(done.coverage)
        if not coverage.complete and not coverage.interrupted and not _wrong(found):
            simplest = Deepening(Preemptions(_PREEMPTIONS))
            done = explore(self._setup, simplest, FREEDOMS, Budget(seconds=simple), audience)
            found = (*found, *done.found)
            told += f"; and {done.coverage.schedules} with few preemptions"
        verdicts = _wrong(found)
        first = next((one for one in found if {*verdicts[:1]} & _verdicts(one.finding)), None)
        covered = CellCoverage(
            told,
            "" if coverage.complete else coverage.stopped_by or "the step budget of a run",
            coverage.schedules,
            coverage.remembered.states,
        )
        replay = "" if first is None else self._invocation().replay(self._shortened(first))
        return done, CellDone(self._task.cell, self.made_from, verdicts, covered, self._costs(), replay)

    def _shortened(self, one: Found) -> Schedule:
        """As short as it comes in a few runs; as it was found where it does not show the same any more."""
        key = one.finding.verdict, one.finding.where
        try:
            found = shrink(boot(self._setup.boot), self._setup, one.schedule, key, Budget(runs=_SHRINKING))
        except NotShown:
            return one.schedule
        return stamped(found.schedule, self._setup)

    def _costs(self) -> Costs:
        """Of one run on CPUs with a TLB of a real one's shape."""
        setup = replace(self._setup, boot=replace(self._setup.boot, model=SKYLAKE))
        return run(setup, lambda _system: InOrder(), (), Limits()).costs

    def _invocation(self) -> Invocation:
        options = {**self._task.chosen.options, "--load": self._task.loaded.option or None}
        words = tuple(word for name, value in options.items() if value is not None for word in (name, value))
        return Invocation(self._task.scenario, self._task.cell.cpus, words)


def _wrong(found: Iterable[Found]) -> tuple[Verdict, ...]:
    return worst_first(verdict for one in found for verdict in _verdicts(one.finding))


def _verdicts(finding: Finding) -> set[Verdict]:
    return {finding.verdict, *finding.also}


@cache
def code_digest() -> str:
    """Of all of this project's code: what another has come to counts for nothing."""
    digest, root = sha256(), Path(__file__).resolve().parents[2]
    for package in ("emu", "firmware", "hvolab", "kernel_model"):
        for path in sorted((root / package).rglob("*.py")):
            digest.update(f"{path.relative_to(root)}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()
