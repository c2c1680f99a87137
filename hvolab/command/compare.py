"""`hvolab compare`: what differs between two dumps of page tables."""

from __future__ import annotations

import json
from pathlib import Path

import click

from hvolab.dump import read_dump
from hvolab.dump.compare import compare
from hvolab.show.json_output import compare_json


@click.command(
    name="compare",
    help="""\b
Example:  hvolab compare before.json after.json

Print what differs between two dumps of vmemmap page tables and struct pages, row
by row, frame numbers taken by their roles, addresses by what they point to
(docs/dump-format.md). Exit status 1 if anything does.""",
)
@click.argument("left", type=click.Path(path_type=Path))
@click.argument("right", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON (docs/json.md).")
def compare_command(left: Path, right: Path, as_json: bool) -> int:  # noqa: FBT001
    differences = compare(read_dump(left), read_dump(right))
    if as_json:
        click.echo(json.dumps(compare_json(differences), indent=1))
        return int(bool(differences))
    for difference in differences:
        click.echo(str(difference))
    if not differences:
        click.echo("no differences")
    return int(bool(differences))
