"""What a run cost: the waits and flushes a kernel developer counts.

Counts, not times: no clock is modelled.
"""

from __future__ import annotations

from dataclasses import dataclass

from emu.events import Annotated, Invalidated, IpiTaken, MachineEvent
from emu.paging.tlb import InvalidateAll, Invlpg
from emu.trace import Listener
from kernel_model.boot import System
from kernel_model.core.events import FlushBegun, GracePeriodBegun


@dataclass(frozen=True, slots=True)
class Costs:
    """`flushes`: requests by the kernel. `invlpgs`, `full_flushes`: what all CPUs did to their TLBs."""

    grace_periods: int = 0
    flushes: int = 0
    interrupts: int = 0
    invlpgs: int = 0
    full_flushes: int = 0

    def __str__(self) -> str:
        return (
            f"{_many(self.grace_periods, 'RCU wait')}, {_many(self.flushes, 'flush', 'flushes')}, "
            f"{_many(self.interrupts, 'interrupt')} taken, {_many(self.invlpgs, 'INVLPG')}, "
            f"{_many(self.full_flushes, 'whole TLB')} emptied"
        )


NO_COSTS = Costs()


@dataclass(frozen=True, slots=True)
class CostTable:
    """Cycles that each of the things counted takes on some machine: whoever measured them says which."""

    name: str
    grace_period: int = 0
    flush: int = 0
    interrupt: int = 0
    invlpg: int = 0
    full_flush: int = 0

    def cycles(self, costs: Costs) -> int:
        """What all CPUs together spend, none of it beside other work."""
        return (
            costs.grace_periods * self.grace_period
            + costs.flushes * self.flush
            + costs.interrupts * self.interrupt
            + costs.invlpgs * self.invlpg
            + costs.full_flushes * self.full_flush
        )


class CostCounter:
    """Counts while a run is made."""

    def __init__(self) -> None:
        self._grace_periods = self._flushes = self._interrupts = self._invlpgs = self._full_flushes = 0

    def listener(self, _system: System) -> Listener:
        return self._count

    @property
    def costs(self) -> Costs:
        return Costs(self._grace_periods, self._flushes, self._interrupts, self._invlpgs, self._full_flushes)

    def _count(self, _number: int, event: MachineEvent) -> None:
        match event:
            case Annotated(payload=GracePeriodBegun()):
                self._grace_periods += 1
            case Annotated(payload=FlushBegun()):
                self._flushes += 1
            case IpiTaken():
                self._interrupts += 1
            case Invalidated(what=Invlpg(pages=pages)):
                self._invlpgs += pages
            case Invalidated(what=InvalidateAll()):
                self._full_flushes += 1
            case _:
                pass  # costs no CPU but its own


def _many(count: int, one: str, several: str = "") -> str:
    return f"{count} {one}" if count == 1 else f"{count} {several or one + 's'}"
