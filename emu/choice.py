"""Every freedom of hardware and schedule, as one type.

Between steps the machine lists what can happen next (`Step`, `TakeInterrupt`); inside a step it may ask
which version of a translation is used (`VersionQuestion`) or how a `Decide` comes out (`DecideQuestion`).
A schedule is the list of answers (`hvolab.subject.schedule`). Nothing else in the machine is random.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from emu.addr import VirtAddr
from emu.paging.tlb import TlbEntry


@dataclass(frozen=True, slots=True, order=True)
class Step:
    """That CPU performs one instruction or one op of its topmost context."""

    cpu: int


@dataclass(frozen=True, slots=True, order=True)
class TakeInterrupt:
    """That CPU takes its oldest pending interrupt."""

    cpu: int


Choice: TypeAlias = Step | TakeInterrupt


@dataclass(frozen=True, slots=True)
class VersionQuestion:
    """Which of `entries` does this access use, or (the last option, if `walk`) a walk made now?"""

    cpu: int
    va: VirtAddr
    entries: Sequence[TlbEntry]
    walk: bool

    @property
    def options(self) -> int:
        return len(self.entries) + self.walk

    @property
    def default(self) -> int:
        """The newest: the walk where there is one."""
        return self.options - 1


@dataclass(frozen=True, slots=True)
class DecideQuestion:
    """How does a `Decide` of the software come out? Option 0 is the ordinary one."""

    cpu: int
    label: str
    options: int
    default: int = 0


Question: TypeAlias = VersionQuestion | DecideQuestion


class Answerer(Protocol):
    """Answers the questions inside a step. Called within engine callbacks: it must not touch the machine."""

    def answer(self, question: Question) -> int:
        """A number from 0 to `question.options - 1`."""
        ...


class Defaults:
    """Answers every question with its default."""

    def answer(self, question: Question) -> int:
        return question.default
