"""Policies that are wrong on purpose: what a missed flush looks like."""

from __future__ import annotations

from emu.addr import VirtAddr
from emu.ops import Annotate
from kernel_model.events import FlushBegun, FlushCompleted
from kernel_model.flush.policy import FlushSite, NamedPolicy
from kernel_model.flush.upstream import WHOLE_ADDRESS_SPACE, UpstreamFlush


class SkipsLastCpu(UpstreamFlush):
    """Interrupts every online CPU but the one with the highest number."""

    def __init__(self, site: FlushSite) -> None:
        super().__init__(site)
        self._skipped = max(site.online)

    def targets(self, initiator: int) -> frozenset[int]:
        return super().targets(initiator) - {self._skipped}


class NoFlush:
    """flush_tlb_all where it was never implemented (s390 until 3d03b8c0f398): returns at once."""

    def __init__(self, site: FlushSite) -> None:
        del site

    async def flush_tlb_all(self) -> None:
        await self._pretend("flush_tlb_all", *WHOLE_ADDRESS_SPACE)

    async def flush_tlb_kernel_range(self, start: VirtAddr, end: VirtAddr) -> None:
        await self._pretend("flush_tlb_kernel_range", start, end)

    async def _pretend(self, function: str, start: int, end: int) -> None:
        begun = await Annotate(FlushBegun(function, start, end, frozenset()))
        await Annotate(FlushCompleted(begun))


SKIPS_LAST_CPU = NamedPolicy(
    "skips-last-cpu", "as upstream, but the CPU with the highest number is left out", SkipsLastCpu
)
NO_FLUSH = NamedPolicy("no-flush", "returns at once, flushing nothing", NoFlush)
