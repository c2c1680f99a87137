"""`hvolab list`: the scenarios."""

from __future__ import annotations

import json

import click
from rich.console import Console
from rich.table import Table

from hvolab.catalog import SCENARIOS
from hvolab.show.json_output import list_json
from hvolab.subject.scenario import Group


@click.command(
    name="list",
    short_help="The scenarios and what each asks.",
    help="\b\nExample:  hvolab list\n\nList the scenarios and the question each asks.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON (docs/json.md).")
def list_command(as_json: bool) -> int:  # noqa: FBT001
    if as_json:
        click.echo(json.dumps(list_json(SCENARIOS), indent=1))
        return 0
    console = Console()
    for group in Group:
        table = Table(title=group.value, title_justify="left", title_style="bold", box=None, padding=(0, 1))
        table.add_column("scenario", no_wrap=True)
        table.add_column("asks")
        for candidate in SCENARIOS:
            if candidate.group is group:
                table.add_row(candidate.name, candidate.question)
        console.print(table)
    return 0
