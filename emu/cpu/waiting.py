"""Whether a condition holds: what decides that a blocked CPU can go on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import assert_never

from emu.cpu.apic import Apic
from emu.cpu.condition import (
    Acknowledged,
    AllOf,
    Condition,
    EachOnce,
    InterruptsOn,
    MemoryIs,
    Plain,
    Word,
    WordIs,
)
from emu.cpu.cpu import RoutineContext
from emu.cpu.ops import Await
from emu.memory import PhysicalMemory


class Waiting:
    """Evaluates conditions over the machine's words, memory, interrupt flags and acknowledgements."""

    def __init__(
        self,
        words: Counter[Word],
        memory: PhysicalMemory,
        apic: Apic,
        interrupts_on: Callable[[int], bool],
    ) -> None:
        self._words = words
        self._memory = memory
        self._apic = apic
        self._interrupts_on = interrupts_on

    def holds(self, condition: Condition, context: RoutineContext) -> bool:
        """Whether the context that waits for it can go on."""
        if isinstance(condition, EachOnce):
            return context.once == (1 << len(condition.parts)) - 1
        return self._holds_now(condition)

    def note_once(self, context: RoutineContext) -> None:
        """Remember which parts of an EachOnce hold now. To be called after every step."""
        if not isinstance(context.pending, Await):
            return
        condition = context.pending.condition
        if isinstance(condition, EachOnce):
            for index, part in enumerate(condition.parts):
                if self._holds_now(part):
                    context.once |= 1 << index

    def _holds_now(self, condition: Plain) -> bool:
        match condition:
            case WordIs(word=word, value=value):
                return self._words[word] == value
            case MemoryIs(pa=pa, value=value):
                return self._memory.read_word(pa) == value
            case InterruptsOn(cpu=cpu):
                return self._interrupts_on(cpu)
            case AllOf(parts=parts):
                return all(self._holds_now(part) for part in parts)
            case Acknowledged(request=request):
                return self._apic.acknowledged(request)
            case _:
                assert_never(condition)
