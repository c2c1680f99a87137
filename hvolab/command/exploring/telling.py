"""What is told of an exploration while it goes on, and what is made of its findings afterwards.

Each finding is told in one line when it is found; shrinking it, and making a script of it, takes runs of its
own and comes at the end, within a bound that is said.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from hvolab.command.playing import following
from hvolab.explore.audience import Found
from hvolab.explore.budget import Budget
from hvolab.explore.explorer import Exploration
from hvolab.explore.retell.as_script import NoScript, as_script
from hvolab.explore.retell.shrink import NotShown, shrink
from hvolab.judge.verdict import Finding, Verdict, Where
from hvolab.show.report import grouped, guilt_of
from hvolab.subject.blame import NOT_FOUND_AGAIN, LoadError
from hvolab.subject.fingerprint import stamped
from hvolab.subject.picker import Replay
from hvolab.subject.run import PickerFor, run_on
from hvolab.subject.scenario import Setup
from hvolab.subject.schedule import ScheduleError
from hvolab.subject.script import Script
from kernel_model.boot import boot

SHRINKING = 30.0  # seconds, for all findings of one exploration
SHRINKING_ONE = 10.0


@dataclass(frozen=True, slots=True)
class Stops:
    """When an exploration is over before its end. `first`: with the first violation."""

    first: bool = False

    def why(self, one: Found) -> str | None:
        return "the first finding" if self.first and one.finding.verdict.is_violation else None


class Quiet:
    """An audience that says nothing, but may stop."""

    def __init__(self, stops: Stops) -> None:
        self._stops = stops

    def ran(self, runs: int, found: int) -> None: ...

    def found(self, one: Found) -> str | None:
        return self._stops.why(one)


class Watched:
    """An audience that says what is found on standard error as it is found, and how it goes, to a terminal.

    Of one guilty store, a line for each verdict.
    """

    def __init__(self, progress: Progress, task: TaskID, stops: Stops, most_runs: int | None) -> None:
        self._progress = progress
        self._task = task
        self._of = "" if most_runs is None else f" of {most_runs}"
        self._stops = stops
        self._begun = time.monotonic()
        self._said: set[tuple[object, ...]] = set()

    def ran(self, runs: int, found: int) -> None:
        elapsed = time.monotonic() - self._begun
        speed = f", {runs / elapsed:.0f}/s" if elapsed > 1 else ""
        described = f"{runs}{self._of} schedules{speed}, {found} findings"
        self._progress.update(self._task, description=described)

    def found(self, one: Found) -> str | None:
        finding, seconds = one.finding, time.monotonic() - self._begun
        key = (finding.verdict, *guilt_of(finding))
        if key not in self._said:
            self._said.add(key)
            line = f"found in run {one.at_run}, after {seconds:.1f} s: {finding.verdict.value}"
            line += f", cpu{finding.where.cpu}: {escape(finding.cause)}"
            self._progress.console.print(line, highlight=False, soft_wrap=True)
        return self._stops.why(one)


@contextmanager
def watched(stops: Stops, most_runs: int | None) -> Iterator[Watched]:
    """An audience on standard error while the block runs. `most_runs`: how many are to be made, if known."""
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield Watched(progress, progress.add_task("exploring"), stops, most_runs)


def retold(setup: Setup, done: Exploration) -> Exploration:
    """The findings with the shortest schedules that show them, and as scripts.

    One finding of each guilty store is shrunk; where what is left shows the others too, they are told by it.
    """
    if not done.found:
        return done
    telling = _Retelling(setup, time.monotonic() + SHRINKING)
    try:
        told = {_key(one): one for group in grouped(done.found) for one in telling.of(group)}
    except KeyboardInterrupt:
        return done  # what is known is told as it is
    except (NotShown, ScheduleError):
        if not setup.loaded:
            raise
        raise LoadError(NOT_FOUND_AGAIN) from None
    return replace(done, found=tuple(told[_key(one)] for one in done.found))


def as_found(setup: Setup, done: Exploration) -> Exploration:
    """The findings with the schedules of the runs that had them, and as scripts."""
    if not done.found:
        return done
    telling = _Retelling(setup, 0.0)
    try:
        return replace(done, found=tuple(telling.scripted(one) for one in done.found))
    except KeyboardInterrupt:
        return done


def at_once(_setup: Setup, done: Exploration) -> Exploration:
    """The findings as they are: nothing is run again."""
    return done


class _Retelling:
    """On one machine of its own. `until`: a reading of time.monotonic(), after which nothing is shrunk."""

    def __init__(self, setup: Setup, until: float) -> None:
        self._setup = setup
        self._system = boot(setup.boot)
        self._until = until

    def of(self, group: list[Found]) -> list[Found]:
        """The findings of one guilty store, the first of them shrunk."""
        first = self.scripted(self._shrunk(group[0]))
        shown = self._shown_by(lambda _system: Replay(first.schedule))
        by_script = (
            set(self._shown_by(following(first.script))) if first.script else set[tuple[Verdict, Where]]()
        )
        told = [first]
        for one in group[1:]:
            if _key(one) in shown:
                one = replace(one, finding=shown[_key(one)], schedule=first.schedule)
            told.append(replace(one, script=first.script) if _key(one) in by_script else self.scripted(one))
        return told

    def scripted(self, one: Found) -> Found:
        return replace(one, script=self._script_of(one))

    def _shrunk(self, one: Found) -> Found:
        left = self._until - time.monotonic()
        if left <= 0:
            return one
        budget = Budget(seconds=min(left, SHRINKING_ONE))
        result = shrink(self._system, self._setup, one.schedule, _key(one), budget)
        return replace(one, finding=result.finding, schedule=stamped(result.schedule, self._setup))

    def _shown_by(self, picker_for: PickerFor) -> dict[tuple[Verdict, Where], Finding]:
        """What a run that picks so finds."""
        done = run_on(self._system, self._setup, picker_for)
        self._system.reset()
        return {(found.verdict, found.where): found for found in done.findings}

    def _script_of(self, one: Found) -> Script:
        try:
            return as_script(self._system, self._setup, one.schedule, _key(one))
        except NoScript:
            return ()


def _key(one: Found) -> tuple[Verdict, Where]:
    return one.finding.verdict, one.finding.where
