"""What a run cost: the waits and flushes a kernel developer counts.

Counts, not times: no clock is modelled.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields

from emu.events import Annotated, BroadcastSent, Invalidated, IpiTaken, MachineEvent
from emu.paging.tlb import InvalidateAll, Invlpg
from emu.trace import Listener
from kernel_model.boot import System
from kernel_model.core.events import FlushBegun, GracePeriodBegun


@dataclass(frozen=True, slots=True)
class Costs:
    """`flushes`: requests by the kernel. `invlpgs`, `full_flushes`: what all CPUs did to their TLBs.
    `broadcasts`: INVLPGBs, which all CPUs carried out."""

    grace_periods: int = 0
    flushes: int = 0
    interrupts: int = 0
    invlpgs: int = 0
    full_flushes: int = 0
    broadcasts: int = 0

    def __str__(self) -> str:
        return (
            f"{_many(self.grace_periods, 'RCU wait')}, {_many(self.flushes, 'flush', 'flushes')}, "
            f"{_many(self.interrupts, 'interrupt')} taken, {_many(self.invlpgs, 'INVLPG')}, "
            f"{_many(self.full_flushes, 'whole TLB')} emptied"
            + (f", {_many(self.broadcasts, 'INVLPGB')}" if self.broadcasts else "")
        )


NO_COSTS = Costs()
_MOST_CYCLES = 10**12


@dataclass(frozen=True, slots=True)
class CostTable:
    """Cycles that each of the things counted takes on some machine: whoever measured them says which.

    The last five are used by `hvolab cost` only, which reckons when what happens on each CPU: a `walk`; the
    interrupt for one more CPU (`ipi_target`), and until the first of them has it (`ipi_delivery`); `tlbsync`;
    an `access` to memory.
    """

    name: str
    grace_period: int = 0
    flush: int = 0
    interrupt: int = 0
    invlpg: int = 0
    full_flush: int = 0
    broadcast: int = 0
    walk: int = 0
    ipi_target: int = 0
    ipi_delivery: int = 0
    tlbsync: int = 0
    access: int = 0

    def __post_init__(self) -> None:
        """Raises ValueError for what are no cycles."""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "name" and not (type(value) is int and 0 <= value <= _MOST_CYCLES):
                raise ValueError(f"{field.name}={value!r}: want cycles, a number from 0 to {_MOST_CYCLES:,}")

    def cycles(self, costs: Costs) -> int:
        """What all CPUs together spend, none of it beside other work."""
        return (
            costs.grace_periods * self.grace_period
            + costs.flushes * self.flush
            + costs.interrupts * self.interrupt
            + costs.invlpgs * self.invlpg
            + costs.full_flushes * self.full_flush
            + costs.broadcasts * self.broadcast
        )


class CostCounter:
    """Counts while a run is made."""

    def __init__(self) -> None:
        self._counted: Counter[str] = Counter()

    def listener(self, _system: System) -> Listener:
        return self._count

    @property
    def costs(self) -> Costs:
        return Costs(**self._counted)

    def _count(self, _number: int, event: MachineEvent) -> None:
        match event:
            case Annotated(payload=GracePeriodBegun()):
                self._counted["grace_periods"] += 1
            case Annotated(payload=FlushBegun()):
                self._counted["flushes"] += 1
            case IpiTaken():
                self._counted["interrupts"] += 1
            case Invalidated(what=Invlpg(pages=pages)):
                self._counted["invlpgs"] += pages
            case Invalidated(what=InvalidateAll()):
                self._counted["full_flushes"] += 1
            case BroadcastSent():
                self._counted["broadcasts"] += 1
            case _:
                pass  # costs no CPU but its own


def _many(count: int, one: str, several: str = "") -> str:
    return f"{count} {one}" if count == 1 else f"{count} {several or one + 's'}"
