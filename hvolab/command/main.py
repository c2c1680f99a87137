"""The command `hvolab`.

Exit status: 0 = nothing wrong found, 1 = a violation (or a difference) was found, 2 = bad usage or bad input,
one line on stderr; 3 = our own error.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TextIO

import click
from rich.console import Console
from rich.table import Table

from emu.guest.decode import UnsupportedInstruction
from emu.machine import MOST_CPUS
from emu.trace import Listener
from firmware.assemble import AssemblyError
from hvolab.catalog import SCENARIOS, UnknownScenario, scenario
from hvolab.checked.error import InputError
from hvolab.command.compare import compare_command
from hvolab.command.explore import explore_command
from hvolab.command.options import (
    MODEL_NAMES,
    VARIANT_OPTION,
    bugged,
    cpu_count,
    read_text,
    repeated,
    with_failures,
    with_guest,
    with_model,
)
from hvolab.command.real_input import real_input_options, real_setup, repeated_input, write_end
from hvolab.command.show import show_command
from hvolab.command.why import why_command
from hvolab.explore.budget import Budget
from hvolab.explore.search.interface import Freedom
from hvolab.explore.search.randomly import Pct
from hvolab.show.json_output import list_json, run_json
from hvolab.show.pages_view import PagesView
from hvolab.show.report import (
    Invocation,
    Order,
    show_end,
    show_finding,
    show_phases,
    show_question,
    show_timeline,
    show_uses,
)
from hvolab.show.timeline import Timeline
from hvolab.show.trace_json import TraceError, TraceWriter
from hvolab.subject.fingerprint import fingerprint
from hvolab.subject.run import Run, StrategyFor, run
from hvolab.subject.scenario import Group, GuestActor, Scenario, Setup
from hvolab.subject.schedule import ScheduleError, parse
from hvolab.subject.script import Script, ScriptError, ScriptStrategy
from hvolab.subject.script_text import parse_script
from hvolab.subject.strategy import InOrder, Replay, ReplayThenInOrder, Strategy
from kernel_model.boot import LayoutError, System
from kernel_model.variants.catalog import UnknownVariant

# As `hvolab explore --strategy pct` has them when it is told nothing else.
PCT_DEPTH = 3
PCT_FREEDOMS = frozenset({Freedom.SCHEDULE, Freedom.IRQ, Freedom.TLB})

BAD_INPUT = (
    AssemblyError,
    InputError,
    LayoutError,
    ScheduleError,
    ScriptError,
    TraceError,
    UnknownScenario,
    UnknownVariant,
    UnsupportedInstruction,
)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""\b
Example:  hvolab run tail-write

Watch emulated x86_64 CPUs read and write struct pages while a model of Linux's
HugeTLB Vmemmap Optimization remaps them, and be told what was allowed.""",
)
@click.version_option(version("hvolab"), prog_name="hvolab")
def cli() -> None:
    """The subcommands are below."""


