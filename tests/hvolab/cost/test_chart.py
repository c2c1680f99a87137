"""Rows along an axis."""

from __future__ import annotations

from hvolab.cost.chart import Axis, Chart
from hvolab.cost.clock import Reckoned
from hvolab.cost.measure import CostRow
from hvolab.cost.workload import Workload
from kernel_model.mm.hstate import HSTATE_2M

ROW = CostRow("p", Workload(4, 7, HSTATE_2M), Reckoned(1, 2, 3, 4, 5, 6, 7))


def test_a_row_has_its_place_on_either_axis() -> None:
    assert [Chart("", axis, (ROW,)).place(ROW) for axis in (Axis.CPUS, Axis.BATCH)] == [4, 7]


def test_what_is_for_the_sake_of_flushes_is_no_cycle_of_other_work() -> None:
    assert ROW.reckoned.total == 1 + 2 + 3
