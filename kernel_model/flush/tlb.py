"""The kernel's side of a flush policy: the functions that its code calls, under the kernel's names."""

from __future__ import annotations

from emu.addr import VirtAddr
from emu.cpu.ops import Load, ThisCpu
from kernel_model.core.sites import FlushSite
from kernel_model.flush.policy import Deed, FlushPolicy, StaleRange
from kernel_model.layout import PerCpu


class KernelTlb:
    """Over the policy of one kernel."""

    def __init__(self, policy: FlushPolicy) -> None:
        self.policy = policy

    async def change(self, site: FlushSite, start: VirtAddr, end: VirtAddr, clear: Deed, make: Deed) -> None:
        """What translates [start, end), in bytes, is to become what `make` stores; `clear` stores nothing."""
        await self.policy.change(StaleRange(site, start, end), clear, make)

    async def changed(self, site: FlushSite, start: VirtAddr, end: VirtAddr) -> None:
        """Page tables that translate [start, end), in bytes, have been changed there."""
        await self.policy.issue(StaleRange(site, start, end))

    async def switch_mm_irqs_off(self) -> None:
        """To another address space and its page tables, of which the kernel's part is the same."""
        await self.policy.leave()
        await self.policy.arrive()
        # The generation of this CPU's TLB is looked at whatever the policy.
        await Load(PerCpu(await ThisCpu()).tlb_gen)

    async def flush_tlb_all(self, site: FlushSite = FlushSite.ELSEWHERE) -> None:
        await self.policy.flush(StaleRange.everywhere_at(site))

    async def flush_tlb_kernel_range(
        self, start: VirtAddr, end: VirtAddr, site: FlushSite = FlushSite.ELSEWHERE
    ) -> None:
        """Flush the 4 KiB pages of [start, end), both in bytes."""
        await self.policy.flush(StaleRange(site, start, end))

    async def flush_tlb_all_and_free(self, site: FlushSite, free: Deed) -> None:
        """flush_tlb_all() before pages that were mapped are freed."""
        ticket = await self.policy.dispatch(StaleRange.everywhere_at(site))
        await self.policy.release(ticket, free)

    async def free_flushed(self, free: Deed) -> None:
        """Free pages that were mapped before the last flush."""
        await self.policy.release(None, free)
