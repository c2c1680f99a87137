"""The command `hvolab`.

Exit status: 0 = nothing wrong found, 1 = a violation (or a difference) was found, 2 = bad usage or bad input,
one line on stderr; 3 = our own error; 4 = not complete, and nothing found; 130 = interrupted.
"""

from __future__ import annotations

import sys
import traceback
from importlib.metadata import version

import click

from emu.guest.decode import UnsupportedInstruction
from firmware.assemble import AssemblyError
from hvolab.checked.error import InputError
from hvolab.command.compare import compare_command
from hvolab.command.demo import demo_command
from hvolab.command.explore import explore_command
from hvolab.command.list import list_command
from hvolab.command.run import run_command
from hvolab.command.show import show_command
from hvolab.command.why import why_command
from hvolab.show.trace_json import TraceError
from hvolab.subject.blame import LoadError
from hvolab.subject.names import UnknownName
from hvolab.subject.scenario import NoGuest
from hvolab.subject.schedule import ScheduleError
from hvolab.subject.script import ScriptError
from kernel_model.boot import LayoutError

BAD_INPUT = (
    AssemblyError,
    InputError,
    LayoutError,
    LoadError,
    NoGuest,
    ScheduleError,
    ScriptError,
    TraceError,
    UnknownName,
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


cli.add_command(list_command)
cli.add_command(run_command)
cli.add_command(show_command)
cli.add_command(why_command)
cli.add_command(explore_command)
cli.add_command(compare_command)
cli.add_command(demo_command)


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
