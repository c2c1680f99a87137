"""Running a scenario: boot, let a picker pick until nothing is left, hand back what happened.

`run` is a function: the same setup and the same picks give the same run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeAlias, assert_never

from emu.choice import Choice, Question
from emu.cpu.recall import Unrepeatable
from emu.events import MachineEvent
from emu.guest.decode import UnsupportedInstruction
from emu.machine import Machine, NotEnabled
from emu.trace import Listener
from hvolab.judge.own import BadJudgement
from hvolab.judge.rows.locks import TakenInOrder
from hvolab.judge.rows.monitor import Monitor
from hvolab.judge.sight.sight import Sight
from hvolab.judge.verdict import Finding, Use, Verdict
from hvolab.subject.blame import LoadError, blamed, in_a_line, place_in_us
from hvolab.subject.costs import NO_COSTS, CostCounter, Costs
from hvolab.subject.fingerprint import stamped
from hvolab.subject.picker import CutHere, Picker
from hvolab.subject.scenario import Setup, questions_of, start_actors
from hvolab.subject.schedule import Pick, Schedule, answer_to
from hvolab.subject.stuck import ended_when_stuck
from kernel_model.boot import System, boot

MOST_STEPS = 1_000_000
MOST_GUEST_STEPS = 50_000  # some seconds


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
    """The steps ended before the run did. `at`: where each CPU was that had not ended.

    `whose`: which steps they were.
    """

    steps: int
    at: tuple[tuple[int, str], ...] = ()
    whose: str = ""

    def __str__(self) -> str:
        return f"cut off after {self.steps} steps{self.whose}{_places(self.at)}"


@dataclass(frozen=True, slots=True)
class OutOfTime:
    """The time budget ended before the run did. `at`: where each CPU was that had not ended."""

    seconds: float
    at: tuple[tuple[int, str], ...] = ()

    def __str__(self) -> str:
        return f"cut off after {self.seconds:g} s{_places(self.at)}"


def _places(at: tuple[tuple[int, str], ...]) -> str:
    return "".join(f"; cpu{cpu} was in {where}" for cpu, where in at)


Outcome: TypeAlias = Completed | Deadlocked | OutOfSteps | OutOfTime


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run may cost. `until` is a reading of time.monotonic(); looked at now and then.

    `guest_steps`: of all guest programs together. A kernel may take long, a guest program that does spins.
    """

    steps: int = MOST_STEPS
    guest_steps: int = MOST_GUEST_STEPS
    until: float | None = None
    seconds: float = 0.0  # what `until` stands for, to be told


@dataclass(frozen=True, slots=True)
class Run:
    """What a run left behind. `system` is the machine as it was at the end, `sight` what was seen of it,
    `lock_orders` which locks were taken while which were held.

    `costs` are counted for runs by themselves, not for the many of an exploration.
    """

    schedule: Schedule
    outcome: Outcome
    uses: tuple[Use, ...]
    findings: tuple[Finding, ...]
    events: int
    system: System
    sight: Sight
    lock_orders: frozenset[TakenInOrder] = frozenset()
    costs: Costs = NO_COSTS

    @property
    def wrong(self) -> bool:
        """Whether a violation was found."""
        return any(finding.verdict.is_violation for finding in self.findings)

    @property
    def model_error(self) -> bool:
        """Whether the emulation itself was caught out."""
        return any(finding.verdict is Verdict.MODEL_ERROR for finding in self.findings)


NO_LIMITS = Limits()
_STEPS_A_LOOK = 256  # a look at the clock costs as much as a step

PickerFor: TypeAlias = Callable[[System], Picker]
# For a picker that must know what judges ask.
WatchingPickerFor: TypeAlias = Callable[[System, Sight], Picker]


class _Transcript:
    """Picks and answers through the picker and writes down every pick.

    `asking`: the picker has been asked, and has not answered. What comes out then is its own affair.
    """

    def __init__(self, picker: Picker) -> None:
        self.picks: list[Pick] = []
        self.stepping = 0  # the CPU of the last choice
        self.asking = False
        self._picker = picker

    def pick(self, enabled: list[Choice]) -> Choice:
        self.asking = True
        choice = self._picker.pick(enabled)
        self.asking = False
        self.stepping = choice.cpu
        self.picks.append(choice)
        return choice

    def answer(self, question: Question) -> int:
        self.asking = True
        pick = self._picker.answer(question)
        self.asking = False
        self.picks.append(answer_to(question, pick))
        return pick

    def finish(self) -> None:
        self.asking = True
        self._picker.finish()
        self.asking = False


