"""The command `hvolab`.

Exit status: 0 = nothing wrong found, 1 = a violation (or a difference) was found, 2 = bad usage or bad input,
one line on stderr; 3 = our own error; 4 = not complete, and nothing found; 130 = interrupted.

What a subcommand needs is imported when it is run: `hvolab --help` loads nothing but the command line.
"""

from __future__ import annotations

import sys
from difflib import get_close_matches

import click

SUBCOMMANDS = {
    "list": "The scenarios, variants, policies, models.",
    "run": "Run one scenario.",
    "show": "Explain one scenario.",
    "why": "Explain the findings of one run, or its stale uses.",
    "step": "Go through one run event by event.",
    "explore": "Run many schedules of one scenario.",
    "matrix": "Flush policies beside scenarios.",
    "cost": "What flush policies cost.",
    "compare": "Say where two dumps differ.",
    "demo": "Five short stories, and a table of all scenarios.",
}
"""By name, with the line in `--help`."""


def _subcommand(name: str) -> click.Command | None:
    match name:
        case "list":
            from hvolab.command.list import list_command as found
        case "run":
            from hvolab.command.run import run_command as found
        case "show":
            from hvolab.command.show import show_command as found
        case "why":
            from hvolab.command.why import why_command as found
        case "step":
            from hvolab.command.stepping.step import step_command as found
        case "explore":
            from hvolab.command.explore import explore_command as found
        case "cost":
            from hvolab.command.policies.cost import cost_command as found
        case "matrix":
            from hvolab.command.policies.matrix import matrix_command as found
        case "compare":
            from hvolab.command.compare import compare_command as found
        case "demo":
            from hvolab.command.demo import demo_command as found
        case _:
            return None  # there is no such command
    return found


class _Subcommands(click.Group):
    """Imports a subcommand when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        return _subcommand(cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(SUBCOMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        near = get_close_matches(args[0], SUBCOMMANDS)
        if args[0] not in SUBCOMMANDS and near:
            ctx.fail(f"No such command {args[0]!r}; did you mean {' or '.join(near)}?")
        return super().resolve_command(ctx, args)


def _print_version(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:  # noqa: FBT001
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"hvolab, version {version('hvolab')}")
        ctx.exit()


@click.group(
    cls=_Subcommands,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""\b
Example:  hvolab run tail-write

Watch emulated x86_64 CPUs read and write struct pages while a model of Linux's
HugeTLB Vmemmap Optimization remaps them, and be told what was allowed.""",
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Show the version and exit.",
)
def cli() -> None:
    """The subcommands are imported one by one."""


def main() -> None:
    """The entry point: every error a user can cause is one line and status 2."""
    try:
        status = cli.main(standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(0)
    except click.ClickException as error:
        _fail(error.format_message())
    except (KeyboardInterrupt, click.Abort):
        _fail("interrupted", status=130)
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has left
        sys.exit(1)
    except Exception as error:
        # Nobody but who has failed needs to know what can fail.
        from hvolab.command.bad_input import BAD_INPUT

        if isinstance(error, BAD_INPUT):
            _fail(str(error))
        import traceback

        traceback.print_exc()
        _fail("this is a bug in hvolab, please report it with the lines above", status=3)
    sys.exit(status if isinstance(status, int) else 0)


def _fail(message: str, status: int = 2) -> None:
    click.echo("hvolab: " + " ".join(message.split()), err=True)
    sys.exit(status)