@cli.command(
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


@cli.command(
    name="run",
    short_help="Run one scenario.",
    help="""\b
Example:  hvolab run stale-read
          hvolab run tail-write --json

Run one scenario in its own order, or in another. Exit status 1 says that a
violation was found, which some scenarios expect.""",
)
@click.argument("name")
@click.option("--cpus", type=click.IntRange(1, MOST_CPUS), help="Number of CPUs.")
@VARIANT_OPTION
@click.option("--seed", type=click.IntRange(0), help="Random priorities from this seed, not the script.")
@click.option("--schedule", help="Follow this schedule, as a replay line has it.")
@click.option(
    "--script", type=click.Path(path_type=Path), help="Follow the ordering constraints in this file."
)
@click.option(
    "--past-divergence", is_flag=True, help="Where the run is not the schedule's, say so and go on in order."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON (docs/json.md).")
@click.option("--trace", type=click.Path(path_type=Path), help="Write every event there, as JSON lines.")
@click.option("--program", type=click.Path(path_type=Path), help="Assembly source to run as guest program.")
@click.option("--cpu-model", type=click.Choice(MODEL_NAMES), help="CPUs of this model, not the scenario's.")
@click.option("--failures", type=click.Choice(["any"]), help="Any allocation may fail, as the schedule says.")
@real_input_options
def run_command(
    name: str,
    cpus: int | None,
    variant: str | None,
    seed: int | None,
    schedule: str | None,
    script: Path | None,
    past_divergence: bool,  # noqa: FBT001
    as_json: bool,  # noqa: FBT001
    trace: Path | None,
    program: Path | None,
    cpu_model: str | None,
    failures: str | None,
    layout: Path | None,
    operations: tuple[str, ...],
    dump: Path | None,
) -> int:
    chosen = scenario(name)
    count = cpu_count(chosen, cpus)
    setup, own_order = _setup(chosen, count, layout, operations)
    if variant is not None:
        setup, order_of_bug = bugged(chosen, setup, variant)
        own_order = _following(order_of_bug)
    setup = with_failures(with_guest(with_model(setup, cpu_model), program), failures)
    if past_divergence and schedule is None:
        raise click.UsageError("--past-divergence goes with --schedule")
    follow = ReplayThenInOrder if past_divergence else Replay
    replay = None if schedule is None else follow(parse(schedule), fingerprint(setup))
    strategy_for = _strategy(own_order, setup, seed, replay, script)
    options = {
        "--variant": variant,
        "--cpu-model": cpu_model,
        "--program": program,
        "--failures": failures,
    }
    inputs = repeated_input(layout, operations)
    invocation = Invocation(chosen, count, (*repeated(options), *inputs))
    given = (variant, seed, schedule, script, program, cpu_model, failures, layout)
    order = Order.OWN if all(one is None for one in given) else Order.OTHER
    with ExitStack() as files:
        listeners = _trace_listener(trace, files)
        if as_json:
            done = run(setup, strategy_for, listeners)
            click.echo(json.dumps(run_json(invocation, done), indent=1))
        else:
            done = _run_and_show(Console(), invocation, setup, strategy_for, listeners, order)
    if dump is not None:
        write_end(done.system, operations, dump)
    if replay is not None:
        _tell(replay)
    return 3 if done.model_error else int(done.wrong)


cli.add_command(show_command)
cli.add_command(why_command)
cli.add_command(explore_command)
cli.add_command(compare_command)


@cli.command(
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
        done = _run_and_show(
            console, Invocation(chosen, count), setup, _following(setup.script), (), Order.OWN
        )
        console.print()
        if {f.verdict for f in done.findings if f.verdict.is_violation} != chosen.verdicts:
            surprises.append(chosen.name)
    if surprises:
        console.print(f"[bold red]not as expected:[/] {', '.join(surprises)}")
        return 3
    console.rule()
    console.print(f"{len(SCENARIOS)} scenarios, each as expected. Try one: hvolab run tail-write")
    return 0


def _setup(
    chosen: Scenario, cpus: int, layout: Path | None, operations: tuple[str, ...]
) -> tuple[Setup, StrategyFor]:
    """The scenario's own setup, or one from dumps; and the order it runs in by itself."""
    setup = real_setup(chosen, cpus, layout, operations)
    if setup is not None:
        return setup, lambda _system: InOrder()
    setup = chosen.build(cpus)
    return setup, _following(setup.script)


def _following(script: Script) -> StrategyFor:
    return lambda system: ScriptStrategy(script, system.machine)


def _strategy(
    own_order: StrategyFor,
    setup: Setup,
    seed: int | None,
    replay: Replay | ReplayThenInOrder | None,
    script: Path | None,
) -> StrategyFor:
    given = {"--seed": seed, "--schedule": replay, "--script": script}
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise click.UsageError(f"{' and '.join(names)} exclude each other")
    if seed is not None:
        return _seeded(setup, seed)
    if replay is not None:
        return lambda _system: replay
    if script is not None:
        return _following(parse_script(read_text(script, "--script")))
    return own_order


def _seeded(setup: Setup, seed: int) -> StrategyFor:
    """Random priorities. PCT spreads its change points over a run's length, which a run before tells it."""
    search = Pct(seed, runs=2, depth=PCT_DEPTH)

    def strategy_for(_system: System) -> Strategy:
        search.begin()
        return search.guide(PCT_FREEDOMS)

    run(setup, strategy_for, most_steps=Budget().steps)
    return strategy_for


def _tell(replay: Replay | ReplayThenInOrder) -> None:
    """A line on stderr when the schedule was not this setup's, or was left."""
    if isinstance(replay, ReplayThenInOrder) and replay.diverged_at is not None:
        click.echo(f"hvolab: note: diverged at pick {replay.diverged_at}: {replay.why}", err=True)
    elif replay.stale is not None:
        click.echo(f"hvolab: note: {replay.stale}", err=True)


def _trace_listener(trace: Path | None, files: ExitStack) -> tuple[Callable[[System], Listener], ...]:
    if trace is None:
        return ()
    stream = files.enter_context(_trace_stream(trace))
    return (lambda _system: TraceWriter(stream),)


@contextmanager
def _trace_stream(trace: Path) -> Iterator[TextIO]:
    """The file to write to; what cannot be written, up to its closing, is one error."""
    try:
        stream = trace.open("w", encoding="utf-8")
    except OSError as error:
        raise click.BadParameter(f"cannot write {trace}: {error.strerror}", param_hint="--trace") from None
    try:
        yield stream
    finally:
        try:
            stream.close()
        except OSError as error:
            raise TraceError(f"cannot write {trace}: {error.strerror}") from None


def _run_and_show(
    console: Console,
    invocation: Invocation,
    setup: Setup,
    strategy_for: StrategyFor,
    listeners: tuple[Callable[[System], Listener], ...],
    order: Order,
) -> Run:
    chosen, cpus = invocation.scenario, invocation.cpus
    show_question(console, chosen, cpus)
    timelines: list[Timeline] = []
    pages: list[PagesView] = []

    def watch(system: System) -> Listener:
        if chosen.group is Group.REMAP:
            readers = len({actor.cpu for actor in setup.actors if isinstance(actor, GuestActor)})
            pages.append(PagesView(system, setup.watched, readers))
            return pages[-1]
        timelines.append(Timeline(system))
        return timelines[-1]

    done = run(setup, strategy_for, (*listeners, watch))
    for timeline in timelines:
        show_timeline(console, timeline.lines, cpus)
    for view in pages:
        show_phases(console, view.phases)
    show_uses(console, done.uses)
    for finding in done.findings:
        show_finding(console, finding, invocation.replay(done.schedule))
    show_end(console, chosen, done, order)
    return done


def main() -> None:
    """The entry point: every error a user can cause is one line and status 2."""
    try:
        status = cli.main(standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(0)
    except click.ClickException as error:
        _fail(error.format_message())
    except BAD_INPUT as error:
        _fail(str(error))
    except (KeyboardInterrupt, click.Abort):
        _fail("interrupted", status=130)
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has left
        sys.exit(1)
    except Exception:
        traceback.print_exc()
        _fail("this is a bug in hvolab, please report it with the lines above", status=3)
    sys.exit(status if isinstance(status, int) else 0)


def _fail(message: str, status: int = 2) -> None:
    click.echo("hvolab: " + " ".join(message.split()), err=True)
    sys.exit(status)
