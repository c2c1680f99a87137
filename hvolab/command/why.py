"""`hvolab why`: the findings of one run, explained."""

from __future__ import annotations

import json
from typing import assert_never

import click
from rich.console import Console

from hvolab.command.options import asked, cpu_count, scenario_called, shaped, subject_options
from hvolab.command.playing import own_order
from hvolab.command.status import status_of
from hvolab.judge.verdict import Finding, Use
from hvolab.judge.why import Explanation, explain
from hvolab.show.explained import show_explained
from hvolab.show.json_output import why_json
from hvolab.show.report import Invocation, show_finding, show_use
from hvolab.subject.fingerprint import fingerprint
from hvolab.subject.picker import Replay
from hvolab.subject.run import run
from hvolab.subject.schedule import parse


@click.command(
    name="why",
    help="""\b
Example:  hvolab why missed-cpu
          hvolab why use-after-free --cpu-model lazy --schedule 'v2 ...'

Run one scenario, in its own order or as a replay line has it, and explain each
finding, or, where there is none, each stale use that was allowed: the
translation used, the store that ended it, which flushes cover the use and which
do not, and the rule that decides. Exit status as for run.""",
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
        done = run(setup, own_order(chosen, setup, wanted))
    else:
        replay = Replay(parse(schedule), fingerprint(setup))
        done = run(setup, lambda _system: replay)
    told: tuple[Finding | Use, ...] = done.findings or done.uses
    explained = [explain(one, done.sight) for one in told]
    invocation = Invocation(chosen, count, wanted.words())
    replay_line = invocation.replay(done.schedule)
    if as_json:
        click.echo(json.dumps(why_json(invocation, explained, replay_line), indent=1))
    else:
        _show(Console(), explained, replay_line)
    return status_of(done)


def _show(console: Console, explained: list[Explanation], replay_line: str) -> None:
    if not explained:
        console.print("[bold]found[/bold]  nothing to explain: nothing stale was used")
    for one in explained:
        match one.told:
            case Finding():
                show_finding(console, one.told, replay_line)
            case Use():
                show_use(console, one.told)
            case _:
                assert_never(one.told)
        show_explained(console, one)
