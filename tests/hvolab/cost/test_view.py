"""Costs on a screen of 80 columns."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from hvolab.cost.chart import Axis, Chart
from hvolab.cost.clock import Reckoned
from hvolab.cost.measure import CostRow
from hvolab.cost.view import costs_json, show_costs, show_legend
from hvolab.cost.workload import Workload
from hvolab.subject.costs import CostTable
from kernel_model.mm.hstate import HSTATE_2M

TABLE = CostTable("mine [b]", invlpg=5)
ROWS = (
    CostRow("right", Workload(2, 8, HSTATE_2M), Reckoned(3_000, 6_000, 1_500, 9, 1, 2_000, 3)),
    CostRow("wrong", Workload(2, 8, HSTATE_2M), Reckoned(0, 0, 0, 9, 0, 0, 0), wrong=True),
    CostRow("right", Workload(256, 8, HSTATE_2M), Reckoned(30_000_000, 0, 0, 9, 512, 0, 0)),
)


def shown() -> list[str]:
    out = StringIO()
    console = Console(file=out, width=80, color_system=None)
    show_costs(console, Chart("8 x 2M", Axis.CPUS, ROWS))
    show_legend(console, TABLE, ROWS)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_a_line_each_with_microseconds_and_counts() -> None:
    assert shown()[:5] == [
        "8 x 2M",
        "CPUs policy  all, µs  flushes handlers walks interrupts  lost for nothing",
        "   2 right       3.5      1.0      2.0   0.5          1 2,000           3",
        "     wrong*      0.0      0.0      0.0   0.0          0     0           0",
        " 256 right  10,000.0 10,000.0      0.0   0.0        512     0           0",
    ]


def test_the_legend_says_what_it_was_reckoned_with_and_what_a_star_means() -> None:
    told = " ".join(shown()[5:])
    assert "mine [b], 3,000 cycles a µs: a model (docs/costs.md)" in told
    assert "*  wrong in this very run" in told


def test_json_has_cycles_and_counts_and_the_table() -> None:
    document = costs_json(TABLE, ROWS)
    assert document["schema"] == 1
    assert document["table"]["invlpg"] == 5
    assert document["rows"][0] == {
        "policy": "right",
        "cpus": 2,
        "folios": 8,
        "huge_page": "2M",
        "total": 10_500,
        "flushing": 3_000,
        "interrupted": 6_000,
        "refilling": 1_500,
        "elapsed": 9,
        "interrupts": 1,
        "invalidated": 2_000,
        "needlessly": 3,
        "wrong": False,
    }
