"""Running a scenario: a picker picks until nothing is left, judges look on, and what happened is handed back.

`run` is a function: the same setup and the same picks give the same run. A run can go back to where it was,
and on from there: what lies before is not run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias, assert_never, runtime_checkable

from emu.choice import Choice, Question
from emu.cpu.cpu import CannotGoBack
from emu.cpu.recall import Unrepeatable
from emu.events import MachineEvent
from emu.guest.decode import UnsupportedInstruction
from emu.kept import Bookmark
from emu.machine import Machine, NotEnabled
from emu.trace import Listener
from hvolab.judge.own import BadJudgement
from hvolab.judge.rows.locks import TakenInOrder
from hvolab.judge.rows.monitor import Monitor
from hvolab.judge.sight.sight import Sight
from hvolab.judge.verdict import Finding
from hvolab.subject.blame import LoadError, blamed, in_a_line, place_in_us
from hvolab.subject.costs import CostCounter
from hvolab.subject.fingerprint import stamped
from hvolab.subject.outcome import (
    NO_LIMITS,
    Completed,
    Deadlocked,
    Limits,
    Outcome,
    OutOfSteps,
    OutOfTime,
    Run,
)
from hvolab.subject.picker import CutHere, Picker
from hvolab.subject.scenario import Setup, questions_of, start_actors
from hvolab.subject.schedule import Pick, Schedule, answer_to
from hvolab.subject.stuck import ended_when_stuck
from kernel_model.boot import System, boot

_STEPS_A_LOOK = 256  # a look at the clock costs as much as a step
_STEPS_A_PLACE = 64  # to keep one costs as much as some steps, to come back to one half as many again
_LEAST_APART = 6  # of short runs
_PLACES_A_RUN = 40  # of all runs but the first
_MOST_PLACES = 48  # of a long run; then every other is given up, and those to come are twice as far apart

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

    def repeat(self, picker: Returning, most: int) -> bool:
        """Make up to so many steps at once, if there are such."""
        self.asking = True
        made = picker.repeat(most)
        self.asking = False
        if made is not None:
            choice, times = made
            self.picks += [choice] * times
        return made is not None

    def settle(self, picker: Returning) -> None:
        self.asking = True
        picker.settle()
        self.asking = False

    def finish(self) -> None:
        self.asking = True
        self._picker.finish()
        self.asking = False

    def back(self, picks: int) -> None:
        """No more than so many were made."""
        del self.picks[picks:]
        self.asking = False


@runtime_checkable
class Returning(Picker, Protocol):
    """A picker that can go back with the run."""

    def settle(self) -> None:
        """Note what is to be noted of the last step: a mark is about to be made."""
        ...

    def repeat(self, most: int) -> tuple[Choice, int] | None:
        """Make up to so many steps at once, if there are such: the same choice, how often."""
        ...

    def mark(self) -> Bookmark: ...

    def back(self, mark: Bookmark) -> None: ...


@dataclass(frozen=True, slots=True)
class _KeptAt:
    """Where a run was after so many steps and picks: marks of machine, Sight with its judges, and picker."""

    steps: int
    picks: int
    machine: Bookmark
    sight: Bookmark
    picker: Bookmark


class Running:
    """A run from time zero on. `go` runs it to its end, and again from where `back` has put it.

    The schedules have no fingerprint. A run that can go back is one whose picker can, on CPUs with lazy TLBs.
    """

    def __init__(
        self,
        system: System,
        setup: Setup,
        picker_for: WatchingPickerFor,
        listeners: tuple[Callable[[System], Listener], ...] = (),
    ) -> None:
        machine = system.machine
        self._system = system
        self._setup = setup
        self._machine = machine
        self._sight = Sight(machine, setup.boot.huge_pages, setup.judged)
        questions = questions_of(setup)
        self._monitor = Monitor(self._sight, setup.boot.huge_pages, questions, setup.judges)
        machine.trace.listen(self._sight.observe)
        machine.trace.listen(self._monitor.observe)
        for listener in listeners:
            machine.trace.listen(listener(system))
        self._picker = picker_for(system, self._sight)
        self._transcript = _Transcript(self._picker)
        self._places: list[_KeptAt] = []
        self._apart = _STEPS_A_PLACE
        self._back_to = 0  # how many steps the run to come shares with the last one
        with _answering(system, setup, self._transcript):
            start_actors(setup, system)

    def go(self, limits: Limits) -> Run:
        """On to the end. Raises what the picker raises, and LoadError."""
        with _answering(self._system, self._setup, self._transcript):
            outcome = self._loop(limits)
        self._apart = max(_LEAST_APART, min(self._apart, self._machine.steps // _PLACES_A_RUN))
        monitor = self._monitor
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
            Schedule(tuple(self._transcript.picks), cut=isinstance(outcome, OutOfSteps | OutOfTime)),
            outcome,
            monitor.told.uses,
            self.findings,
            self._machine.trace.next_number,
            self._system,
            self._sight,
            self.lock_orders,
        )

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What has been found up to here: the run may end in any way, or be given up."""
        return tuple(self._monitor.told.findings)

    @property
    def lock_orders(self) -> frozenset[TakenInOrder]:
        """The orders that locks have been taken in up to here."""
        return frozenset(self._monitor.locks.orders)

    def cut_here(self) -> Schedule:
        """The way up to here."""
        return Schedule(tuple(self._transcript.picks), cut=True)

    def back(self, steps: int) -> bool:
        """To the latest place kept of the first so many steps. False where none was: it cannot go on then."""
        while self._places and self._places[-1].steps > steps:
            self._places.pop()
        if not self._places or not isinstance(self._picker, Returning):
            return False
        place = self._places[-1]
        self._back_to = steps
        self._machine.back(place.machine)
        self._sight.back(place.sight)
        self._picker.back(place.picker)
        self._transcript.back(place.picks)
        return True

    def _loop(self, limits: Limits) -> Outcome:
        machine, transcript = self._machine, self._transcript
        returning = self._picker if isinstance(self._picker, Returning) else None
        look = machine.steps
        while enabled := machine.enabled():
            if returning is not None and transcript.repeat(returning, limits.steps - machine.steps):
                continue
            if machine.steps == limits.steps:
                return OutOfSteps(limits.steps, _where(machine))
            if machine.guest_steps >= limits.guest_steps:
                return OutOfSteps(machine.guest_steps, _where(machine), " of guest programs")
            if machine.steps >= look:
                look = machine.steps + _STEPS_A_LOOK
                if limits.is_late():
                    return OutOfTime(limits.seconds, _where(machine))
            if returning is not None:
                self._keep_if_due(returning)
            try:
                choice = transcript.pick(enabled)
            except CutHere:
                return OutOfSteps(machine.steps, _where(machine), " of the schedule")
            self._monitor.before(choice)
            machine.perform(choice, transcript)
        transcript.finish()
        if machine.busy:
            return Deadlocked(tuple(machine.blocked().items()))
        return Completed()

    def _keep_if_due(self, picker: Returning) -> None:
        """This place, unless it is kept already, or is none to come back to."""
        steps = self._machine.steps
        last = self._places[-1].steps if self._places else None
        if last is not None and (steps <= last or (steps - last < self._apart and steps != self._back_to)):
            return
        if len(self._places) == _MOST_PLACES:
            del self._places[1::2]
            self._apart *= 2
        self._transcript.settle(picker)
        try:
            machine = self._machine.mark()
        except CannotGoBack:
            return
        marks = machine, self._sight.mark(), picker.mark()
        self._places.append(_KeptAt(steps, len(self._transcript.picks), *marks))


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


def _where(machine: Machine) -> tuple[tuple[int, str], ...]:
    """Where each CPU is that has not ended."""
    return tuple((cpu.number, str(cpu.site())) for cpu in machine.cpus if cpu.contexts)


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
    return Running(system, setup, picker_for, listeners).go(limits)


def collect(events: list[tuple[int, MachineEvent]]) -> Callable[[System], Listener]:
    """A listener that appends every event to `events`."""

    def listener(_system: System) -> Listener:
        def add(number: int, event: MachineEvent) -> None:
            events.append((number, event))

        return add

    return listener
