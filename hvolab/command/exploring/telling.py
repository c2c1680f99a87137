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

from hvolab.explore.audience import Found
from hvolab.explore.budget import Budget
from hvolab.explore.explorer import Exploration
from hvolab.explore.retell.as_script import NoScript, as_script
from hvolab.explore.retell.shrink import shrink
from hvolab.subject.fingerprint import stamped
from hvolab.subject.scenario import Setup
from hvolab.subject.script import Script
from kernel_model.boot import System, boot

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
    """An audience that says each finding on standard error as it is found, and how it goes, to a terminal."""

    def __init__(self, progress: Progress, task: TaskID, stops: Stops) -> None:
        self._progress = progress
        self._task = task
        self._stops = stops
        self._begun = time.monotonic()

    def ran(self, runs: int, found: int) -> None:
        elapsed = time.monotonic() - self._begun
        speed = f", {runs / elapsed:.0f}/s" if elapsed > 1 else ""
        self._progress.update(self._task, description=f"{runs} schedules{speed}, {found} findings")

    def found(self, one: Found) -> str | None:
        where, seconds = one.finding.where, time.monotonic() - self._begun
        code = f"{where.code}: {where.instruction}" if where.instruction else where.code
        line = (
            f"found in run {one.at_run}, after {seconds:.1f} s: {one.finding.verdict.value}, cpu{where.cpu}"
        )
        self._progress.console.print(f"{line}, {escape(code)}", highlight=False, soft_wrap=True)
        return self._stops.why(one)


@contextmanager
def watched(stops: Stops) -> Iterator[Watched]:
    """An audience on standard error while the block runs."""
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield Watched(progress, progress.add_task("exploring"), stops)


def retold(setup: Setup, done: Exploration) -> Exploration:
    """The findings with the shortest schedules that show them, and as scripts."""
    return _with_scripts(setup, done, SHRINKING)


def as_found(setup: Setup, done: Exploration) -> Exploration:
    """The findings with the schedules of the runs that had them, and as scripts."""
    return _with_scripts(setup, done, 0.0)


def _with_scripts(setup: Setup, done: Exploration, seconds: float) -> Exploration:
    if not done.found:
        return done
    system = boot(setup.boot)
    until = time.monotonic() + seconds
    told: list[Found] = []
    for one in done.found:
        left = until - time.monotonic()
        if left > 0:
            key, budget = (one.finding.verdict, one.finding.where), Budget(seconds=min(left, SHRINKING_ONE))
            result = shrink(system, setup, one.schedule, key, budget)
            one = replace(one, finding=result.finding, schedule=stamped(result.schedule, setup))
        told.append(replace(one, script=_script_of(system, setup, one)))
    return replace(done, found=tuple(told))


def _script_of(system: System, setup: Setup, one: Found) -> Script:
    try:
        return as_script(system, setup, one.schedule, (one.finding.verdict, one.finding.where))
    except NoScript:
        return ()
