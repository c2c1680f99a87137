"""`hvolab step`: a run event by event, forwards and backwards, with page table and TLBs beside each other."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hvolab.command.options import asked, cpu_count, scenario_called, shaped, subject_options
from hvolab.command.playing import own_order
from hvolab.show.moments import Mark, Moment, PageState, go_to, moments_of, state_at
from hvolab.subject.fingerprint import fingerprint
from hvolab.subject.outcome import Run
from hvolab.subject.picker import Replay
from hvolab.subject.run import run
from hvolab.subject.scenario import Setup
from hvolab.subject.schedule import parse

KEYS = {
    "s": Mark.STORE,
    "f": Mark.FLUSH,
    "x": Mark.FAULT,
    "v": Mark.FINDING,
}
HELP = "n next  p back  s store  f flush  x fault  v finding (capitals: back)  0 start  $ end  q quit"
_ARROWS = {"\x1b[C": "n", "\x1b[B": "n", "\x1b[D": "p", "\x1b[A": "p", " ": "n", "\r": "n", "\n": "n"}


@click.command(
    name="step",
    help=f"""\b
Example:  hvolab step missed-cpu
          hvolab step missed-cpu --at 97
          echo ssv | hvolab step missed-cpu

Run one scenario, in its own order or as a replay line has it, and go through it
event by event: what happened, by which instruction or function, and what page
table and each CPU's TLB then say of the watched pages.

\b
{HELP}
Arrows and space work too. Without a terminal, keys are read from standard input.""",
)
@click.argument("name")
@subject_options
@click.option("--schedule", help="Follow this schedule, as a replay line has it.")
@click.option("--at", type=click.IntRange(0), help="Show the state after this event, and end.")
def step_command(name: str, schedule: str | None, at: int | None) -> int:
    wanted = asked()
    chosen = scenario_called(name, wanted.loaded)
    setup = shaped(chosen.build(cpu_count(chosen, wanted.cpus)), wanted)
    if schedule is None:
        done = run(setup, own_order(chosen, setup, wanted))
    else:
        replay = Replay(parse(schedule), fingerprint(setup))
        done = run(setup, lambda _system: replay)
    moments = moments_of(setup, done)
    if not moments:
        raise click.UsageError(f"nothing happens in {name}")
    console = Console()
    if at is not None:
        if at > moments[-1].number:
            raise click.BadParameter(f"{at} is after the last event, {moments[-1].number}", param_hint="--at")
        index = next(number for number, moment in enumerate(moments) if moment.number >= at)
        _show(console, setup, done, moments, index)
        return 0
    _go_through(console, setup, done, moments)
    return 0


def _go_through(console: Console, setup: Setup, done: Run, moments: tuple[Moment, ...]) -> None:
    """Show where we are, read a key, go on; until `q` or the end of what can be read."""
    index = 0
    _show(console, setup, done, moments, index)
    for key in _keys():
        if key == "q":
            return
        following = _moved(moments, index, key)
        if following is None:
            console.print(HELP, highlight=False)
            continue
        if following == index:
            console.print("no more of that", style="dim")
            continue
        index = following
        _show(console, setup, done, moments, index)


def _moved(moments: tuple[Moment, ...], index: int, key: str) -> int | None:
    """Where a key leads; None for one that is none."""
    match key:
        case "n":
            return min(index + 1, len(moments) - 1)
        case "p":
            return max(index - 1, 0)
        case "0":
            return 0
        case "$":
            return len(moments) - 1
        case _ if key.lower() in KEYS:
            mark = KEYS[key.lower()]
            return go_to(moments, index, lambda moment: mark in moment.marks, 1 if key.islower() else -1)
        case _:
            return None  # the keys are shown


def _keys() -> Iterator[str]:
    """Keys as they are pressed; or, where nobody can press any, the characters of standard input."""
    while True:
        if sys.stdin.isatty():
            key = click.getchar()
        else:
            key = sys.stdin.read(1)
            if key == "\n":
                continue
        if not key:
            return
        yield _ARROWS.get(key, key)


def _show(console: Console, setup: Setup, done: Run, moments: tuple[Moment, ...], index: int) -> None:
    moment = moments[index]
    console.rule(f"event {moment.number} of {moments[-1].number}, cpu{moment.cpu}")
    marks = ", ".join(sorted(mark.name.lower() for mark in moment.marks))
    console.print(f"[bold]{escape(moment.what)}[/bold]{f'   <- {marks}' if marks else ''}", highlight=False)
    if moment.where:
        console.print(f"[dim]in {escape(moment.where)}[/dim]", highlight=False)
    for finding in done.findings:
        if finding.event == moment.number:
            console.print(f"[bold red]{finding.verdict.value}[/]: {escape(finding.cause)}", highlight=False)
    console.print(_table(state_at(setup, done, moment.number)))


def _table(pages: tuple[PageState, ...]) -> Table:
    """Pages downwards; the page table and the CPUs that may use something across."""
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    table.add_column("page")
    table.add_column("page table")
    holding = [cpu for cpu in range(len(pages[0].tlbs)) if any(page.tlbs[cpu] for page in pages)]
    for cpu in holding:
        table.add_column(f"TLB of cpu{cpu}")
    for page in pages:
        cells = []
        for cpu in holding:
            words = [f"[bold red]{text} STALE[/]" if stale else text for text, stale in page.tlbs[cpu]]
            cells.append("\n".join(words) or "-")
        table.add_row(f"{page.page:#x}", page.table, *cells)
    return table
