"""The kernel's side of a flush policy: the functions that its code calls, under the kernel's names."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from emu.addr import VirtAddr
from emu.cpu.ops import Load, SetInterrupts, ThisCpu
from kernel_model.core.lists import Lists
from kernel_model.core.sites import FlushSite
from kernel_model.flush.policy import EntryChange, FlushPolicy, Pages, StaleRange
from kernel_model.layout import PerCpu

FreesList: TypeAlias = Callable[[VirtAddr], Awaitable[None]]
"""Frees all pages of the list with that head."""


class KernelTlb:
    """Over the policy of one kernel."""

    def __init__(self, policy: FlushPolicy, lists: Lists) -> None:
        self.policy = policy
        self._lists = lists

    async def change(self, site: FlushSite, start: VirtAddr, end: VirtAddr, entry: EntryChange) -> None:
        """What translates [start, end), in bytes, is to become another entry."""
        await self.policy.change(StaleRange(site, start, end), entry)

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

    async def flush_tlb_all_and_free(self, site: FlushSite, pages: VirtAddr, free_list: FreesList) -> None:
        """flush_tlb_all() before the pages of a list are freed that were mapped."""
        ticket = await self.policy.dispatch(StaleRange.everywhere_at(site))
        await self.policy.release(ticket, self._pages(pages, free_list))

    async def free_flushed(self, pages: VirtAddr, free_list: FreesList) -> None:
        """Free the pages of a list that were mapped before the last flush."""
        await self.policy.release(None, self._pages(pages, free_list))

    def _pages(self, pages: VirtAddr, free_list: FreesList) -> Pages:
        async def free() -> None:
            await free_list(pages)

        async def hold() -> None:
            held = PerCpu(await ThisCpu()).held
            were = await SetInterrupts(enabled=False)
            if not await Load(held):
                await self._lists.init(held)
            await self._lists.splice_init(pages, held)
            await SetInterrupts(were)

        return Pages(free, hold)

    async def tick(self, free_list: FreesList) -> None:
        """This CPU's timer has interrupted it."""

        async def free_held() -> None:
            held = PerCpu(await ThisCpu()).held
            if await Load(held):
                await free_list(held)
                await self._lists.init(held)

        await self.policy.tick(free_held)
