"""Shrinking: the shortest schedule found that still shows a finding, confirmed by running it.

A schedule is taken as blocks of one CPU's steps, and as answers. Blocks are taken out or joined (the steps
then happen later, or sooner) and answers are put back to what is usual, as long as the same finding is still
there. Fewest switches first, then fewest unusual answers, then fewest picks.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from emu.choice import Choice, Question, Step, TakeInterrupt
from hvolab.explore.budget import Budget
from hvolab.judge.verdict import Finding, Verdict, Where
from hvolab.subject.outcome import Limits, Run
from hvolab.subject.picker import Replay
from hvolab.subject.run import run_on
from hvolab.subject.scenario import Setup
from hvolab.subject.schedule import DecidePick, Schedule, VersionPick
from kernel_model.boot import System

RUNS = 300


class NotShown(ValueError):
    """The schedule to be shrunk does not show the finding."""


@dataclass(frozen=True, slots=True)
class Block:
    """A choice made so many times in a row."""

    choice: Choice
    count: int


@dataclass(frozen=True, slots=True)
class Shrunk:
    """`schedule` shows the finding: it was run. `runs`: how many runs that took."""

    finding: Finding
    schedule: Schedule
    switches: int
    switches_before: int
    runs: int


@dataclass(frozen=True, slots=True)
class _Draft:
    """Blocks in their order, and the answers that are not the usual one."""

    blocks: tuple[Block, ...]
    answers: Mapping[_QuestionPlace, int]


class _QuestionPlace(NamedTuple):
    """Which question: that of the step of that number of a CPU, and in which place there."""

    choice: Choice
    step: int
    place: int


class _Questions:
    """Counts the steps of each CPU and the questions in them."""

    def __init__(self) -> None:
        self._steps: dict[Choice, int] = {}
        self._choice: Choice = Step(0)
        self._place = 0

    def stepped(self, choice: Choice) -> None:
        self._steps[choice] = self._steps.get(choice, 0) + 1
        self._choice, self._place = choice, 0

    def asked(self) -> _QuestionPlace:
        self._place += 1
        return _QuestionPlace(self._choice, self._steps[self._choice], self._place)


class _Follow:
    """Follows a plan as far as the machine goes along with it, then lets whoever ran last go on."""

    def __init__(self, plan: _Draft) -> None:
        self._blocks = list(plan.blocks)
        self._left = plan.blocks[0].count if plan.blocks else 0
        self._answers = plan.answers
        self._questions = _Questions()
        self._last: Choice | None = None

    def pick(self, enabled: list[Choice]) -> Choice:
        self._last = self._pick(enabled)
        self._questions.stepped(self._last)
        return self._last

    def _pick(self, enabled: list[Choice]) -> Choice:
        while self._blocks:
            choice = self._blocks[0].choice
            if self._left and choice in enabled:
                self._left -= 1
                return choice
            self._blocks.pop(0)
            self._left = self._blocks[0].count if self._blocks else 0
        return self._last if self._last in enabled and isinstance(self._last, Step) else enabled[0]

    def answer(self, question: Question) -> int:
        wanted = self._answers.get(self._questions.asked(), question.default)
        return wanted if wanted < question.options else question.default

    def finish(self) -> None:
        """Any end is fine."""


class _Noting:
    """Replays a schedule and notes which answers are not the usual ones."""

    def __init__(self, schedule: Schedule) -> None:
        self.unusual: dict[_QuestionPlace, int] = {}
        self._replay = Replay(schedule)
        self._questions = _Questions()

    def pick(self, enabled: list[Choice]) -> Choice:
        choice = self._replay.pick(enabled)
        self._questions.stepped(choice)
        return choice

    def answer(self, question: Question) -> int:
        asked = self._questions.asked()
        picked = self._replay.answer(question)
        if picked != question.default:
            self.unusual[asked] = picked
        return picked

    def finish(self) -> None:
        self._replay.finish()


def switches(schedule: Schedule) -> int:
    """How often the schedule goes from one CPU's steps to another's, or takes an interrupt."""
    return max(0, len(_blocks(schedule)) - 1)


def shrink(
    system: System, setup: Setup, schedule: Schedule, key: tuple[Verdict, Where], budget: Budget
) -> Shrunk:
    """The shortest schedule found for the finding `key`. `system` is at time zero, and is left there.

    Raises NotShown when `schedule` does not show it, and ScheduleError when it cannot be followed.
    """
    return _Shrinking(system, setup, schedule, key, budget).result()


class _Shrinking:
    def __init__(
        self, system: System, setup: Setup, schedule: Schedule, key: tuple[Verdict, Where], budget: Budget
    ) -> None:
        self._system = system
        self._setup = setup
        self._key = key
        self._budget = budget
        self._begun = time.monotonic()
        self._runs = 1
        noting = _Noting(schedule)
        done = run_on(system, setup, lambda _system: noting)
        steps = system.machine.steps
        system.reset()
        finding = self._shown(done)
        if finding is None:
            raise NotShown(f"the schedule does not show {key[0].value!r} on cpu{key[1].cpu}")
        self._finding = finding
        # A run that was cut off is not made longer: it may have no end.
        self._most_steps = steps if schedule.cut else budget.steps
        self._before = schedule
        self._best, self._best_cost = schedule, self._cost(schedule, len(noting.unusual))
        self._plan = _Draft(_blocks(schedule), noting.unusual)

    def result(self) -> Shrunk:
        improved = True
        while improved and not self._spent():
            improved = (
                self._drop_blocks() or self._join_blocks() or self._usual_answers() or self._shorten_blocks()
            )
        return Shrunk(self._finding, self._best, switches(self._best), switches(self._before), self._runs)

    def _drop_blocks(self) -> bool:
        """Take out runs of blocks, the longest first."""
        count = len(self._plan.blocks)
        size = count
        while size:
            for first in range(count - size + 1):
                blocks = self._plan.blocks[:first] + self._plan.blocks[first + size :]
                if self._try(_Draft(blocks, self._plan.answers)):
                    return True
            size //= 2
        return False

    def _join_blocks(self) -> bool:
        """Let a CPU make the steps of one block together with those of its next, or of its last."""
        blocks = self._plan.blocks
        for number, block in enumerate(blocks):
            later = next(
                (n for n in range(number + 1, len(blocks)) if blocks[n].choice == block.choice), None
            )
            if later is None or isinstance(block.choice, TakeInterrupt):
                continue
            joined = Block(block.choice, block.count + blocks[later].count)
            for keep, drop in ((later, number), (number, later)):
                moved = [joined if n == keep else one for n, one in enumerate(blocks) if n != drop]
                if self._try(_Draft(tuple(moved), self._plan.answers)):
                    return True
        return False

    def _usual_answers(self) -> bool:
        for gone in self._plan.answers:
            answers = {which: pick for which, pick in self._plan.answers.items() if which != gone}
            if self._try(_Draft(self._plan.blocks, answers)):
                return True
        return False

    def _shorten_blocks(self) -> bool:
        """Let a block end earlier: what follows it may then need no switch back."""
        for number, block in enumerate(self._plan.blocks):
            for count in (block.count // 2, block.count - 1):
                if 0 < count < block.count:
                    blocks = list(self._plan.blocks)
                    blocks[number] = Block(block.choice, count)
                    if self._try(_Draft(tuple(blocks), self._plan.answers)):
                        return True
        return False

    def _try(self, plan: _Draft) -> bool:
        """Run a plan; keep it when it shows the finding and is better than the best."""
        if self._spent():
            return False
        self._runs += 1
        limits = Limits(self._most_steps)
        done = run_on(self._system, self._setup, lambda _system: _Follow(plan), (), limits)
        self._system.reset()
        cost = self._cost(done.schedule, len(plan.answers))
        finding = self._shown(done)
        if finding is None or cost >= self._best_cost:
            return False
        self._best, self._best_cost, self._finding = done.schedule, cost, finding
        self._plan = _Draft(_blocks(done.schedule), plan.answers)
        return True

    def _cost(self, schedule: Schedule, unusual: int) -> tuple[int, int, int]:
        return (switches(schedule), unusual, len(schedule.picks))

    def _shown(self, done: Run) -> Finding | None:
        return next((one for one in done.findings if (one.verdict, one.where) == self._key), None)

    def _spent(self) -> bool:
        runs = RUNS if self._budget.runs is None else self._budget.runs
        late = self._budget.seconds is not None and time.monotonic() - self._begun >= self._budget.seconds
        return self._runs >= runs or late


def _blocks(schedule: Schedule) -> tuple[Block, ...]:
    choices = [pick for pick in schedule.picks if not isinstance(pick, VersionPick | DecidePick)]
    found: list[Block] = []
    for choice, same in groupby(choices):
        # Two interrupts in a row are two: each ends something.
        if isinstance(choice, TakeInterrupt):
            found += [Block(choice, 1) for _ in same]
        else:
            found.append(Block(choice, sum(1 for _ in same)))
    return tuple(found)
