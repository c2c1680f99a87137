"""`hvolab run`: one scenario, in its own order or in another."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import click
from rich.console import Console

from hvolab.command.options import (
    asked,
    cpu_count,
    read_text,
    scenario_called,
    shaped,
    subject_options,
)
from hvolab.command.playing import following, own_order, run_and_show
from hvolab.command.real_input import real_input_options, real_setup, repeated_input, write_end
from hvolab.command.status import status_of
from hvolab.command.tracing import trace_listener
from hvolab.explore.budget import Budget
from hvolab.explore.search.interface import Freedom
from hvolab.explore.search.randomly import Pct
from hvolab.show.json_output import run_json
from hvolab.show.report import Invocation, Order
from hvolab.subject.fingerprint import fingerprint
from hvolab.subject.outcome import MOST_GUEST_STEPS, MOST_STEPS, Limits
from hvolab.subject.picker import InOrder, Picker, Replay, ReplayThenInOrder
from hvolab.subject.run import PickerFor, run
from hvolab.subject.scenario import Setup
from hvolab.subject.schedule import parse
from hvolab.subject.script_text import parse_script
from kernel_model.boot import System

# As `hvolab explore --strategy pct` has them when it is told nothing else.
PCT_DEPTH = 3
PICTURE_COLUMNS = 100
PCT_FREEDOMS = frozenset({Freedom.SCHEDULE, Freedom.IRQ, Freedom.TLB})


@click.command(
    name="run",
    help="""\b
Example:  hvolab run stale-read
          hvolab run tail-write --json
          hvolab run remap --layout before.json --do optimize:after.json

Run one scenario in its own order, or in another. Exit status 1 says that a
violation was found, which some scenarios expect.""",
)
@click.argument("name")
@subject_options
@click.option("--seed", type=click.IntRange(0), help="Random priorities from this seed, not the script.")
@click.option("--schedule", help="Follow this schedule, as a replay line has it.")
@click.option(
    "--script", type=click.Path(path_type=Path), help="Follow the ordering constraints in this file."
)
@click.option(
    "--past-divergence", is_flag=True, help="Where the run is not the schedule's, say so and go on in order."
)
@click.option(
    "--steps",
    type=click.IntRange(1),
    help=f"Cut the run off after so many, with exit status 4 [default: {MOST_STEPS}, "
    f"{MOST_GUEST_STEPS} of them in guest programs].",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON (docs/json.md).")
@click.option("--trace", type=click.Path(path_type=Path), help="Write every event there, as JSON lines.")
@click.option("--svg", type=click.Path(path_type=Path), help="Write what is shown there, as a picture.")
@real_input_options
def run_command(
    name: str,
    seed: int | None,
    schedule: str | None,
    script: Path | None,
    past_divergence: bool,  # noqa: FBT001
    steps: int | None,
    as_json: bool,  # noqa: FBT001
    trace: Path | None,
    svg: Path | None,
    layout: Path | None,
    operations: tuple[str, ...],
    dump: Path | None,
) -> int:
    wanted = asked()
    chosen = scenario_called(name, wanted.loaded)
    count = cpu_count(chosen, wanted.cpus)
    real = real_setup(chosen, count, layout, operations)
    setup = shaped(real or chosen.build(count), wanted)
    if svg is not None and as_json:
        raise click.UsageError("--svg and --json exclude each other")
    default = own_order(chosen, setup, wanted) if real is None else _in_order
    if past_divergence and schedule is None:
        raise click.UsageError("--past-divergence goes with --schedule")
    follow = ReplayThenInOrder if past_divergence else Replay
    replay = None if schedule is None else follow(parse(schedule), fingerprint(setup))
    picker_for = _picker(default, setup, seed, replay, script)
    tables = wanted.loaded.cost_tables
    invocation = Invocation(chosen, count, (*wanted.words(), *repeated_input(layout, operations)), tables)
    given = (seed, schedule, script, layout)
    own = wanted.nothing and all(one is None for one in given)
    order = Order.OWN if own else Order.OTHER
    limits = Limits() if steps is None else Limits(steps, steps)
    with ExitStack() as files:
        listeners = trace_listener(trace, files)
        if as_json:
            done = run(setup, picker_for, listeners, limits)
            click.echo(json.dumps(run_json(invocation, done), indent=1))
        else:
            console = Console() if svg is None else Console(record=True, width=PICTURE_COLUMNS)
            done = run_and_show(console, invocation, setup, picker_for, listeners, order, limits)
            if svg is not None:
                _write_picture(console, name, svg)
    if dump is not None:
        write_end(done.system, operations, dump)
    if replay is not None:
        _tell(replay)
    return status_of(done)


def _write_picture(console: Console, name: str, path: Path) -> None:
    """What the console has shown. Raises BadParameter."""
    try:
        console.save_svg(str(path), title=f"hvolab run {name}", unique_id="hvolab")
    except OSError as error:
        raise click.BadParameter(f"cannot write {path}: {error.strerror}", param_hint="--svg") from None


def _in_order(_system: System) -> Picker:
    return InOrder()


def _picker(
    default: PickerFor,
    setup: Setup,
    seed: int | None,
    replay: Replay | ReplayThenInOrder | None,
    script: Path | None,
) -> PickerFor:
    given = {"--seed": seed, "--schedule": replay, "--script": script}
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise click.UsageError(f"{' and '.join(names)} exclude each other")
    if seed is not None:
        return _seeded(setup, seed)
    if replay is not None:
        return lambda _system: replay
    if script is not None:
        return following(parse_script(read_text(script, "--script")))
    return default


def _seeded(setup: Setup, seed: int) -> PickerFor:
    """Random priorities. PCT spreads its change points over a run's length, which a run before tells it."""
    search = Pct(seed, runs=2, depth=PCT_DEPTH)

    def picker_for(_system: System) -> Picker:
        search.begin()
        return search.guide(PCT_FREEDOMS)

    run(setup, picker_for, limits=Limits(Budget().steps))
    return picker_for


def _tell(replay: Replay | ReplayThenInOrder) -> None:
    """A line on stderr when the schedule was not this setup's, or was left."""
    if isinstance(replay, ReplayThenInOrder) and replay.diverged_at is not None:
        click.echo(f"hvolab: note: diverged at pick {replay.diverged_at}: {replay.why}", err=True)
    elif replay.stale is not None:
        click.echo(f"hvolab: note: {replay.stale}", err=True)
