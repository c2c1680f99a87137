"""Rows along an axis, to be shown or drawn."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import assert_never

from hvolab.cost.measure import CostRow


class Axis(Enum):
    """What grows."""

    CPUS = "CPUs"
    BATCH = "batch"


@dataclass(frozen=True, slots=True)
class Chart:
    """`title`: what is the same in all rows."""

    title: str
    axis: Axis
    rows: tuple[CostRow, ...]

    def place(self, row: CostRow) -> int:
        """Where on the axis it is."""
        match self.axis:
            case Axis.CPUS:
                return row.workload.cpus
            case Axis.BATCH:
                return row.workload.folios
            case never:
                assert_never(never)
