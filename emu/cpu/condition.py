"""What a CPU can wait for: the one way to block.

A condition is over named words (locks and the like, held by the machine), memory words, interrupt flags
and acknowledgements. `EachOnce` remembers which of its parts have held since the wait began.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, assert_never

from emu.addr import PhysAddr


@dataclass(frozen=True, slots=True)
class Word:
    """The name of a word that the machine holds beside memory; 0 until somebody adds to it."""

    name: str
    index: int = 0

    def __str__(self) -> str:
        return self.name if self.index == 0 else f"{self.name}[{self.index}]"


@dataclass(frozen=True, slots=True)
class WordIs:
    word: Word
    value: int

    def __str__(self) -> str:
        return f"{self.word} = {self.value}"


@dataclass(frozen=True, slots=True)
class MemoryIs:
    """The 8-byte word at a physical address has that value."""

    pa: PhysAddr
    value: int

    def __str__(self) -> str:
        return f"[{self.pa:#x}] = {self.value:#x}"


@dataclass(frozen=True, slots=True)
class InterruptsOn:
    cpu: int

    def __str__(self) -> str:
        return f"cpu{self.cpu} has IF=1"


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """Every target of that interrupt request has acknowledged it. In a routine `request` is a handle."""

    request: int

    def __str__(self) -> str:
        return f"request {self.request} is acknowledged by all"


@dataclass(frozen=True, slots=True)
class AllOf:
    """All hold at the same moment."""

    parts: tuple[Plain, ...]

    def __str__(self) -> str:
        return " and ".join(str(part) for part in self.parts)


@dataclass(frozen=True, slots=True)
class EachOnce:
    """Each has held at some moment since the wait began, not necessarily the same."""

    parts: tuple[Plain, ...]

    def __str__(self) -> str:
        return "once each: " + "; ".join(str(part) for part in self.parts)


Plain: TypeAlias = WordIs | MemoryIs | InterruptsOn | Acknowledged | AllOf
Condition: TypeAlias = Plain | EachOnce


def words_of(condition: Condition) -> list[Word]:
    """The named words that it is over."""
    match condition:
        case WordIs(word=word):
            return [word]
        case AllOf(parts=parts) | EachOnce(parts=parts):
            return [word for part in parts for word in words_of(part)]
        case MemoryIs() | InterruptsOn() | Acknowledged():
            return []
        case _:
            assert_never(condition)
