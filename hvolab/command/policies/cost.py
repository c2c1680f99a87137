"""`hvolab cost`: what flush policies cost, against the number of CPUs and the size of a batch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from emu.machine import MOST_CPUS
from hvolab.command.policies.output import check_place, write
from hvolab.command.status import BAD_INPUT
from hvolab.cost.chart import Axis, Chart
from hvolab.cost.documented import DOCUMENTED
from hvolab.cost.measure import CostRow, NoEnd, reckon
from hvolab.cost.plot import picture
from hvolab.cost.view import costs_json, show_costs, show_legend
from hvolab.cost.workload import MOST_FOLIOS, Workload
from hvolab.load.applied import applied, tried
from hvolab.load.user_file import NOTHING_LOADED, UserFile, load
from hvolab.subject.axes import Chosen
from hvolab.subject.blame import LoadError
from hvolab.subject.costs import CostTable
from kernel_model.flush.policy import NamedPolicy
from kernel_model.flush.safe import SAFE
from kernel_model.flush.upstream import UPSTREAM
from kernel_model.mm.hstate import HSTATE_1G, HSTATE_2M

_SMALLEST = Workload(2, 1, HSTATE_2M)
_SIZES = {"2M": HSTATE_2M, "1G": HSTATE_1G}


class Numbers(click.ParamType[list[int]]):
    """`8`, `2,6,36`, or `2..256`: each twice the one before, and the last."""

    name = "numbers"

    def __init__(self, least: int, most: int) -> None:
        self._least, self._most = least, most

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        if isinstance(value, list):
            return value
        found = sorted({number for part in str(value).split(",") for number in self._part(part.strip())})
        if not found or found[0] < self._least or found[-1] > self._most:
            wanted = f"want numbers from {self._least} to {self._most}, as in 8, 2,36 or 2..{self._most}"
            self.fail(f"{value!r}: {wanted}", param, ctx)
        return found

    def _part(self, text: str) -> list[int]:
        first, dots, last = text.partition("..")
        if not (first.isdecimal() and (not dots or last.isdecimal())) or len(text) > 20:
            return [-1]
        if not dots:
            return [int(first)]
        found, number = [int(last)], max(1, int(first))
        if int(first) > int(last):
            return [-1]
        while number < int(last):
            found.append(number)
            number *= 2
        return found


@click.command(
    "cost",
    short_help="What flush policies cost.",
    help="""\b
Example:  hvolab cost
          hvolab cost --policies upstream,invlpgb --cpus 2..256 --plot costs.svg
          hvolab cost --load mine.py

Reckon what flush policies cost while a batch of huge pages is optimized and
every other CPU has work of its own: against the number of CPUs, and against
the size of the batch. Cycles of a model, not of a machine: docs/costs.md.

Exit status: 2 when a file of yours has an error.""",
)
@click.option("--policies", metavar="NAMES", help="These, with commas. Else upstream and the safe ones.")
@click.option(
    "--cpus",
    type=Numbers(2, MOST_CPUS),
    default="2..64",
    show_default=True,
    metavar="N,N..N",
    help="So many CPUs; A..B is each twice the one before.",
)
@click.option(
    "--batch",
    type=Numbers(1, MOST_FOLIOS),
    default="1..16",
    show_default=True,
    metavar="N,N..N",
    help="So many huge pages in a batch.",
)
@click.option("--size", type=click.Choice(tuple(_SIZES)), default="2M", show_default=True, help="Of them.")
@click.option("--load", "option", metavar="FILE.py[:NAME]", help="Your own policies, or cost table.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Draw it there, as SVG.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON (docs/json.md).")
def cost_command(
    policies: str | None,
    cpus: list[int],
    batch: list[int],
    size: str,
    option: str | None,
    plot: Path | None,
    as_json: bool,  # noqa: FBT001
) -> int:
    loaded = NOTHING_LOADED if option is None else load(option)
    chosen = _policies(policies, loaded)
    table = _table(loaded)
    check_place(plot, "--plot")
    # Each axis is gone along in the middle of the other.
    by_cpus = [Workload(count, batch[len(batch) // 2], _SIZES[size]) for count in cpus]
    by_batch = [Workload(cpus[len(cpus) // 2], folios, _SIZES[size]) for folios in batch]
    try:
        rows = _reckoned(chosen, [*dict.fromkeys((*by_cpus, *by_batch))], table, loaded)
    except NoEnd as error:
        click.echo(f"hvolab: {error}", err=True)
        return BAD_INPUT
    charts = _charts(rows, by_cpus, by_batch)
    if plot is not None:
        write(plot, picture(charts), "--plot")
    if as_json:
        click.echo(json.dumps(costs_json(table, rows), indent=1))
        return 0
    console = Console()
    for chart in charts:
        show_costs(console, chart)
    show_legend(console, table, rows)
    return 0


def _charts(
    rows: Sequence[CostRow], by_cpus: Sequence[Workload], by_batch: Sequence[Workload]
) -> list[Chart]:
    """One of each axis that has more than one place; of none, one of CPUs."""
    one = by_cpus[0]
    of_cpus = tuple(row for workload in by_cpus for row in rows if row.workload == workload)
    along_cpus = Chart(f"{one.folios} x {one.hstate.name} in a batch", Axis.CPUS, of_cpus)
    of_batches = tuple(row for workload in by_batch for row in rows if row.workload == workload)
    along_batch = Chart(f"{by_batch[0].cpus} CPUs, so many x {one.hstate.name}", Axis.BATCH, of_batches)
    if len(by_batch) == 1:
        return [along_cpus]
    return [along_batch] if len(by_cpus) == 1 else [along_cpus, along_batch]


def _table(loaded: UserFile) -> CostTable:
    """Raises LoadError where the file has several, or has nothing that is of use here."""
    if len(loaded.cost_tables) > 1:
        raise LoadError(f"{loaded.option} brings several cost tables: say FILE.py:NAME")
    if loaded.things and not (loaded.cost_tables or _own(loaded)):
        raise LoadError(f"{loaded.option} brings neither a flush policy nor a cost table")
    return next(iter(loaded.cost_tables), DOCUMENTED)


def _own(loaded: UserFile) -> list[str]:
    return [thing.name for thing in loaded.things if isinstance(thing, NamedPolicy)]


def _policies(names: str | None, loaded: UserFile) -> list[str]:
    """Raises UnknownName."""
    own = _own(loaded)
    if names is None:
        return [UPSTREAM.name, *(own or [policy.name for policy in SAFE])]
    wanted = [*dict.fromkeys(name.strip() for name in names.split(",") if name.strip())]
    if not wanted:
        raise click.BadParameter("no policy is named", param_hint="--policies")
    for name in wanted:
        loaded.axes.policies.find(name)
    return wanted


def _reckoned(
    policies: Sequence[str], workloads: Sequence[Workload], table: CostTable, loaded: UserFile
) -> list[CostRow]:
    """Raises NoEnd, LoadError."""
    rows: list[CostRow] = []
    for policy in policies:
        if policy in _own(loaded):
            tried(applied(_SMALLEST.setup(), Chosen(policy=policy), loaded), loaded)
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        shown = progress.add_task("")
        for workload in workloads:
            for policy in policies:
                what = f"{policy}: {workload.cpus} CPUs, {workload.folios} in a batch"
                progress.update(shown, description=escape(what))
                own = loaded if policy in _own(loaded) else NOTHING_LOADED
                setup = applied(workload.setup(), Chosen(policy=policy), own)
                rows.append(reckon(setup, workload, table))
    return rows
