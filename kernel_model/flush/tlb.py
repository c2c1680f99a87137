"""The kernel's side of a flush policy: the functions that its code calls, under the kernel's names."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from emu.addr import VirtAddr
from kernel_model.core.sites import FlushSite
from kernel_model.flush.policy import FlushPolicy, StaleRange


class KernelTlb:
    """Over the policy of one kernel."""

    def __init__(self, policy: FlushPolicy) -> None:
        self.policy = policy

    async def changed(self, site: FlushSite, start: VirtAddr, end: VirtAddr) -> None:
        """Page tables that translate [start, end), in bytes, have been changed there."""
        await self.policy.issue(StaleRange(site, start, end))

    async def flush_tlb_all(self, site: FlushSite = FlushSite.ELSEWHERE) -> None:
        await self.policy.flush(StaleRange.everywhere_at(site))

    async def flush_tlb_kernel_range(
        self, start: VirtAddr, end: VirtAddr, site: FlushSite = FlushSite.ELSEWHERE
    ) -> None:
        """Flush the 4 KiB pages of [start, end), both in bytes."""
        await self.policy.flush(StaleRange(site, start, end))

    async def flush_tlb_all_and_free(self, site: FlushSite, free: Callable[[], Awaitable[None]]) -> None:
        """flush_tlb_all() before pages that were mapped are freed."""
        ticket = await self.policy.dispatch(StaleRange.everywhere_at(site))
        await self.policy.release(ticket, free)

    async def free_flushed(self, free: Callable[[], Awaitable[None]]) -> None:
        """Free pages that were mapped before the last flush."""
        await self.policy.release(None, free)
