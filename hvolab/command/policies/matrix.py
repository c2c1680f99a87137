"""`hvolab matrix`: flush policies beside scenarios: which are safe, and what they cost."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from emu.machine import MOST_CPUS
from hvolab.catalog import CATALOGUE, SCENARIOS
from hvolab.command.exploring.telling import Quiet, Stops
from hvolab.command.policies.output import check_place, write
from hvolab.command.status import BAD_INPUT, INTERRUPTED, NOT_COMPLETE, OUR_ERROR, WRONG
from hvolab.explore.interrupts import held_interrupts
from hvolab.explore.parallel import WorkerDied
from hvolab.judge.verdict import Verdict
from hvolab.load.user_file import UserFile, load
from hvolab.matrix.cell import SCHEMA, CellDone
from hvolab.matrix.page import page_of
from hvolab.matrix.results import Results, ResultsError
from hvolab.matrix.team import by_one, by_several
from hvolab.matrix.view import show_matrix
from hvolab.matrix.work import CellWork, MatrixAxes, Spent, Task, tasks
from hvolab.subject.axes import CPU_MODELS, POLICIES
from hvolab.subject.blame import LoadError
from hvolab.subject.scenario import Group, Scenario
from kernel_model.flush.policy import NamedPolicy
from kernel_model.flush.upstream import UPSTREAM

ALL_FLUSH = "all-flush"
GROUPS = (ALL_FLUSH, *(group.name.lower() for group in Group if group is not Group.OWN))


@click.command(
    "matrix",
    short_help="Flush policies beside scenarios.",
    help="""\b
Example:  hvolab matrix
          hvolab matrix --policies upstream,never --scenarios flush-reader
          hvolab matrix --load mine.py --keep results

Explore every policy on every scenario: which are safe, and what they cost.
docs/write-a-policy.md writes three.

