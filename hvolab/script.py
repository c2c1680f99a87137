"""Scripts: a schedule written by hand, as ordering constraints on events rather than picks.

    cpu1 until Load(0xffffea0000101000)
    cpu0 until set_pte_at(0xffffea0000101000)
    cpu1 to its end

A script survives a change in the number of ops, because it is resolved to picks only when it is run. While
the CPU it drives waits, others take their pending interrupts (nothing else of theirs happens). A constraint
that cannot be met is an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, assert_never

from emu.choice import Choice, Question, Step, TakeInterrupt
from emu.events import MachineEvent
from emu.machine import Machine
from hvolab.pattern import Pattern, matches


@dataclass(frozen=True, slots=True)
class Until:
    """The CPU runs until, and including, the step in which it does what the pattern says."""

    cpu: int
    pattern: Pattern

    def __str__(self) -> str:
        return f"cpu{self.cpu} until {self.pattern}"


@dataclass(frozen=True, slots=True)
class ToEnd:
    """The CPU runs until it has nothing left to do."""

    cpu: int

    def __str__(self) -> str:
        return f"cpu{self.cpu} to its end"


@dataclass(frozen=True, slots=True)
class Interrupt:
    """The CPU takes its oldest pending interrupt."""

    cpu: int

    def __str__(self) -> str:
        return f"cpu{self.cpu} takes an interrupt"


Constraint: TypeAlias = Until | ToEnd | Interrupt
Script: TypeAlias = tuple[Constraint, ...]


class ScriptError(Exception):
    """A constraint cannot be met."""


class ScriptStrategy:
    """Resolves a script to picks. After its last constraint, runs what is left, lowest CPU first."""

    def __init__(self, script: Script, machine: Machine) -> None:
        self._script = script
        self._machine = machine
        self._at = 0
        self._met = False
        machine.trace.listen(self._observe)

    def pick(self, enabled: list[Choice]) -> Choice:
        """The next choice. Raises ScriptError when the current constraint cannot be met any more."""
        self._advance()
        if self._at == len(self._script):
            return enabled[0]
        constraint = self._script[self._at]
        wanted = TakeInterrupt(constraint.cpu) if isinstance(constraint, Interrupt) else Step(constraint.cpu)
        if wanted in enabled:
            self._met = isinstance(constraint, Interrupt)
            return wanted
        others = [choice for choice in enabled if isinstance(choice, TakeInterrupt)]
        waits = self._machine.blocked().get(constraint.cpu)
        if waits is None or not others or isinstance(constraint, Interrupt):
            raise ScriptError(f"cannot meet '{constraint}': {self._why_not(constraint, waits)}")
        return others[0]

    def finish(self) -> None:
        """The run is over. Raises ScriptError when a constraint is left that was not met."""
        self._advance()
        if self._at < len(self._script):
            constraint = self._script[self._at]
            waits = self._machine.blocked().get(constraint.cpu)
            raise ScriptError(f"cannot meet '{constraint}': {self._why_not(constraint, waits)}")

    def answer(self, question: Question) -> int:
        return question.default

    def _advance(self) -> None:
        while self._at < len(self._script):
            constraint = self._script[self._at]
            if isinstance(constraint, ToEnd):
                if self._machine.cpus[constraint.cpu].contexts:
                    return
            elif not self._met:
                return
            self._at, self._met = self._at + 1, False

    def _observe(self, _number: int, event: MachineEvent) -> None:
        if self._at == len(self._script):
            return
        constraint = self._script[self._at]
        if isinstance(constraint, Until) and event.cpu == constraint.cpu:
            self._met = self._met or matches(constraint.pattern, event, self._machine)

    def _why_not(self, constraint: Constraint, waits: str | None) -> str:
        match constraint:
            case Interrupt():
                return "none is pending, or interrupts are off"
            case Until() | ToEnd():
                return "the CPU has ended" if waits is None else f"the CPU waits for {waits}"
            case _:
                assert_never(constraint)
