"""`hvolab show`: one scenario explained, and the kernels it goes wrong on."""

from __future__ import annotations

from typing import assert_never

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from firmware.program import Program
from hvolab.command.options import cpu_count, scenario_called
from hvolab.judge.known import known_in
from hvolab.load.user_file import NOTHING_LOADED, load
from hvolab.subject.axes import Deviation, history_of, option_of
from hvolab.subject.scenario import Bug, GuestActor, KernelActor, Setup
from hvolab.subject.script import Script
from kernel_model.flush.policy import NamedPolicy


@click.command(
    name="show",
    help="""\b
Example:  hvolab show pool-up-and-down

Say who does what on which CPU, in which order, what is expected, and on which
kernels, flush policies and CPUs it goes wrong: since when, until which commit,
and what users saw. Each says how it is run.""",
)
@click.argument("name")
@click.option("--load", "file", metavar="FILE.py[:NAME]", help="Where the scenario is, if it is your own.")
def show_command(name: str, file: str | None) -> int:
    chosen = scenario_called(name, NOTHING_LOADED if file is None else load(file))
    setup = chosen.build(cpu_count(chosen, None))
    console = Console()
    console.rule(chosen.name)
    console.print(f"[bold]kind[/bold]      {escape(chosen.group.value)}")
    console.print(f"[bold]asked[/bold]     {escape(chosen.question)}")
    console.print(_actors(setup))
    for number, line in enumerate(_steps(setup.script)):
        console.print(f"[bold]{'' if number else 'order':9}[/bold] {escape(line)}", highlight=False)
    console.print(f"[bold]expected[/bold]  {escape(chosen.expected)}")
    if chosen.means:
        console.print(f"[bold]means[/bold]     {escape(chosen.means)}")
    for finding in known_in(chosen.name):
        console.print(f"[bold]known[/bold]     {escape(finding.name)}: {escape(finding.source)}")
        on = ", ".join(finding.seen_on)
        seen = f"on a real Linux {on}" if on else "on no real Linux yet"
        console.print(f"[bold]seen[/bold]      {seen}", highlight=False)
    for variant in chosen.costlier:
        console.print(f"[bold]costlier[/bold]  with --variant {variant.name}: {escape(variant.summary)}")
    for bug in chosen.bugs:
        _show_bug(console, chosen.name, bug)
    return 0


def _actors(setup: Setup) -> Table:
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    table.add_column("cpu")
    table.add_column("runs")
    table.add_column("which asks")
    table.add_column("with")
    for actor in setup.actors:
        match actor:
            case KernelActor(cpu=cpu, name=name):
                table.add_row(f"cpu{cpu}", escape(name), "", "")
            case GuestActor(cpu=cpu, program=program, arguments=arguments):
                given = _given(program, dict(arguments))
                table.add_row(f"cpu{cpu}", escape(program.name), escape(program.question), given)
            case _:
                assert_never(actor)
    return table


def _given(program: Program, values: dict[str, int]) -> str:
    """What is in which register when the program begins; those that are always there have no value here."""
    told = []
    for one in program.arguments:
        value = f" {values[one.name]:#x}" if one.name in values else ""
        told.append(f"{one.register} ={'' if one.name == one.register else f' {one.name}'}{value}")
    return ", ".join(told)


def _steps(script: Script) -> list[str]:
    return [str(constraint) for constraint in script] or ["each CPU to its end, the lowest first"]


def _show_bug(console: Console, name: str, bug: Bug) -> None:
    option, deviation = option_of(bug.deviation)
    summary = escape(bug.deviation.summary)
    console.print(f"\n[bold red]{option[2:]:9}[/bold red] [bold]{deviation}[/bold]: {summary}")
    for label, text in _background(bug.deviation):
        console.print(f"[bold]{label:9}[/bold] {escape(text)}", highlight=False)
    console.print(f"[bold]finds[/bold]     {escape(bug.verdict.value)}")
    for number, line in enumerate(_steps(bug.script)):
        console.print(f"[bold]{'' if number else 'by':9}[/bold] {escape(line)}", highlight=False)
    console.print(f"[bold]try[/bold]       hvolab run {name} {option} {deviation}", highlight=False)


def _background(deviation: Deviation) -> list[tuple[str, str]]:
    """Where it is from: a kernel that had it, somebody's design, or nowhere."""
    history = history_of(deviation)
    if history is not None:
        return [
            ("mended", f"{history.commit} ({history.release}): {history.title}"),
            ("seen", history.seen),
        ]
    if isinstance(deviation, NamedPolicy) and deviation.source:
        return [("from", deviation.source), ("owes", deviation.obligation)]
    return [("history", "none: a protective step taken out")]
