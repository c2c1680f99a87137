"""`hvolab why`: the findings of one run, explained."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape

from emu.machine import MOST_CPUS
from hvolab.catalog import scenario
from hvolab.command.options import (
    MODEL_NAMES,
    VARIANT_OPTION,
    bugged,
    cpu_count,
    repeated,
    with_failures,
    with_guest,
    with_model,
)
from hvolab.judge.why import Explanation, explain
from hvolab.show.json_output import why_json
from hvolab.show.report import Invocation, show_finding
from hvolab.subject.fingerprint import fingerprint
from hvolab.subject.run import run
from hvolab.subject.schedule import parse
from hvolab.subject.script import ScriptStrategy
from hvolab.subject.strategy import Replay


@click.command(
    name="why",
    short_help="Explain the findings of one run.",
    help="""\b
Example:  hvolab why missed-cpu
          hvolab why use-after-free --cpu-model lazy --schedule 'v2 ...'

Run one scenario, in its own order or as a replay line has it, and explain each
finding: the translation used, the store that ended it, which flushes cover the
use and which do not, and the rule that decides. Exit status as for run.""",
)
@click.argument("name")
@click.option("--cpus", type=click.IntRange(1, MOST_CPUS), help="Number of CPUs.")
@VARIANT_OPTION
@click.option("--cpu-model", type=click.Choice(MODEL_NAMES), help="CPU model.")
@click.option("--program", type=click.Path(path_type=Path), help="Assembly source to run as guest program.")
@click.option("--failures", type=click.Choice(["any"]), help="Each allocation may fail.")
@click.option("--schedule", help="Follow this schedule, as a replay line has it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON (docs/json.md).")
def why_command(
    name: str,
    cpus: int | None,
    variant: str | None,
    cpu_model: str | None,
    program: Path | None,
    failures: str | None,
    schedule: str | None,
    as_json: bool,  # noqa: FBT001
) -> int:
    chosen = scenario(name)
    count = cpu_count(chosen, cpus)
    setup, order = bugged(chosen, chosen.build(count), variant)
    setup = with_failures(with_guest(with_model(setup, cpu_model), program), failures)
    if schedule is None:
        done = run(setup, lambda system: ScriptStrategy(order, system.machine))
    else:
        replay = Replay(parse(schedule), fingerprint(setup))
        done = run(setup, lambda _system: replay)
    explained = [explain(finding, done.sight) for finding in done.findings]
    options = {
        "--variant": variant,
        "--cpu-model": cpu_model,
        "--program": program,
        "--failures": failures,
    }
    invocation = Invocation(chosen, count, repeated(options))
    replay_line = invocation.replay(done.schedule)
    if as_json:
        click.echo(json.dumps(why_json(invocation, explained, replay_line), indent=1))
    else:
        _show(Console(), explained, replay_line)
    if done.model_error:
        return 3
    return int(done.wrong)


def _show(console: Console, explained: list[Explanation], replay_line: str) -> None:
    if not explained:
        console.print("[bold]found[/bold]  nothing to explain")
    for one in explained:
        show_finding(console, one.finding, replay_line)
        for label, text in _lines(one):
            console.print(f"[bold]{label:8}[/bold] {escape(text)}", highlight=False, soft_wrap=True)


def _lines(one: Explanation) -> list[tuple[str, str]]:
    lines = []
    if one.version is not None:
        lines.append(("version", f"cpu{one.finding.where.cpu} used {one.version}"))
        since = "time zero" if one.window is None else f"its invalidation at event {one.window}"
        lines.append(("window", f"it may have had that since {since}"))
    if one.ended_by is not None:
        ender = one.ended_by
        change = f"{ender.before:#x} -> {ender.after:#x}"
        lines.append(("store", f"ended at event {ender.event} by {ender.where}: {change}"))
    for flush in one.flushes:
        verb = "covers" if flush.covers else "does not cover"
        who = f"{flush.function} by cpu{flush.cpu}, begun at event {flush.begun}"
        lines.append(("flush", f"{who}, {verb} it: {flush.because}"))
    lines.append(("rule", one.rule))
    return lines
