"""The explorer: run after run on one machine, until the strategy or the budget ends."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from emu.contents import Contents
from emu.cpu.condition import Word
from emu.cpu.recall import Recall
from hvolab.checked.error import InputError
from hvolab.checked.json_value import Json
from hvolab.checked.place import Place
from hvolab.explore.audience import SILENT, Audience, Found
from hvolab.explore.budget import Budget
from hvolab.explore.checkpoint import Checkpoint, CheckpointError
from hvolab.explore.collector import rarely_collected
from hvolab.explore.coverage import INTERRUPTED, Coverage, Tally
from hvolab.explore.interrupts import held_interrupts
from hvolab.explore.search.interface import (
    Freedom,
    InMemory,
    Next,
    NoProgress,
    Redundant,
    SeenBefore,
    Strategy,
)
from hvolab.judge.rows.locks import TakenInOrder, inversions
from hvolab.judge.sight.sight import Sight
from hvolab.judge.verdict import Finding, Verdict, Where
from hvolab.subject.blame import NOT_FOUND_AGAIN, LoadError
from hvolab.subject.fingerprint import stamped
from hvolab.subject.outcome import Limits, OutOfTime, Run
from hvolab.subject.picker import Diverged, Picker, Replay
from hvolab.subject.run import Running, run_on
from hvolab.subject.scenario import Setup
from hvolab.subject.schedule import Schedule, ScheduleError, parse
from kernel_model.boot import System, boot

RUNS_A_CHECK = 50  # of so many complete runs one is made again, by the routines themselves


@dataclass(frozen=True, slots=True)
class _CameTo:
    """What a run has come to, which it must come to again. `memory`: what it differs by from time zero."""

    findings: tuple[Finding, ...]
    steps: int
    events: int
    memory: int
    words: Mapping[Word, int]
    counters: Mapping[tuple[str, int], int]


@dataclass(frozen=True, slots=True)
class Exploration:
    """The findings, each kind once, in the order they were found.

    `warnings`: what no run was wrong by, and yet may be: two locks that were taken in both orders.
    """

    coverage: Coverage
    found: tuple[Found, ...]
    warnings: tuple[str, ...] = ()


def explore(
    setup: Setup,
    strategy: Strategy,
    freedoms: frozenset[Freedom],
    budget: Budget,
    audience: Audience = SILENT,
    checkpoint: Checkpoint | None = None,
) -> Exploration:
    """Explore `setup`. The audience is told after every run, and may end it.

    A SIGINT ends it like a budget does, after the run under way: what was found is kept. With a checkpoint it
    goes on where that one left off. Raises what the strategy raises when it cannot explore the setup
    (CannotReduce), and CheckpointError.
    """
    exploring = Exploring(setup, strategy, freedoms, budget, checkpoint)
    stopped_by: str | None = None
    with held_interrupts() as interrupts, rarely_collected():
        try:
            while stopped_by is None and strategy.begin():
                exploring.one_run()
                stopped_by = exploring.tell(audience)
                if stopped_by is None:
                    stopped_by = INTERRUPTED if interrupts.asked else exploring.spent()
            if stopped_by is None:
                exploring.check_the_last()
        except KeyboardInterrupt:
            stopped_by = INTERRUPTED
        else:
            exploring.save()
    return exploring.done(stopped_by)


class Exploring:
    """One exploration under way: a machine, and what has been counted and found so far."""

    def __init__(
        self,
        setup: Setup,
        strategy: Strategy,
        freedoms: frozenset[Freedom],
        budget: Budget,
        checkpoint: Checkpoint | None,
    ) -> None:
        self.tally = Tally()
        self.found: dict[tuple[Verdict, Where], Found] = {}
        self.lock_orders: set[TakenInOrder] = set()
        self.ran = False
        self._setup = setup
        self._strategy = strategy
        self._freedoms = freedoms
        self._budget = budget
        self._checkpoint = checkpoint
        self._system = boot(setup.boot)
        self._recall = Recall()
        self._system.machine.routines = self._recall
        self._begun = time.monotonic()
        self._before = 0.0  # seconds spent before the checkpoint
        self._running: Running | None = None
        self._last: tuple[Schedule, _CameTo] | None = None
        self._half_done = False
        self._completed = 0
        self._remembered_before = 0  # states, when counting began
        self._told = 0  # how many of the findings the audience knows
        saved = None if checkpoint is None else checkpoint.load()
        if saved is not None:
            try:
                self._load(saved)
            except InputError as error:
                raise CheckpointError(f"damaged checkpoint: {error}") from None

    def begin_anew(self, budget: Budget) -> None:
        """Nothing has been counted or found, and that much may be spent. What is known of routines stays."""
        self.tally = Tally()
        self.found.clear()
        self.lock_orders.clear()
        self._budget = budget
        self._begun = time.monotonic()
        self._before, self._told = 0.0, 0
        self._running = self._last = None
        self._remembered_before = self._strategy.remembered.states

    def one_run(self) -> Next:
        """The next run, which goes on where it parts from the last one where the strategy knows that."""
        known = len(self.found)
        self.ran = True
        done: Run | None = None
        running = self._going_on()
        try:
            done = running.go(self._limits())
            self.tally.completed(done)
        except SeenBefore as seen:
            self.tally.seen_before(self._system.machine.steps)
            if isinstance(seen, NoProgress):
                self.tally.no_progress = self.tally.no_progress or seen.where
        except Redundant:
            self.tally.given_up(self._system.machine.steps)
        following = self._strategy.end(self._system)
        schedule = running.cut_here() if done is None else done.schedule
        self._note(schedule, running)
        states = self._strategy.remembered
        self.tally.remembered = InMemory(max(0, states.states - self._remembered_before), states.full)
        self._half_done = done is not None and isinstance(done.outcome, OutOfTime)
        if done is not None:
            self._last = schedule, self._came_to(running)
            self._completed += 1
        is_due = done is not None and not self._completed % RUNS_A_CHECK
        if len(self.found) > known or is_due:
            self._check(schedule, self._came_to(running))
        if following is Next.START_AGAIN:
            self.tally.learned()
        if self._checkpoint is not None and (len(self.found) > known or self._checkpoint.due()):
            self.save()
        return following

    def check_the_last(self) -> None:
        """Make the last run again, as `_check` does, if there has been one."""
        if self._last is not None:
            self._check(*self._last)

    def _check(self, schedule: Schedule, came_to: _CameTo) -> None:
        """Make a run again, step by step and by the routines themselves. Raises Unrepeatable, LoadError."""
        self._recall.checking = True
        try:
            again = self._came_to(self._followed(schedule))
        except Diverged:
            again = None
        if again != came_to:
            raise LoadError(NOT_FOUND_AGAIN) if self._setup.loaded else AssertionError(NOT_FOUND_AGAIN)
        self._recall.checking = False

    def _came_to(self, run: Run | Running) -> _CameTo:
        machine = self._system.machine
        events, memory = machine.trace.next_number, Contents(machine.memory).number()
        words, counters = machine.words.copy(), machine.counters.copy()
        return _CameTo(run.findings, machine.steps, events, memory, words, counters)

    def _going_on(self) -> Running:
        """The last run, gone back to what this one shares with it; or one from time zero."""
        running, shared = self._running, self._strategy.shared
        if running is not None and shared and running.back(shared):
            self.tally.gone_back(self._system.machine.steps)
            return running
        self._system.reset()
        self._running = Running(self._system, self._setup, self._picker)
        return self._running

    def _followed(self, schedule: Schedule) -> Run:
        """A run by that schedule, on the machine of the others. Raises ScheduleError."""
        self._running = None
        self._system.reset()
        return run_on(self._system, self._setup, lambda _system: Replay(schedule))

    def tell(self, audience: Audience) -> str | None:
        """Tell how it goes, and what is new. Returns why to stop, or None."""
        news = [*self.found.values()][self._told :]
        self._told = len(self.found)
        audience.ran(self.tally.made, len(self.found))
        reasons = [audience.found(one) for one in news]
        return next((reason for reason in reasons if reason is not None), None)

    def _limits(self) -> Limits:
        """Of the run to come: its own, and what is left of the time."""
        budget = self._budget
        if budget.seconds is None:
            return Limits(budget.steps)
        return Limits(budget.steps, until=self._begun + budget.seconds, seconds=budget.seconds)

    def spent(self) -> str | None:
        """Which budget is used up."""
        return self._budget.spent(self.tally.made, time.monotonic() - self._begun)

    def done(self, stopped_by: str | None) -> Exploration:
        seconds = self._before + time.monotonic() - self._begun
        coverage = self.tally.coverage(
            self._strategy.extent(), self._freedoms, self._setup, seconds, stopped_by
        )
        found = (replace(one, schedule=stamped(one.schedule, self._setup)) for one in self.found.values())
        warnings = (f"two locks in both orders: {words}" for words in inversions(self.lock_orders))
        return Exploration(coverage, tuple(found), tuple(warnings))

    def save(self) -> None:
        """Write the checkpoint, if there is one to be written.

        Before the first run the strategy is where the checkpoint has it. A run that the time cut off is to be
        made again: the checkpoint stays as it was before it.
        """
        if self._checkpoint is not None and self.ran and not self._half_done:
            self._checkpoint.save(self.state())

    def state(self) -> Json:
        """All there is to know between two runs."""
        found: list[Json] = [
            {
                "verdict": one.finding.verdict.value,
                "cpu": one.finding.where.cpu,
                "va": f"{one.finding.where.va:#x}",
                "at_run": one.at_run,
                "schedule": str(one.schedule),
            }
            for one in self.found.values()
        ]
        milliseconds = int(1000 * (self._before + time.monotonic() - self._begun))
        return {
            "milliseconds": milliseconds,
            "tally": self.tally.save(),
            "found": found,
            "lock_orders": [list[Json](one.words()) for one in sorted(self.lock_orders)],
            "search": self._strategy.save(),
        }

    def _picker(self, system: System, sight: Sight) -> Picker:
        return self._strategy.picker(system, sight, self._freedoms)

    def _note(self, schedule: Schedule, running: Running) -> None:
        """What the run has shown counts, however it ended: nobody behind a state shows it again."""
        for finding in running.findings:
            key = (finding.verdict, finding.where)
            self.found.setdefault(key, Found(finding, schedule, max(1, self.tally.made)))
        self.lock_orders |= running.lock_orders

    def _load(self, place: Place) -> None:
        self._before = place.field("milliseconds").count() / 1000
        self.tally.load(place.field("tally"))
        self._strategy.load(place.field("search"))
        self.add_found(place.field("found"))
        self.add_lock_orders(place.field("lock_orders"))

    def add_lock_orders(self, place: Place) -> None:
        """What another process, or another time, has seen of locks."""
        for row in place.items():
            words = [one.text() for one in row.items()]
            if len(words) != 4:
                raise row.wanted("two locks, each with the function that took it")
            self.lock_orders.add(TakenInOrder.of(*words))

    def add_found(self, place: Place) -> None:
        """Findings of another process, or of another time."""
        for row in place.items():
            found = self._replayed(row)
            self.found.setdefault((found.finding.verdict, found.finding.where), found)

    def _replayed(self, row: Place) -> Found:
        """A finding, from the schedule that shows it."""
        verdict, cpu, va = row.field("verdict").text(), row.field("cpu").count(), row.field("va").word()
        try:
            schedule = parse(row.field("schedule").text())
            done = self._followed(schedule)
        except ScheduleError as error:
            raise row.error(str(error)) from None
        for finding in done.findings:
            where = finding.where
            if (finding.verdict.value, where.cpu, where.va) == (verdict, cpu, va):
                return Found(finding, schedule, row.field("at_run").count())
        raise row.error(f"the schedule does not show {verdict!r} on cpu{cpu} at {va:#x}")
