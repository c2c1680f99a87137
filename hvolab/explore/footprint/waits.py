"""What a wait is over, as resources: for its footprint, and for what could have come before it."""

from __future__ import annotations

from typing import assert_never

from emu.addr import PAGE_SHIFT
from emu.cpu.condition import Acknowledged, AllOf, Condition, EachOnce, InterruptsOn, MemoryIs, WordIs
from hvolab.explore.footprint.sections import Sections
from hvolab.judge.sight.resource import Kind, Resource, Touched


class Waits:
    """Of one run on a machine with so many CPUs."""

    def __init__(self, cpus: int, sections: Sections) -> None:
        self._cpus = range(cpus)
        self._sections = sections

    def touches(self, condition: Condition, cpu: int) -> set[Touched]:
        """What a condition that `cpu` waits for reads."""
        match condition:
            case WordIs(word=word):
                return {word}
            case MemoryIs(pa=pa):
                return {pa >> 3, Resource(Kind.BULK_WRITE, pa >> PAGE_SHIFT)}
            case InterruptsOn(cpu=other):
                return {Resource(Kind.INTERRUPT_FLAG, other)}
            case Acknowledged():
                return {Resource(Kind.ACKNOWLEDGED, cpu, other) for other in self._cpus}
            case EachOnce() if self._sections.knows(condition):
                return self._sections.owed(cpu)
            case AllOf(parts=parts) | EachOnce(parts=parts):
                return {touched for part in parts for touched in self.touches(part, cpu)}
            case _:
                assert_never(condition)

    def parts(self, condition: Condition, cpu: int) -> dict[Touched, int | None]:
        """What must have which value for the wait to end; None where that cannot be said."""
        match condition:
            case WordIs(word=word, value=value):
                return {word: value}
            case MemoryIs(pa=pa, value=value):
                return {pa >> 3: value}
            case InterruptsOn(cpu=other):
                return {Resource(Kind.INTERRUPT_FLAG, other): 1}
            case Acknowledged():
                return dict.fromkeys(self.touches(condition, cpu), 1)
            case AllOf(parts=parts):
                return {touched: value for part in parts for touched, value in self.parts(part, cpu).items()}
            case EachOnce():
                known = 1 if self._sections.knows(condition) else None
                return dict.fromkeys(self.touches(condition, cpu), known)
            case _:
                assert_never(condition)
