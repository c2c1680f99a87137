"""Who is told of an exploration while it is under way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from hvolab.judge.verdict import Finding
from hvolab.subject.schedule import Schedule
from hvolab.subject.script import Script


@dataclass(frozen=True, slots=True)
class Found:
    """A finding and the first run that had it, counted from 1. `script`: the same as constraints, if made."""

    finding: Finding
    schedule: Schedule
    at_run: int
    script: Script = ()


class Audience(Protocol):
    """Told in the process that explores, between two runs."""

    def ran(self, runs: int, found: int) -> None:
        """There were so many runs until now, and so many findings."""
        ...

    def found(self, one: Found) -> str | None:
        """Something was found that nobody has been told of. Returns why to stop there, or None to go on."""
        ...


class Silent:
    """Nobody listens, and nothing is a reason to stop."""

    def ran(self, runs: int, found: int) -> None: ...

    def found(self, one: Found) -> str | None:
        del one
        return None


SILENT = Silent()
