"""A user's file is tried before it is used: runs under one schedule must be one run.

What differs depends on something that no schedule has: a clock, chance, what an earlier run left behind.
"""

from __future__ import annotations

from itertools import zip_longest
from warnings import catch_warnings, simplefilter

from emu.cpu.recall import Recall
from emu.cpu.routine import Anew
from emu.events import MachineEvent
from hvolab.load.changeable import changeable_of
from hvolab.load.rules import INSTEAD
from hvolab.load.source import MODULE
from hvolab.subject.blame import LoadError, blamed, in_a_line
from hvolab.subject.outcome import Limits
from hvolab.subject.picker import InOrder
from hvolab.subject.run import collect, run_on
from hvolab.subject.scenario import Setup
from hvolab.subject.stuck import ended_when_stuck
from kernel_model.boot import LayoutError, System, boot

STEPS = 20_000
RUNS = 4  # chance shows in one of them


def check_twice(setup: Setup, option: str) -> None:
    """Make it, and run it a few times, each CPU to its end. Raises LoadError where the runs differ."""
    system = _made(setup, option)
    runs: list[list[tuple[int, MachineEvent]]] = []
    told: list[list[str]] = []
    with catch_warnings(record=True) as warned:
        simplefilter("always")
        for _ in range(RUNS):
            events: list[tuple[int, MachineEvent]] = []
            done = run_on(system, setup, lambda _system: InOrder(), (collect(events),), Limits(STEPS))
            runs.append(events)
            told.append([f"{one.verdict.value}: {one.cause}" for one in done.findings])
            system.reset()
    for one in warned:
        if "was never awaited" in str(one.message):
            raise LoadError(f"{option}: {one.message}: write await before it")
    for again, said in zip(runs[1:], told[1:], strict=True):
        _same(option, runs[0], again)
        if said != told[0]:
            raise LoadError(f"{option}: two equal runs are judged differently: {told[0]}, then {said}")
    _keeps_its_ops(system, setup)


def _keeps_its_ops(system: System, setup: Setup) -> None:
    """What is awaited is a value, which an exploration can keep. Raises LoadError."""
    system.machine.routines = Recall()
    run_on(system, setup, lambda _system: InOrder(), (), Limits(STEPS))
    system.machine.routines = Anew()
    system.reset()


def _made(setup: Setup, option: str) -> System:
    """The system, whose kernel the file may have had a hand in. Raises LoadError."""
    try:
        with ended_when_stuck(lambda: None):
            system = boot(setup.boot)
    except (KeyboardInterrupt, LayoutError):
        raise
    except BaseException as error:
        raise blamed(error) or LoadError(f"{option} cannot be made: {in_a_line(error)}") from error
    kernel = system.kernel
    for part in (kernel.hvo, kernel.pool, kernel.flush):
        module = type(part).__module__
        if module.startswith(MODULE):
            for where, what in changeable_of(part, module):
                raise LoadError(
                    f"{option}: {where} is {what}, which can change and would outlive a step{INSTEAD}"
                )
    return system


def _same(option: str, one: list[tuple[int, MachineEvent]], other: list[tuple[int, MachineEvent]]) -> None:
    for first, second in zip_longest(one, other):
        if first != second:
            raise LoadError(
                f"{option}: two runs under one schedule differ at event {_number(first or second)}: "
                f"{_what(first)}, then {_what(second)}. It depends on something outside the machine"
            )


def _number(found: tuple[int, MachineEvent] | None) -> int:
    return -1 if found is None else found[0]


def _what(found: tuple[int, MachineEvent] | None) -> str:
    if found is None:
        return "the end"
    event = found[1]
    site = getattr(event, "site", None)
    return type(event).__name__ if site is None else f"{type(event).__name__} in {site}"
