"""`hvolab why`: the findings of one run, explained."""

from __future__ import annotations

import json

import click
from rich.console import Console
from rich.markup import escape

from hvolab.command.options import asked, cpu_count, order_of, scenario_called, shaped, subject_options
from hvolab.command.status import status_of
from hvolab.judge.why import Explanation, explain
from hvolab.show.json_output import why_json
from hvolab.show.report import Invocation, show_finding
from hvolab.subject.fingerprint import fingerprint
from hvolab.subject.picker import Replay
from hvolab.subject.run import run
from hvolab.subject.schedule import parse
from hvolab.subject.script import ScriptPicker


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
@subject_options
@click.option("--schedule", help="Follow this schedule, as a replay line has it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON (docs/json.md).")
def why_command(name: str, schedule: str | None, as_json: bool) -> int:  # noqa: FBT001
    wanted = asked()
    chosen = scenario_called(name, wanted.loaded)
    count = cpu_count(chosen, wanted.cpus)
    setup = shaped(chosen.build(count), wanted)
    if schedule is None:
        order = order_of(chosen, setup)
        done = run(setup, lambda system: ScriptPicker(order, system.machine))
    else:
        replay = Replay(parse(schedule), fingerprint(setup))
        done = run(setup, lambda _system: replay)
    explained = [explain(finding, done.sight) for finding in done.findings]
    invocation = Invocation(chosen, count, wanted.words())
    replay_line = invocation.replay(done.schedule)
    if as_json:
        click.echo(json.dumps(why_json(invocation, explained, replay_line), indent=1))
    else:
        _show(Console(), explained, replay_line)
    return status_of(done)


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
