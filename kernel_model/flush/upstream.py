"""Linux on x86 before INVLPGB (arch/x86/mm/tlb.c): interrupt every online CPU and wait for all.

Rules L1 and L2 of docs/hardware-rules.md.
"""

from __future__ import annotations

from emu.addr import PAGE_SHIFT, VirtAddr
from emu.cpu.ops import Annotate, ThisCpu
from kernel_model.core.events import FlushBegun, FlushCompleted
from kernel_model.core.smp import FlushEverything, FlushPages, RemoteCall, on_each_cpu
from kernel_model.flush.policy import FlushSite, NamedPolicy

WHOLE_ADDRESS_SPACE = (0, 1 << 64)


class UpstreamFlush:
    """Synchronous shootdown of all online CPUs."""

    def __init__(self, site: FlushSite) -> None:
        self._site = site

    async def flush_tlb_all(self) -> None:
        await self._flush("flush_tlb_all", *WHOLE_ADDRESS_SPACE, FlushEverything())

    async def flush_tlb_kernel_range(self, start: VirtAddr, end: VirtAddr) -> None:
        pages = (end - start) >> PAGE_SHIFT
        call: RemoteCall = FlushPages(start, pages)
        if pages > self._site.ceiling:
            call = FlushEverything()
        await self._flush("flush_tlb_kernel_range", start, end, call)

    def targets(self, initiator: int) -> frozenset[int]:
        """The CPUs to interrupt."""
        return self._site.online - {initiator}

    async def _to_interrupt(self, initiator: int) -> frozenset[int]:
        return self.targets(initiator)

    async def _flush(self, function: str, start: int, end: int, call: RemoteCall) -> None:
        cpu = await ThisCpu()
        targets = await self._to_interrupt(cpu)
        begun = await Annotate(FlushBegun(function, start, end, targets | {cpu}))
        await on_each_cpu(targets, call)
        await Annotate(FlushCompleted(begun))


UPSTREAM = NamedPolicy("upstream", "interrupt every online CPU, wait for all", UpstreamFlush)
