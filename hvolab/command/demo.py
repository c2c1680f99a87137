"""`hvolab demo`: five short stories and a table; or scenarios in their own order, with everything told."""

from __future__ import annotations

import click
from rich.console import Console
from rich.markup import escape

from hvolab.catalog import SCENARIOS, scenario
from hvolab.command.options import cpu_count
from hvolab.command.playing import following, run_and_show
from hvolab.command.status import OUR_ERROR
from hvolab.command.stories.five import STORIES, NotAsExpected
from hvolab.show.report import Invocation, Order
from hvolab.subject.scenario import Scenario

MARKS = "marked: the violation expected in their own order"


@click.command(
    name="demo",
    help="""\b
Example:  hvolab demo
          hvolab demo missed-cpu

Tell five short stories, then name every scenario. With a NAME, run that one in
its own order and tell all of it; with --all, run every one of them.""",
)
@click.argument("name", required=False)
@click.option(
    "--all", "every", is_flag=True, help="Run every scenario, and say where one is not as expected."
)
def demo_command(name: str | None, every: bool) -> int:  # noqa: FBT001
    console = Console()
    if name is not None:
        if every:
            raise click.UsageError(f"--all is every scenario: leave {name} out")
        return _run((scenario(name),), console)
    if every:
        return _run(SCENARIOS, console)
    try:
        for story in STORIES:
            for line in story():
                console.print(line, highlight=False)
    except NotAsExpected as error:
        console.print(f"[bold red]not as expected:[/] {error}")
        return OUR_ERROR
    _table(console)
    console.print(
        "Try one: [bold]hvolab run tail-write[/bold]; your own patch: docs/your-patch.md", highlight=False
    )
    return 0


def _run(chosen: tuple[Scenario, ...], console: Console) -> int:
    """Run them in their own order, tell all, and say which are not as expected."""
    surprises = []
    for one in chosen:
        count = cpu_count(one, None)
        setup = one.build(count)
        done = run_and_show(console, Invocation(one, count), setup, following(setup.script), (), Order.OWN)
        console.print()
        if {f.verdict for f in done.findings if f.verdict.is_violation} != one.verdicts:
            surprises.append(one.name)
    if surprises:
        console.print(f"[bold red]not as expected:[/] {', '.join(surprises)}")
        return OUR_ERROR
    if len(chosen) > 1:
        console.rule()
        console.print(f"{len(chosen)} scenarios, each as expected. Try one: hvolab run tail-write")
    return 0


def _table(console: Console) -> None:
    """Every scenario, a line each."""
    console.print(f"[bold]{len(SCENARIOS)} scenarios[/bold] ({MARKS})", highlight=False)
    longest = max(len(one.name) for one in SCENARIOS)
    for one in SCENARIOS:
        marks = ", ".join(sorted(verdict.value.removeprefix("violation: ") for verdict in one.verdicts))
        mark = f"[bold red]{marks}:[/] " if marks else ""
        line = f" {one.name:{longest}} {mark}{escape(one.question)}"
        console.print(line, highlight=False, no_wrap=True, overflow="ellipsis")