def run(
    setup: Setup,
    picker_for: PickerFor,
    listeners: tuple[Callable[[System], Listener], ...] = (),
    limits: Limits = NO_LIMITS,
) -> Run:
    """Boot `setup` and run it. The schedule has the fingerprint of the setup.

    Raises what the picker raises when it cannot go on: ScriptError, ScheduleError.
    """
    counter = CostCounter()
    done = run_on(boot(setup.boot), setup, picker_for, (*listeners, counter.listener), limits)
    return replace(done, schedule=stamped(done.schedule, setup), costs=counter.costs)


def run_on(
    system: System,
    setup: Setup,
    picker_for: PickerFor,
    listeners: tuple[Callable[[System], Listener], ...] = (),
    limits: Limits = NO_LIMITS,
) -> Run:
    """Run `setup` on a system at time zero that was booted from it. It is not reset afterwards.

    The schedule has no fingerprint: who makes many runs of one setup stamps those that are kept.
    """

    def for_system(system: System, _sight: Sight) -> Picker:
        return picker_for(system)

    return run_watched(system, setup, for_system, listeners, limits)


def run_watched(
    system: System,
    setup: Setup,
    picker_for: WatchingPickerFor,
    listeners: tuple[Callable[[System], Listener], ...] = (),
    limits: Limits = NO_LIMITS,
) -> Run:
    """The same with a picker that is given what judges see with."""
    machine = system.machine
    sight = Sight(machine, setup.boot.huge_pages, setup.judged)
    monitor = Monitor(sight, setup.boot.huge_pages, questions_of(setup), setup.judges)
    machine.trace.listen(sight.observe)
    machine.trace.listen(monitor.observe)
    for listener in listeners:
        machine.trace.listen(listener(system))
    picker = picker_for(system, sight)
    transcript = _Transcript(picker)
    with _answering(system, setup, transcript):
        start_actors(setup, system)
        outcome = _loop(system, transcript, monitor, limits)
    match outcome:
        case Completed():
            monitor.completed()
        case Deadlocked(waits=waits):
            monitor.deadlocked(dict(waits))
        case OutOfSteps() | OutOfTime():
            monitor.cut_off()
        case _:
            assert_never(outcome)
    return Run(
        Schedule(tuple(transcript.picks), cut=isinstance(outcome, OutOfSteps | OutOfTime)),
        outcome,
        monitor.told.uses,
        tuple(monitor.told.findings),
        machine.trace.next_number,
        system,
        sight,
        frozenset(monitor.locks.orders),
    )


@contextmanager
def _answering(system: System, setup: Setup, transcript: _Transcript) -> Iterator[None]:
    """What a user's own code does wrong is told as that. Raises LoadError."""
    if not setup.loaded:
        yield
        return
    machine = system.machine
    try:
        with ended_when_stuck(lambda: object() if transcript.asking else machine.trace.next_number):
            yield
    except (BadJudgement, Unrepeatable) as error:
        raise LoadError(str(error)) from None
    except (KeyboardInterrupt, UnsupportedInstruction):
        raise
    except NotEnabled as error:
        raise LoadError(
            "the same steps have led to another state: what your file does depends on something outside the "
            "machine"
        ) from error
    except BaseException as error:
        if transcript.asking:
            raise
        routine = getattr(machine.cpus[transcript.stepping].top, "routine", None)
        raise blamed(error, routine) or LoadError(
            f"what your file did led to {in_a_line(error)} (in {place_in_us(error)})"
        ) from error


def _loop(system: System, transcript: _Transcript, monitor: Monitor, limits: Limits) -> Outcome:
    machine = system.machine
    while enabled := machine.enabled():
        if machine.steps == limits.steps:
            return OutOfSteps(limits.steps, _where(machine))
        if machine.guest_steps >= limits.guest_steps:
            return OutOfSteps(machine.guest_steps, _where(machine), " of guest programs")
        if limits.until is not None and not machine.steps % _STEPS_A_LOOK and time.monotonic() > limits.until:
            return OutOfTime(limits.seconds, _where(machine))
        try:
            choice = transcript.pick(enabled)
        except CutHere:
            return OutOfSteps(machine.steps, _where(machine), " of the schedule")
        monitor.before(choice)
        machine.perform(choice, transcript)
    transcript.finish()
    if machine.busy:
        return Deadlocked(tuple(machine.blocked().items()))
    return Completed()


def _where(machine: Machine) -> tuple[tuple[int, str], ...]:
    """Where each CPU is that has not ended."""
    return tuple((cpu.number, str(cpu.site())) for cpu in machine.cpus if cpu.contexts)


def collect(events: list[tuple[int, MachineEvent]]) -> Callable[[System], Listener]:
    """A listener that appends every event to `events`."""

    def listener(_system: System) -> Listener:
        def add(number: int, event: MachineEvent) -> None:
            events.append((number, event))

        return add

    return listener
