"""Every freedom of hardware and schedule, as one type.

Between steps the machine lists what can happen next (`Step`, `TakeInterrupt`); inside a step it may ask
which version of a translation is used (`VersionQuestion`) or how a `Decide` comes out (`DecideQuestion`).
A schedule is the list of answers (`hvolab.subject.schedule`). Nothing else in the machine is random.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, TypeAlias

from emu.addr import VirtAddr
from emu.paging.dead_end import DeadEnd
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
    """Which of `entries` does this access use, or a walk made now (the last option, if `walk`)?

    Between the two are the `dead_ends`: walks made now that begin at a remembered directory entry.
    """

    cpu: int
    va: VirtAddr
    entries: Sequence[TlbEntry]
    walk: bool
    dead_ends: Sequence[DeadEnd] = ()

    @property
    def options(self) -> int:
        return len(self.entries) + len(self.dead_ends) + self.walk

    @property
    def default(self) -> int:
        """The newest: the walk where there is one."""
        return self.options - 1

    def option(self, number: int) -> TlbEntry | DeadEnd | None:
        """What that option stands for; None for the walk."""
        if number < len(self.entries):
            return self.entries[number]
        number -= len(self.entries)
        return self.dead_ends[number] if number < len(self.dead_ends) else None


class About(Enum):
    """What a decision is about."""

    OUTCOME = "how something comes out that software cannot know"
    ARRIVAL = "whether an interrupt comes that nothing can hold back"


@dataclass(frozen=True, slots=True)
class DecideQuestion:
    """How does a `Decide` of the software come out? Option 0 is the ordinary one."""

    cpu: int
    label: str
    options: int
    default: int = 0
    about: About = About.OUTCOME


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
