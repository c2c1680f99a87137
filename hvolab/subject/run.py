"""Running a scenario: boot, let a strategy pick until nothing is left, hand back what happened.

`run` is a function: the same setup and the same picks give the same run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

from emu.choice import Question
from emu.events import MachineEvent
from emu.trace import Listener
from hvolab.judge.at_rest import AtRest
from hvolab.judge.monitor import Monitor
from hvolab.judge.verdict import Finding, Use, Verdict
from hvolab.subject.costs import NO_COSTS, CostCounter, Costs
from hvolab.subject.fingerprint import stamped
from hvolab.subject.scenario import Setup, questions_of, start_actors
from hvolab.subject.schedule import Pick, Schedule, answer_to
from hvolab.subject.strategy import Strategy
from kernel_model.boot import System, boot

MOST_STEPS = 1_000_000


@dataclass(frozen=True, slots=True)
class Completed:
    """Every CPU ran to its end."""

    def __str__(self) -> str:
        return "completed"


@dataclass(frozen=True, slots=True)
class Deadlocked:
    """Work was left and nothing could happen. `waits`: what each CPU waits for."""

    waits: tuple[tuple[int, str], ...]

    def __str__(self) -> str:
        return "deadlock: " + "; ".join(f"cpu{cpu} waits for {what}" for cpu, what in self.waits)


@dataclass(frozen=True, slots=True)
class OutOfSteps:
    """The step budget ended before the run did."""

    steps: int

    def __str__(self) -> str:
        return f"cut off after {self.steps} steps"


Outcome: TypeAlias = Completed | Deadlocked | OutOfSteps


@dataclass(frozen=True, slots=True)
class Run:
    """What a run left behind. `system` is the machine as it was at the end.

    `costs` are counted for runs by themselves, not for the many of an exploration.
    """

    schedule: Schedule
    outcome: Outcome
    uses: tuple[Use, ...]
    findings: tuple[Finding, ...]
    events: int
    system: System
    costs: Costs = NO_COSTS

    @property
    def wrong(self) -> bool:
        """Whether a violation was found."""
        return any(finding.verdict.is_violation for finding in self.findings)

    @property
    def model_error(self) -> bool:
        """Whether the emulation itself was caught out."""
        return any(finding.verdict is Verdict.MODEL_ERROR for finding in self.findings)


StrategyFor: TypeAlias = Callable[[System], Strategy]


class _Recorder:
    """Answers through the strategy and writes down every pick."""

    def __init__(self, strategy: Strategy) -> None:
        self.strategy = strategy
        self.picks: list[Pick] = []

    def answer(self, question: Question) -> int:
        pick = self.strategy.answer(question)
        self.picks.append(answer_to(question, pick))
        return pick


def run(
    setup: Setup,
    strategy_for: StrategyFor,
    listeners: tuple[Callable[[System], Listener], ...] = (),
    most_steps: int = MOST_STEPS,
) -> Run:
    """Boot `setup` and run it. The schedule has the fingerprint of the setup.

    Raises what the strategy raises when it cannot go on: ScriptError, ScheduleError.
    """
    counter = CostCounter()
    done = run_on(boot(setup.boot), setup, strategy_for, (*listeners, counter.listener), most_steps)
    return replace(done, schedule=stamped(done.schedule, setup), costs=counter.costs)


def run_on(
    system: System,
    setup: Setup,
    strategy_for: StrategyFor,
    listeners: tuple[Callable[[System], Listener], ...] = (),
    most_steps: int = MOST_STEPS,
) -> Run:
    """Run `setup` on a system at time zero that was booted from it. It is not reset afterwards.

    The schedule has no fingerprint: who makes many runs of one setup stamps those that are kept.
    """
    machine = system.machine
    monitor = Monitor(machine, questions_of(setup))
    rest = AtRest(machine, setup.boot.huge_pages)
    for listener in listeners:
        machine.trace.listen(listener(system))
    strategy = strategy_for(system)
    start_actors(setup, system)
    recorder = _Recorder(strategy)
    outcome = _loop(system, recorder, most_steps)
    if isinstance(outcome, Deadlocked):
        monitor.deadlocked(dict(outcome.waits))
    monitor.finish()
    if isinstance(outcome, Completed):
        rest.finish(monitor.findings)
    return Run(
        Schedule(tuple(recorder.picks)),
        outcome,
        tuple(monitor.uses),
        (*monitor.findings, *rest.findings),
        machine.trace.next_number,
        system,
    )


def _loop(system: System, recorder: _Recorder, most_steps: int) -> Outcome:
    machine = system.machine
    while enabled := machine.enabled():
        if machine.steps == most_steps:
            return OutOfSteps(most_steps)
        choice = recorder.strategy.pick(enabled)
        recorder.picks.append(choice)
        machine.perform(choice, recorder)
    recorder.strategy.finish()
    if machine.busy:
        return Deadlocked(tuple(machine.blocked().items()))
    return Completed()


def collect(events: list[tuple[int, MachineEvent]]) -> Callable[[System], Listener]:
    """A listener that appends every event to `events`."""

    def listener(_system: System) -> Listener:
        def add(number: int, event: MachineEvent) -> None:
            events.append((number, event))

        return add

    return listener
