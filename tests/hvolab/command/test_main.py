"""The command as a whole: exit statuses, one line for every wrong usage, help.

Most tests call the entry point in this process; those about a terminal start one.
"""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from command_line import hvolab, in_a_process

from hvolab.catalog import SCENARIOS, scenario
from hvolab.command.main import SUBCOMMANDS, cli

COUNT = len(SCENARIOS)
WRONG_USAGE = [
    (("run", "nope"), f"there is no scenario 'nope'; `hvolab list` has all {COUNT}"),
    (("run", ""), f"there is no scenario ''; `hvolab list` has all {COUNT}"),
    (("run", "Tail-Write"), "there is no scenario 'Tail-Write'; did you mean tail-write?"),
    (("run", "a\nb"), f"there is no scenario 'a\\nb'; `hvolab list` has all {COUNT}"),
    (("run",), "Missing argument 'NAME'."),
    (("run", "stale-read", "--cpus", "0"), "Invalid value for '--cpus': 0 is not in the range 1<=x<=256."),
    (
        ("run", "stale-read", "--cpus", "257"),
        "Invalid value for '--cpus': 257 is not in the range 1<=x<=256.",
    ),
    (("run", "stale-read", "--cpus", "-1"), "Invalid value for '--cpus': -1 is not in the range 1<=x<=256."),
    (("run", "stale-read", "--cpus", "1"), "stale-read has actors on 2 CPUs, not 1: --cpus"),
    (("run", "flush-begun-before", "--cpus", "2"), "flush-begun-before has actors on 3 CPUs, not 2: --cpus"),
    (("run", "stale-read", "--seed", "-1"), "Invalid value for '--seed': -1 is not in the range x>=0."),
    (("run", "stale-read", "--seed", "1", "--schedule", "v1 0"), "--seed and --schedule exclude each other"),
    (("run", "stale-read", "--past-divergence"), "--past-divergence goes with --schedule"),
    (("run", "stale-read", "--past-divergence", "--seed", "1"), "--past-divergence goes with --schedule"),
    (("list", "models", "more"), "Got unexpected extra argument (more)"),
    (("demo", "stale-read", "more"), "Got unexpected extra argument (more)"),
    (("demo", "stale-raed"), "there is no scenario 'stale-raed'; did you mean stale-read or tail-write?"),
    (("run", "stale-read", "more"), "Got unexpected extra argument (more)"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG_USAGE, ids=lambda value: " ".join(value)[:60])
def test_wrong_usage_is_one_line_and_status_2(arguments: tuple[str, ...], message: str) -> None:
    done = hvolab(*arguments)
    assert (done.status, done.err) == (2, f"hvolab: {message}\n")
    assert done.out == ""


@pytest.mark.parametrize(
    ("arguments", "about"),
    [
        (("nope",), "nope"),
        (("run", "stale-read", "--bogus"), "--bogus"),
        (("list", "--bogus"), "--bogus"),
        (("run", "stale-read", "--cpus", "two"), "--cpus"),
        (("run", "stale-read", "--cpus"), "--cpus"),
        (("run", "stale-read", "--schedule"), "--schedule"),
        (("explore", "nope"), "nope"),
        (("explore",), "NAME"),
    ],
)
def test_what_click_refuses_is_one_line_that_names_it(arguments: tuple[str, ...], about: str) -> None:
    done = hvolab(*arguments)
    assert done.status == 2
    assert done.out == ""
    assert done.err.startswith("hvolab: ")
    assert done.err.endswith("\n")
    assert done.err.count("\n") == 1
    assert about in done.err


# --- help -----------------------------------------------------------------------------------------------


def test_no_argument_is_help() -> None:
    done = hvolab()
    assert done.status == 0
    assert done.err == ""
    assert "Example:  hvolab run tail-write" in done.out
    assert all(f"  {name} " in done.out for name in SUBCOMMANDS)


def help_texts() -> Iterator[tuple[str, ...]]:
    yield ()
    for name in SUBCOMMANDS:
        yield (name,)


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize("command", list(help_texts()), ids=" ".join)
def test_help_starts_with_an_example(command: tuple[str, ...], flag: str) -> None:
    done = hvolab(*command, flag)
    assert done.status == 0
    lines = [line.strip() for line in done.out.splitlines() if line.strip()]
    assert lines[0].startswith("Usage: ")
    assert lines[1].startswith(f"Example:  hvolab {' '.join(command)}".rstrip())


@pytest.mark.parametrize("name", sorted(SUBCOMMANDS))
def test_every_option_says_what_it_is_for(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    parameters = command.params
    silent = [
        parameter.opts
        for parameter in parameters
        if isinstance(parameter, click.Option)
        and not parameter.hidden
        and not (parameter.help or parameter.show_default)
    ]
    assert silent == []
    assert parameters


def test_a_slip_in_a_command_names_the_one_like_it() -> None:
    done = hvolab("exlpore", "stale-read")
    assert (done.status, done.err) == (2, "hvolab: No such command 'exlpore'; did you mean explore?\n")


def test_the_version() -> None:
    done = hvolab("--version")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith("hvolab, version ")


def test_the_exit_status_is_that_of_the_process() -> None:
    for arguments, status in ((("list",), 0), (("run", "nope"), 2)):
        done = in_a_process(*arguments)
        assert done.returncode == status
        assert done.stderr.count("\n") == (1 if status == 2 else 0)


@pytest.mark.parametrize("name", ["tail-write"])
def test_without_a_terminal_there_are_no_escape_codes(name: str) -> None:
    done = in_a_process("run", name, COLUMNS="80", FORCE_COLOR="", NO_COLOR="")
    assert "\x1b" not in done.stdout
    replay = [line for line in done.stdout.splitlines() if line.startswith("replay ")]
    assert len(replay) == len(scenario(name).verdicts)
    assert all(len(line) <= 80 for line in done.stdout.splitlines() if line not in replay)
