"""Who picks: the seam between a run and the way through it. The runner owns the loop."""

from __future__ import annotations

from random import Random
from typing import Protocol

from emu.choice import Choice, Question, Step, TakeInterrupt, VersionQuestion
from hvolab.schedule import Answer, DecidePick, Schedule, ScheduleError, VersionPick, answer_to


class Strategy(Protocol):
    """Picks what happens next and answers what is asked inside a step."""

    def pick(self, enabled: list[Choice]) -> Choice:
        """Choose one. `enabled` is never empty and its order is deterministic."""
        ...

    def answer(self, question: Question) -> int:
        """0 to `question.options - 1`."""
        ...

    def finish(self) -> None:
        """Nothing more can happen. Raises an error if that is not what the strategy expects."""
        ...


class InOrder:
    """The first of what can happen, every time: the lowest CPU until it waits or ends."""

    def pick(self, enabled: list[Choice]) -> Choice:
        return enabled[0]

    def answer(self, question: Question) -> int:
        return question.default

    def finish(self) -> None:
        """Any end is fine."""


class Replay:
    """Follows a schedule. What the run offers must be what the schedule was made from."""

    def __init__(self, schedule: Schedule) -> None:
        self._picks = schedule.picks
        self._at = 0

    def pick(self, enabled: list[Choice]) -> Choice:
        wanted = self._next()
        if not isinstance(wanted, Step | TakeInterrupt) or wanted not in enabled:
            offered = ", ".join(str(Schedule((choice,))).split()[1] for choice in enabled)
            raise self._diverged(f"can run: {offered}")
        return wanted

    def answer(self, question: Question) -> int:
        wanted = self._next()
        kind = VersionPick if isinstance(question, VersionQuestion) else DecidePick
        if not isinstance(wanted, kind) or wanted.options != question.options:
            raise self._diverged(f"asks for {answer_to(question, question.default)} or the like")
        return wanted.pick

    def finish(self) -> None:
        if self._at < len(self._picks):
            raise ScheduleError(f"the run ended after {self._at} of the schedule's {len(self._picks)} picks")

    def _next(self) -> Choice | Answer:
        if self._at == len(self._picks):
            raise ScheduleError(f"the schedule ends after {self._at} picks, but the run goes on")
        self._at += 1
        return self._picks[self._at - 1]

    def _diverged(self, instead: str) -> ScheduleError:
        wanted = str(Schedule((self._picks[self._at - 1],))).split()[1]
        return ScheduleError(f"pick {self._at} of the schedule is {wanted}, but the run {instead}")


class Priorities:
    """Random priorities of the CPUs with a few change points, from a seed (after PCT, ASPLOS 2010).

    A uniform choice of the next CPU would hardly ever let one CPU fall behind another by more than a few
    steps; priorities do. Interrupts have priorities of their own.
    """

    CHANGE_POINTS = 3
    RUN_LENGTH = 512

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._priority: dict[Choice, float] = {}
        points = self._random.sample(range(1, self.RUN_LENGTH), self.CHANGE_POINTS)
        self._change_at = frozenset(points)
        self._step = 0

    def pick(self, enabled: list[Choice]) -> Choice:
        for choice in enabled:
            if choice not in self._priority:
                self._priority[choice] = self._random.random()
        best = max(enabled, key=lambda choice: self._priority[choice])
        self._step += 1
        if self._step in self._change_at:
            self._priority[best] = -self._random.random()
        return best

    def answer(self, question: Question) -> int:
        return self._random.randrange(question.options) if isinstance(question, VersionQuestion) else 0

    def finish(self) -> None:
        """Any end is fine."""
