"""`hvolab list`: what there is by name. Read from an index, so that nothing of the machine is loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from importlib.resources import files
from typing import TypeAlias

import click

# One object of the index: fields that are text, numbers, or lists of these.
Listed: TypeAlias = dict[str, object]

KINDS = ("scenarios", "variants", "policies", "models")
_OPTIONS = {"variants": "--variant", "policies": "--policy", "models": "--cpu-model"}
_GROUPS = {
    "remap": "what HVO does, step by step",
    "stale": "entries that outlive their page table",
    "fault": "writes to read-only tails",
    "race": "upstream against what may run beside it, for `explore`",
    "pool": "upstream's pool against what may run beside it, for `explore`",
    "flush": "bugs: a flush that comes late, does too little, or never",
    "kernel": "bugs: an order, a test or a copy that is missing",
    "hardware": "bugs: CPUs that do not do what was asked",
}


@click.command(
    name="list",
    help="""\b
Example:  hvolab list
          hvolab list variants --find flush
          hvolab list --group stale

List scenarios, one line each: the verdict a run of it has by itself, and the
question it asks. Or the variants of the kernel, the flush policies, the CPU
models. `hvolab show NAME` tells all of one scenario.""",
)
@click.argument("kind", type=click.Choice(KINDS), default="scenarios")
@click.option("--group", type=click.Choice(tuple(_GROUPS)), help="Scenarios of this kind only.")
@click.option("--find", metavar="TEXT", help="Only what has this text in it.")
@click.option("--load", "file", metavar="FILE.py[:NAME]", help="What that file of yours brings.")
@click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON (docs/json.md).")
def list_command(
    kind: str,
    group: str | None,
    find: str | None,
    file: str | None,
    as_json: bool,  # noqa: FBT001
) -> int:
    if file is not None and (group or find or as_json):
        raise click.UsageError("--group, --find and --json are for what comes with the project, not --load")
    if file is not None:
        _of_file(file)
        return 0
    text = files("hvolab").joinpath("catalog/index.json").read_text(encoding="utf-8")
    if as_json:
        click.echo(text, nl=False)
        return 0
    if group is not None and kind != "scenarios":
        raise click.UsageError("--group is for scenarios")
    rows = [row for row in json.loads(text)[kind] if find is None or _has(row, find)]
    width = shutil.get_terminal_size().columns
    lines = [*_scenarios(rows, group, width)] if kind == "scenarios" else [*_others(rows, kind, width)]
    if not lines:
        raise click.UsageError(f"there is nothing among the {kind} with {find!r} in it")
    for line in lines:
        click.echo(line)
    return 0


def _of_file(file: str) -> None:
    """What a user's file brings, by kind. Loads the machine, which the file stands on."""
    from hvolab.load.user_file import load

    for kind, name, summary in load(file).told():
        click.echo(_cut(f"  {kind:12}  {name}  {summary}", shutil.get_terminal_size().columns))


def _has(row: Listed, text: str) -> bool:
    return text.lower() in json.dumps(row, ensure_ascii=False).lower()


def _scenarios(rows: list[Listed], group: str | None, width: int) -> Iterator[str]:
    longest = max((len(str(row["name"])) for row in rows), default=0)
    for name, title in _GROUPS.items():
        found = [row for row in rows if row["group"] == name]
        if not found or group not in (None, name):
            continue
        yield click.style(f"{name}: {title}", bold=True)
        for row in found:
            verdicts = row["verdicts"]
            assert isinstance(verdicts, list)
            marks = "".join(f"[{verdict.removeprefix('violation: ')}] " for verdict in verdicts)
            yield _cut(f"  {row['name']!s:{longest}}  {marks}{row['question']}", width)


def _others(rows: list[Listed], kind: str, width: int) -> Iterator[str]:
    if not rows:
        return
    longest = max(len(str(row["name"])) for row in rows)
    yield click.style(f"{kind}, by {_OPTIONS[kind]}", bold=True)
    for row in rows:
        also = row.get("also", [])
        assert isinstance(also, list)
        marks = "".join(f"[{mark}] " for mark in (row.get("commit"), *also) if mark)
        yield _cut(f"  {row['name']!s:{longest}}  {marks}{row['summary'] or '-'}", width)


def _cut(line: str, width: int) -> str:
    """No wider than the screen."""
    return line if len(line) <= width else line[: width - 1].rstrip() + "…"
