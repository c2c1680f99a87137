"""RCU: synchronize_rcu() waits until every CPU has been outside a read-side section once since the call.

A CPU is inside one while its nesting word (in its per-CPU page; readers change it themselves) is above 0,
interrupts are off, or preemption is disabled (since v5.0 those regions are read-side sections too). A reader
that starts during the grace period is not waited for.
"""

from __future__ import annotations

from collections.abc import Sequence

from emu.addr import PhysAddr
from emu.cpu.condition import AllOf, EachOnce, InterruptsOn, MemoryIs, WordIs
from emu.cpu.ops import Annotate, Await
from kernel_model.core.events import GracePeriodBegun, GracePeriodEnded
from kernel_model.core.spinlock import preempt_count
from kernel_model.layout import PAGE_OFFSET, PerCpu


class Rcu:
    """The grace periods of the given online CPUs."""

    def __init__(self, online: Sequence[int]) -> None:
        self._quiescent = EachOnce(tuple(outside(cpu) for cpu in online))

    async def synchronize_rcu(self) -> None:
        begun = await Annotate(GracePeriodBegun())
        await Await(self._quiescent)
        await Annotate(GracePeriodEnded(begun))


def outside(cpu: int) -> AllOf:
    """That CPU is in no read-side section."""
    return AllOf((MemoryIs(nesting_word(cpu), 0), InterruptsOn(cpu), WordIs(preempt_count(cpu), 0)))


def nesting_word(cpu: int) -> PhysAddr:
    """Where the depth of that CPU's explicit sections is kept: 8 bytes."""
    return PhysAddr(PerCpu(cpu).rcu_nesting - PAGE_OFFSET)
