"""Linux on x86 before INVLPGB (arch/x86/mm/tlb.c): interrupt every online CPU and wait for all.

Rules L1 and L2 of docs/hardware-rules.md.
"""

from __future__ import annotations

from emu.cpu.ops import ThisCpu
from kernel_model.core.smp import FlushEverything, FlushPages, RemoteCall, csd_lock_wait, on_each_cpu
from kernel_model.flush.policy import FlushPolicy, NamedPolicy, StaleRange, Ticket, announce


def call_for(stale: StaleRange, ceiling: int) -> FlushEverything | FlushPages:
    """What a CPU does that flushes that, with tlb_single_page_flush_ceiling in 4 KiB pages."""
    return FlushEverything() if stale.pages > ceiling else FlushPages(stale.start, stale.pages)


class UpstreamFlush(FlushPolicy):
    """Synchronous shootdown of all online CPUs."""

    def targets(self, initiator: int) -> frozenset[int]:
        """The CPUs to interrupt."""
        return self._setup.online - {initiator}

    def call(self, stale: StaleRange) -> RemoteCall:
        """What each CPU is to do about it."""
        return call_for(stale, self._setup.ceiling)

    async def dispatch(self, stale: StaleRange) -> Ticket:
        cpu = await ThisCpu()
        targets = await self._to_interrupt(cpu)
        begun = await announce(stale, targets | {cpu})
        request = await on_each_cpu(targets, self.call(stale))
        return Ticket(stale, begun, request)

    async def rely(self, ticket: Ticket) -> None:
        if ticket.request is not None:
            await csd_lock_wait(ticket.request)

    async def _to_interrupt(self, initiator: int) -> frozenset[int]:
        return self.targets(initiator)


UPSTREAM = NamedPolicy(
    "upstream",
    "interrupt every online CPU, wait for all",
    UpstreamFlush,
    source="arch/x86/mm/tlb.c, v6.12",
    obligation="every CPU that may hold a translation has acknowledged before anything is relied on",
)
