"""Running a scenario: boot, let a picker pick until nothing is left, hand back what happened.

`run` is a function: the same setup and the same picks give the same run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from emu.events import MachineEvent
from emu.trace import Listener
from hvolab.judge.sight.sight import Sight
from hvolab.subject.costs import CostCounter
from hvolab.subject.fingerprint import stamped
from hvolab.subject.outcome import NO_LIMITS, Limits, Run
from hvolab.subject.picker import Picker
from hvolab.subject.running import PickerFor, Running, WatchingPickerFor
from hvolab.subject.scenario import Setup
from kernel_model.boot import System, boot


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
