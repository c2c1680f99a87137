"""Who has to wait at a state, and so whose steps must come first behind it.

What lies behind a state is known without its order. Yet a process that cannot step there makes all of its
steps after one that lets it go on. Where only one process can have made that, no step which that process made
earlier, on the way to the state, races with them: one of its own lies between.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set
from typing import TypeAlias

from emu.choice import Step
from emu.machine import Machine
from hvolab.explore.footprint.process import in_handler, process_of
from hvolab.explore.footprint.recorder import Recorder
from hvolab.explore.states.visits import Made
from hvolab.judge.sight.resource import Kind, Resource, Touched

# Of each process that cannot step: what is in its way, each of which somebody has to change.
InTheWay: TypeAlias = Mapping[int, tuple[Set[Touched], ...]]
_OF_INTERRUPTS = (Kind.IPI, Kind.INTERRUPT_FLAG)


def waiting_at(machine: Machine, recorder: Recorder) -> InTheWay:
    """Who waits between two steps."""
    found: dict[int, tuple[Set[Touched], ...]] = {}
    for number, cpu in enumerate(machine.cpus):
        choice = Step(number)
        if cpu.top is not None and not machine.is_enabled(choice):
            found[process_of(machine, choice)] = (recorder.blocked(choice).reads,)
        if not in_handler(cpu):
            is_in_the_way = {
                Resource(Kind.IPI, number): number not in machine.apic.interrupted,
                Resource(Kind.INTERRUPT_FLAG, number): not cpu.interrupts_enabled,
            }
            parts = tuple({one} for one, blocks in is_in_the_way.items() if blocks)
            if parts:
                found[2 * number + 1] = parts
    return found


def come_first(waiting: InTheWay, behind: Collection[Made]) -> dict[int, Set[int]]:
    """Of each process that waits: those that have made a step behind the state before it makes its own."""
    first = {
        process: {
            helpers.pop()
            for helpers in (_who_changes(part, behind) - {process} for part in parts)
            if len(helpers) == 1
        }
        for process, parts in waiting.items()
    }
    for helpers in first.values():
        left = [*helpers]
        while left:
            more = first.get(left.pop(), set()) - helpers
            helpers |= more
            left += more
    return dict(first)


def _who_changes(some: Set[Touched], behind: Collection[Made]) -> set[int]:
    return {made.process for made in behind if not some.isdisjoint(made.footprint.writes)}


def may_never_come(made: Made) -> bool:
    """Whether it may stand for a step that was still to come at the end, which nobody came before.

    Of an interrupt that never came nothing is known but what it waited for.
    """
    return not all(isinstance(part, Resource) and part.kind in _OF_INTERRUPTS for part, _ in made.waited_for)
