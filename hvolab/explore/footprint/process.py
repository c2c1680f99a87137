"""Processes: what is ordered. Two for each CPU: its threads, and its interrupts."""

from __future__ import annotations

from emu.choice import Choice, TakeInterrupt
from emu.cpu.cpu import Cpu, RoutineContext, RoutineRole
from emu.machine import Machine


def process_of(machine: Machine, choice: Choice) -> int:
    """Whose step it is, by number: a step in a handler is its CPU's interrupts'."""
    interrupt = isinstance(choice, TakeInterrupt) or in_handler(machine.cpus[choice.cpu])
    return 2 * choice.cpu + interrupt


def in_handler(cpu: Cpu) -> bool:
    """Whether a stepwise interrupt handler is among the CPU's contexts."""
    return any(
        isinstance(context, RoutineContext) and context.role is RoutineRole.INTERRUPT
        for context in cpu.contexts
    )
