"""Who picks: the seam between a run and the way through it. The runner owns the loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from emu.choice import Choice, Question, Step, TakeInterrupt, VersionQuestion
from hvolab.subject.schedule import DecidePick, Pick, Schedule, ScheduleError, VersionPick, answer_to


class Picker(Protocol):
    """Picks what happens next and answers what is asked inside a step."""

    def pick(self, enabled: list[Choice]) -> Choice:
        """Choose one. `enabled` is never empty and its order is deterministic. CutHere ends the run."""
        ...

    def answer(self, question: Question) -> int:
        """0 to `question.options - 1`."""
        ...

    def finish(self) -> None:
        """Nothing more can happen. Raises an error if that is not what the picker expects."""
        ...


class CutHere(Exception):
    """The run that is followed was cut off here: so is this one."""


class InOrder:
    """The first of what can happen, every time: the lowest CPU until it waits or ends."""

    def pick(self, enabled: list[Choice]) -> Choice:
        return enabled[0]

    def answer(self, question: Question) -> int:
        return question.default

    def finish(self) -> None:
        """Any end is fine."""


@dataclass(frozen=True, slots=True)
class Stale:
    """A schedule was made from one setup and is followed on another: their fingerprints."""

    made_from: str
    runs_on: str

    def __str__(self) -> str:
        return f"the schedule was made from another setup (@{self.made_from}, this one is @{self.runs_on})"


class Diverged(ScheduleError):
    """A run cannot follow a schedule, from pick `at` on, counted from 1."""

    def __init__(self, at: int, why: str) -> None:
        super().__init__(why)
        self.at = at


class Replay:
    """Follows a schedule. What the run offers must be what the schedule was made from, or it is Diverged.

    The schedule of a run that was cut off ends with CutHere.
    `fingerprint` is that of the setup it runs on; None when nobody knows it, and then nothing is stale.
    """

    def __init__(self, schedule: Schedule, fingerprint: str | None = None) -> None:
        self._picks = schedule.picks
        self._cut = schedule.cut
        self._at = 0
        self._made_from = schedule.fingerprint
        self._runs_on = fingerprint

    @property
    def stale(self) -> Stale | None:
        """That the schedule was made from another setup. It may fit all the same."""
        if self._made_from is None or self._runs_on is None or self._made_from == self._runs_on:
            return None
        return Stale(self._made_from, self._runs_on)

    def pick(self, enabled: list[Choice]) -> Choice:
        if self._cut and self._at == len(self._picks):
            raise CutHere
        wanted = self._next()
        if not isinstance(wanted, Step | TakeInterrupt) or wanted not in enabled:
            offered = ", ".join(_word(choice) for choice in enabled)
            raise self._another(f"can run: {offered}")
        return wanted

    def answer(self, question: Question) -> int:
        wanted = self._next()
        kind = VersionPick if isinstance(question, VersionQuestion) else DecidePick
        if not isinstance(wanted, kind) or wanted.options != question.options:
            raise self._another(f"asks for {answer_to(question, question.default)} or the like")
        return wanted.pick

    def finish(self) -> None:
        if self._at < len(self._picks):
            why = f"the run ended after {self._at} of the schedule's {len(self._picks)} picks"
            raise self._diverged(self._at + 1, why)

    def _next(self) -> Pick:
        if self._at == len(self._picks):
            raise self._diverged(
                self._at + 1, f"the schedule ends after {self._at} picks, but the run goes on"
            )
        self._at += 1
        return self._picks[self._at - 1]

    def _another(self, instead: str) -> Diverged:
        wanted = _word(self._picks[self._at - 1])
        return self._diverged(self._at, f"pick {self._at} of the schedule is {wanted}, but the run {instead}")

    def _diverged(self, at: int, why: str) -> Diverged:
        return Diverged(at, why if self.stale is None else f"{why}; {self.stale}")


class ReplayThenInOrder:
    """Follows a schedule as long as the run offers what it asks for, and then goes in order.

    `diverged_at` is the number of the first pick, counted from 1, that is not the schedule's, and `why` says
    what was in the way; both None until then.
    """

    def __init__(self, schedule: Schedule, fingerprint: str | None = None) -> None:
        self._replay = Replay(schedule, fingerprint)
        self._in_order = InOrder()
        self.diverged_at: int | None = None
        self.why: str | None = None

    @property
    def stale(self) -> Stale | None:
        """As of `Replay`."""
        return self._replay.stale

    def pick(self, enabled: list[Choice]) -> Choice:
        if self.diverged_at is None:
            try:
                return self._replay.pick(enabled)
            except Diverged as diverged:
                self._remember(diverged)
        return self._in_order.pick(enabled)

    def answer(self, question: Question) -> int:
        if self.diverged_at is None:
            try:
                return self._replay.answer(question)
            except Diverged as diverged:
                self._remember(diverged)
        return self._in_order.answer(question)

    def finish(self) -> None:
        """Any end is fine; one before the schedule's is where they diverged."""
        if self.diverged_at is None:
            try:
                self._replay.finish()
            except Diverged as diverged:
                self._remember(diverged)

    def _remember(self, diverged: Diverged) -> None:
        self.diverged_at, self.why = diverged.at, str(diverged)


def _word(pick: Pick) -> str:
    """A pick as the text of a schedule has it."""
    return str(Schedule((pick,))).split()[1]
