"""A user's file is tried before it is used: runs under one schedule must be one run.

What differs depends on something that no schedule has: a clock, chance, what an earlier run left behind.
"""

from __future__ import annotations

from itertools import zip_longest

from emu.events import MachineEvent
from hvolab.subject.blame import LoadError
from hvolab.subject.picker import InOrder
from hvolab.subject.run import Limits, collect, run_on
from hvolab.subject.scenario import Setup
from kernel_model.boot import boot

STEPS = 20_000
RUNS = 4  # chance shows in one of them


def check_twice(setup: Setup, option: str) -> None:
    """Run the setup a few times on one machine, each CPU to its end. Raises LoadError where runs differ."""
    system = boot(setup.boot)
    runs: list[list[tuple[int, MachineEvent]]] = []
    told: list[list[str]] = []
    for _ in range(RUNS):
        events: list[tuple[int, MachineEvent]] = []
        done = run_on(system, setup, lambda _system: InOrder(), (collect(events),), Limits(STEPS))
        runs.append(events)
        told.append([f"{one.verdict.value}: {one.cause}" for one in done.findings])
        system.reset()
    for again, said in zip(runs[1:], told[1:], strict=True):
        for first, second in zip_longest(runs[0], again):
            if first != second:
                raise LoadError(
                    f"{option}: two runs under one schedule differ at event {_number(first or second)}: "
                    f"{_what(first)}, then {_what(second)}. It depends on something outside the machine"
                )
        if said != told[0]:
            raise LoadError(f"{option}: two equal runs are judged differently: {told[0]}, then {said}")


def _number(found: tuple[int, MachineEvent] | None) -> int:
    return -1 if found is None else found[0]


def _what(found: tuple[int, MachineEvent] | None) -> str:
    if found is None:
        return "the end"
    event = found[1]
    site = getattr(event, "site", None)
    return type(event).__name__ if site is None else f"{type(event).__name__} in {site}"
