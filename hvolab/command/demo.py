"""`hvolab demo`: every scenario in its own order."""

from __future__ import annotations

import click
from rich.console import Console

from hvolab.catalog import SCENARIOS
from hvolab.command.options import cpu_count
from hvolab.command.playing import following, run_and_show
from hvolab.show.report import Invocation, Order


@click.command(
    name="demo",
    short_help="Run every scenario and explain it.",
    help="\b\nExample:  hvolab demo\n\nRun every scenario and say what it asked, saw and means.",
)
def demo_command() -> int:
    console = Console()
    surprises = []
    for chosen in SCENARIOS:
        count = cpu_count(chosen, None)
        setup = chosen.build(count)
        done = run_and_show(console, Invocation(chosen, count), setup, following(setup.script), (), Order.OWN)
        console.print()
        if {f.verdict for f in done.findings if f.verdict.is_violation} != chosen.verdicts:
            surprises.append(chosen.name)
    if surprises:
        console.print(f"[bold red]not as expected:[/] {', '.join(surprises)}")
        return 3
    console.rule()
    console.print(f"{len(SCENARIOS)} scenarios, each as expected. Try one: hvolab run tail-write")
    return 0
