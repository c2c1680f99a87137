"""`hvolab run remap --layout FILE --do ...`: boot the page tables of a real kernel, and do what it did."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from hvolab.dump import read_dump, write_dump
from hvolab.dump.real.layout import setup_from
from hvolab.dump.real.operations import MOST_OPERATIONS, operations_from
from hvolab.dump.real.system_dump import dump_system
from hvolab.subject.scenario import Scenario, Setup
from kernel_model.boot import System

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _gone(_context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        option = parameter.opts[0]
        raise click.UsageError(
            f"{option} is gone: --do optimize:FILE in place of --folios FILE, then --do restore to restore"
        )


_OPTIONS = (
    click.option(
        "--layout", type=click.Path(path_type=Path), help="remap: boot with the leaves of this dump."
    ),
    click.option(
        "--do",
        "operations",
        multiple=True,
        metavar="OPERATION",
        help="remap with --layout, in order, at most "
        f"{MOST_OPERATIONS} times: optimize:FILE (the folios that dump lists join the pool), "
        "restore (all leave it), shrink=N or shrink=1G:N, sysctl=0 or 1.",
    ),
    click.option("--folios", hidden=True, expose_value=False, callback=_gone, help="Gone: see --do."),
    click.option("--until", hidden=True, expose_value=False, callback=_gone, help="Gone: see --do."),
    click.option(
        "--dump", type=click.Path(path_type=Path), help="Write the final page tables and struct pages there."
    ),
)


def real_input_options(command: _Command) -> _Command:
    """`--layout`, `--do` and `--dump`, passed as `layout`, `operations` and `dump`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def real_setup(chosen: Scenario, cpus: int, layout: Path | None, operations: tuple[str, ...]) -> Setup | None:
    """The setup that the dumps describe; None when none is named. Raises UsageError, InputError."""
    if layout is None and not operations:
        return None
    if chosen.name != "remap":
        raise click.UsageError("--layout and --do go with the scenario remap")
    if layout is None:
        raise click.UsageError("--do goes with --layout, which names the page tables to begin with")
    return setup_from(read_dump(layout), operations_from(operations, read_dump), cpus)


def repeated_input(layout: Path | None, operations: tuple[str, ...]) -> tuple[str, ...]:
    """The options as the words a replay must repeat."""
    named = () if layout is None else ("--layout", str(layout))
    return (*named, *(word for operation in operations for word in ("--do", operation)))


def write_end(system: System, operations: tuple[str, ...], path: Path) -> None:
    """Write what the system has become, labelled with the operations done."""
    write_dump(dump_system(system, ", ".join(operations) or "end"), path)
