"""A CPU that is between two address spaces is left out, and catches up by a generation when it arrives.

As arch/x86/mm/tlb.c does for user addresses (mm_cpumask, tlb_gen, LOADED_MM_SWITCHING), for the kernel's. On
hardware a full barrier belongs between the store and the load of either side; steps here are in order anyway.
"""

from __future__ import annotations

from emu.cpu.ops import FetchAdd, FlushTlb, Load, Store, ThisCpu
from kernel_model.flush.policy import NamedPolicy, StaleRange, Ticket
from kernel_model.flush.upstream import UpstreamFlush
from kernel_model.layout import TLB_GEN, PerCpu


class SkipsSwitching(UpstreamFlush):
    """Visible as arrived first, and then the generation: who flushes later interrupts it."""

    async def dispatch(self, stale: StaleRange) -> Ticket:
        await FetchAdd(TLB_GEN, 1)
        return await super().dispatch(stale)

    async def _to_interrupt(self, initiator: int) -> frozenset[int]:
        others = sorted(self.targets(initiator))
        return frozenset([other for other in others if not await Load(PerCpu(other).switching)])

    async def leave(self) -> None:
        await Store(PerCpu(await ThisCpu()).switching, 1)

    async def arrive(self) -> None:
        own = PerCpu(await ThisCpu())
        await Store(own.switching, 0)
        await self.catch_up(own)

    async def catch_up(self, own: PerCpu) -> None:
        """Flush, if anybody has begun to since the last time."""
        generation = await Load(TLB_GEN)
        if generation != await Load(own.tlb_gen):
            await FlushTlb()
            await Store(own.tlb_gen, generation)


class SkipsSwitchingLate(SkipsSwitching):
    """The generation first: who flushes between the two leaves it out, and it does not know."""

    async def arrive(self) -> None:
        own = PerCpu(await ThisCpu())
        await self.catch_up(own)
        await Store(own.switching, 0)


_OBLIGATION = "who is left out reads the generation when nobody leaves it out any more"
SKIP_SWITCHING = NamedPolicy(
    "skip-switching",
    "as upstream, but a CPU between two address spaces is left out, and catches up",
    SkipsSwitching,
    source="arch/x86/mm/tlb.c, v6.12: should_flush_tlb(), switch_mm_irqs_off()",
    obligation=_OBLIGATION,
)
SKIP_SWITCHING_LATE = NamedPolicy(
    "skip-switching-late",
    "as skip-switching, but it looks whether it has to catch up too early",
    SkipsSwitchingLate,
    source="the two steps of the arrival in the other order",
    obligation=_OBLIGATION,
)
