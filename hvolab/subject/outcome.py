"""How a run ended, what it may cost, and what it left behind."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TypeAlias

from hvolab.judge.rows.locks import TakenInOrder
from hvolab.judge.sight.sight import Sight
from hvolab.judge.verdict import Finding, Use, Verdict
from hvolab.subject.costs import NO_COSTS, Costs
from hvolab.subject.schedule import Schedule
from kernel_model.boot import System

MOST_STEPS = 1_000_000
MOST_GUEST_STEPS = 50_000  # some seconds


@dataclass(frozen=True, slots=True)
class Completed:
    """Every CPU ran to its end."""

    def __str__(self) -> str:
        return "completed"


@dataclass(frozen=True, slots=True)
class Deadlocked:
    """Work was left and nothing could happen. `waits`: what each CPU waits for."""

    waits: tuple[tuple[int, str], ...]

    def __str__(self) -> str:
        return "deadlock: " + "; ".join(f"cpu{cpu} waits for {what}" for cpu, what in self.waits)


@dataclass(frozen=True, slots=True)
class OutOfSteps:
    """The steps ended before the run did. `at`: where each CPU was that had not ended.

    `whose`: which steps they were.
    """

    steps: int
    at: tuple[tuple[int, str], ...] = ()
    whose: str = ""

    def __str__(self) -> str:
        return f"cut off after {self.steps} steps{self.whose}{_places(self.at)}"


@dataclass(frozen=True, slots=True)
class OutOfTime:
    """The time budget ended before the run did. `at`: where each CPU was that had not ended."""

    seconds: float
    at: tuple[tuple[int, str], ...] = ()

    def __str__(self) -> str:
        return f"cut off after {self.seconds:g} s{_places(self.at)}"


def _places(at: tuple[tuple[int, str], ...]) -> str:
    return "".join(f"; cpu{cpu} was in {where}" for cpu, where in at)


Outcome: TypeAlias = Completed | Deadlocked | OutOfSteps | OutOfTime


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run may cost. `until` is a reading of time.monotonic(); looked at now and then.

    `guest_steps`: of all guest programs together. A kernel may take long, a guest program that does spins.
    """

    steps: int = MOST_STEPS
    guest_steps: int = MOST_GUEST_STEPS
    until: float | None = None
    seconds: float = 0.0  # what `until` stands for, to be told

    def is_late(self) -> bool:
        return self.until is not None and time.monotonic() > self.until


@dataclass(frozen=True, slots=True)
class Run:
    """What a run left behind. `system` is the machine as it was at the end, `sight` what was seen of it,
    `lock_orders` which locks were taken while which were held.

    `costs` are counted for runs by themselves, not for the many of an exploration.
    """

    schedule: Schedule
    outcome: Outcome
    uses: tuple[Use, ...]
    findings: tuple[Finding, ...]
    events: int
    system: System
    sight: Sight
    lock_orders: frozenset[TakenInOrder] = frozenset()
    costs: Costs = NO_COSTS

    @property
    def wrong(self) -> bool:
        """Whether a violation was found."""
        return any(finding.verdict.is_violation for finding in self.findings)

    @property
    def model_error(self) -> bool:
        """Whether the emulation itself was caught out."""
        return any(finding.verdict is Verdict.MODEL_ERROR for finding in self.findings)


NO_LIMITS = Limits()
