"""Costs on a screen, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hvolab.checked.json_value import Json
from hvolab.cost.chart import Chart
from hvolab.cost.documented import CYCLES_A_MICROSECOND
from hvolab.cost.measure import CostRow
from hvolab.subject.costs import CostTable

SCHEMA = 1
_COLUMNS = ("all, µs", "flushes", "handlers", "walks", "interrupts", "lost", "for nothing")
_MEANS = (
    "flushes: the CPU that flushes, until it relies on it; handlers: on the CPUs it interrupts; walks: on "
    "all, since it began; lost: entries of TLBs, for nothing those that were still right"
)
_WRONG = "*  wrong in this very run: hvolab matrix says where else"


def show_costs(console: Console, chart: Chart) -> None:
    """A line for each policy at each place on the axis."""
    console.print(f"[bold]{escape(chart.title)}[/bold]", highlight=False)
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(chart.axis.value, justify="right")
    table.add_column("policy", no_wrap=True)
    for column in _COLUMNS:
        table.add_column(column, justify="right")
    last = None
    for row in chart.rows:
        place = chart.place(row)
        found = row.reckoned
        times = (found.total, found.flushing, found.interrupted, found.refilling)
        counts = (found.interrupts, found.invalidated, found.needlessly)
        table.add_row(
            "" if place == last else str(place),
            escape(row.policy) + ("*" if row.wrong else ""),
            *(f"{cycles / CYCLES_A_MICROSECOND:,.1f}" for cycles in times),
            *(f"{count:,}" for count in counts),
        )
        last = place
    console.print(table)


def show_legend(console: Console, table: CostTable, rows: Sequence[CostRow]) -> None:
    """What the columns are, and what they were reckoned with."""
    console.print(f"[dim]{escape(_MEANS)}[/dim]", highlight=False)
    if any(row.wrong for row in rows):
        console.print(_WRONG, highlight=False)
    told = f"reckoned with {table.name}, {CYCLES_A_MICROSECOND:,} cycles a µs: a model (docs/costs.md)"
    console.print(escape(told), highlight=False)


def costs_json(table: CostTable, rows: Sequence[CostRow]) -> dict[str, Json]:
    """As docs/json.md has it: cycles."""
    return {
        "schema": SCHEMA,
        "table": asdict(table),
        "rows": [
            {
                "policy": row.policy,
                "cpus": row.workload.cpus,
                "folios": row.workload.folios,
                "huge_page": row.workload.hstate.name,
                "total": row.reckoned.total,
                **asdict(row.reckoned),
                "wrong": row.wrong,
            }
            for row in rows
        ],
    }