Exit status: 1 when something was found, 2 when a file of yours has an error,
4 when nothing was found and some cells are not complete.""",
)
@click.option(
    "--policies", metavar="NAMES", help="These, with commas. Else all; with --load upstream and yours."
)
@click.option("--scenarios", metavar="NAMES", help="These, by name, with commas. Else a group.")
@click.option(
    "--group",
    type=click.Choice(GROUPS),
    default="flush",
    show_default=True,
    help="The scenarios of a kind. all-flush: where one CPU uses a translation that another changes.",
)
@click.option("--cpu-models", metavar="NAMES", default="lazy", show_default=True, help="CPUs, with commas.")
@click.option("--cpus", type=click.IntRange(1, MOST_CPUS), help="Number of CPUs. Else each scenario's own.")
@click.option(
    "--seconds", type=click.IntRange(1), default=60, show_default=True, help="At most so long for each cell."
)
@click.option(
    "--memory", type=click.IntRange(0), default=1024, show_default=True, help="MiB for each, as of explore."
)
@click.option(
    "--jobs", type=click.IntRange(1, 64), default=1, show_default=True, help="So many cells at a time."
)
@click.option("--load", "option", metavar="FILE.py[:NAME]", help="Your own policies: docs/your-own.md.")
@click.option(
    "--keep",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Keep each cell in that file, a line each, when it is done; do none again that is there.",
)
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write it to that file too, a page that needs no other.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON (docs/json.md).")
def matrix_command(
    policies: str | None,
    scenarios: str | None,
    group: str,
    cpu_models: str,
    cpus: int | None,
    seconds: int,
    memory: int,
    jobs: int,
    option: str | None,
    keep: Path | None,
    html: Path | None,
    as_json: bool,  # noqa: FBT001
) -> int:
    files = {} if option is None else _policies_of(option)
    names = _names(policies) or ([UPSTREAM.name, *files] if files else [*POLICIES.names])
    wanted = MatrixAxes(
        _known_policies(names, files),
        _scenarios(scenarios, group),
        _lazy_models(cpu_models),
        cpus,
        files,
    )
    every = [*tasks(wanted)]
    if all(task.reason for task in every):
        raise click.UsageError("no cell can be explored: ask for other --scenarios, or more --cpus")
    check_place(html, "--html")
    results = Results(keep)
    try:
        results.open()
        done = _explored(every, Spent(seconds, memory), results, jobs)
    except ResultsError as error:
        raise click.BadParameter(str(error), param_hint="--keep") from None
    except WorkerDied as error:
        click.echo(f"hvolab: {error}; with --keep what was done before is not lost", err=True)
        return INTERRUPTED
    if as_json:
        document = {"schema": SCHEMA, "cells": [one.save() for one in done]}
        click.echo(json.dumps(document, indent=1))
    elif done:
        show_matrix(Console(), done, len(every))
    if html is not None and done:
        write(html, page_of(done, len(every)), "--html")
    if left := len(every) - len(done):
        click.echo(f"interrupted: {left} of {len(every)} cells are left", err=True)
        return INTERRUPTED
    return status_of_cells(done)


def status_of_cells(cells: Sequence[CellDone]) -> int:
    """As of one exploration that was all of them; 2 where there was an error in a file."""
    if any(Verdict.MODEL_ERROR in done.verdicts for done in cells):
        return OUR_ERROR
    if any(done.failed for done in cells):
        return BAD_INPUT
    if any(done.verdicts for done in cells):
        return WRONG
    return NOT_COMPLETE if any(done.coverage.stopped_by for done in cells) else 0


def _explored(every: Sequence[Task], spent: Spent, results: Results, jobs: int) -> list[CellDone]:
    """Until an interrupt comes. In the order that was asked for."""
    cells = [partial(_cell, task, spent, results) for task in every]
    found: dict[int, CellDone] = {}
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    console = Console(stderr=True)
    progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with held_interrupts() as interrupts, progress:
        shown = progress.add_task(f"0 of {len(every)}")
        coming = by_one(cells, interrupts) if jobs == 1 else by_several(cells, jobs, interrupts)
        for number, done in coming:
            found[number] = done
            what = f"{len(found)} of {len(every)}, the last one {done.cell.policy} x {done.cell.scenario}"
            progress.update(shown, description=escape(what))
    return [found[number] for number in sorted(found)]


def _cell(task: Task, spent: Spent, results: Results) -> CellDone | None:
    """None where an interrupt came. Raises ResultsError."""
    if task.reason:
        return CellDone(task.cell, "", reason=task.reason)
    try:
        work = CellWork(task, spent)
        known = results.find(work.made_from)
        if known is not None and known.cell == task.cell:
            return known
        exploration, done = work.explore(Quiet(Stops()))
    except LoadError as error:
        return CellDone(task.cell, "", error=str(error))
    if exploration.coverage.interrupted:
        return None
    results.keep(done)
    return done


def _names(text: str | None) -> list[str]:
    return [] if text is None else [*dict.fromkeys(name.strip() for name in text.split(",") if name.strip())]


def _policies_of(option: str) -> Mapping[str, UserFile]:
    """The file, by each of its policies. Raises LoadError."""
    loaded = load(option)
    names = [thing.name for thing in loaded.things if isinstance(thing, NamedPolicy)]
    if odd := [name for name in names if not name.isprintable() or "," in name]:
        raise LoadError(f"{option}: {odd[0]!r} cannot be a name: it would not fit in a line, or a list")
    if len(names) < len(loaded.things):
        raise LoadError(f"{option} brings more than flush policies, which a matrix is of: say FILE.py:NAME")
    return dict.fromkeys(names, loaded)


def _known_policies(names: Sequence[str], files: Mapping[str, UserFile]) -> list[str]:
    """Raises UnknownName."""
    for name in names:
        if name not in files:
            POLICIES.find(name)
    return [*names]


def _scenarios(names: str | None, group: str) -> list[Scenario]:
    """Raises UnknownName."""
    if names is not None:
        return [CATALOGUE.find(name) for name in _names(names)]
    if group == ALL_FLUSH:
        return [chosen for chosen in SCENARIOS if chosen.is_flush_scenario]
    return [chosen for chosen in SCENARIOS if chosen.group.name.lower() == group]


def _lazy_models(names: str) -> list[str]:
    """Raises UnknownName, BadParameter."""
    if not _names(names):
        raise click.BadParameter("no CPU model is named", param_hint="--cpu-models")
    found = [CPU_MODELS.find(name).name for name in _names(names)]
    if again := [name for number, name in enumerate(found) if name in found[:number]]:
        said = f"{again[0]} is named twice: {', '.join((again[0], *CPU_MODELS.aliases_of(again[0])))}"
        raise click.BadParameter(said, param_hint="--cpu-models")
    lazy = [model.name for model in CPU_MODELS.things if model.is_lazy]
    for name in _names(names):
        if not CPU_MODELS.find(name).is_lazy:
            said = f"{name} has the TLB of a real CPU, and explores no orders; there are: {', '.join(lazy)}"
            raise click.BadParameter(said, param_hint="--cpu-models")
    return _names(names)
