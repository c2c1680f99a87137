"""Deviations in how a folio's vmemmap is taken away: order, flags, flushes, rights."""

from __future__ import annotations

from emu.addr import PAGE_BYTES, PhysAddr, VirtAddr
from emu.cpu.ops import Annotate, Copy, Fill, ThisCpu
from kernel_model.core.events import OperationBegun, OperationReturned
from kernel_model.hvo.hugetlb_vmemmap import ENOMEM, HugetlbVmemmap, VmemmapRemapWalk, WalkFlag
from kernel_model.layout import page_to_pfn, page_to_virt, pfn_to_page
from kernel_model.mm.hstate import HUGETLB_VMEMMAP_RESERVE_SIZE, Hstate, hugetlb_vmemmap_size
from kernel_model.mm.page import (
    folio_clear_hugetlb_vmemmap_optimized,
    folio_set_hugetlb_vmemmap_optimized,
    page_of_lru,
)
from kernel_model.mm.pgtable import PAGE_KERNEL, entry_get, mk_pte, set_pte_at


class FreeBeforeFlush(HugetlbVmemmap):
    """Gives the old vmemmap pages back before the flush that ends their use."""

    async def hugetlb_vmemmap_optimize_folio(self, h: Hstate, folio: VirtAddr) -> None:
        begun = await Annotate(OperationBegun("hugetlb_vmemmap_optimize_folio", (folio,)))
        cpu = await ThisCpu()
        with self._stacks.list_head(cpu) as vmemmap_pages:
            await self._lists.init(vmemmap_pages)
            flags = WalkFlag.SYNCHRONIZE_RCU | WalkFlag.REMAP_NO_TLB_FLUSH
            await self._optimize_folio(h, folio, vmemmap_pages, flags)
            await self.free_vmemmap_page_list(vmemmap_pages)
            await self._flush.flush_tlb_kernel_range(folio, VirtAddr(folio + hugetlb_vmemmap_size(h)))
        await Annotate(OperationReturned("hugetlb_vmemmap_optimize_folio", begun, None))


class NoFlushAfterRemap(HugetlbVmemmap):
    """Does not flush after the remap (the caller was to, and does not)."""

    async def _optimize_folio(
        self, h: Hstate, folio: VirtAddr, vmemmap_pages: VirtAddr, flags: WalkFlag
    ) -> int:
        return await super()._optimize_folio(h, folio, vmemmap_pages, flags | WalkFlag.REMAP_NO_TLB_FLUSH)


class FlushAfterReuse(HugetlbVmemmap):
    """The range that is flushed begins behind the head page: its own translation changed as well."""

    async def vmemmap_remap_range(self, start: VirtAddr, end: VirtAddr, walk: VmemmapRemapWalk) -> int:
        wanted = walk.flags
        walk.flags |= WalkFlag.REMAP_NO_TLB_FLUSH
        error = await super().vmemmap_remap_range(start, end, walk)
        walk.flags = wanted
        if not error and walk.remap_pte is not None and not wanted & WalkFlag.REMAP_NO_TLB_FLUSH:
            await self._flush.flush_tlb_kernel_range(VirtAddr(start + PAGE_BYTES), end)
        return error


class FlagAfterRemap(HugetlbVmemmap):
    """Sets the folio's flag after the remap: this CPU may still write to the page that was replaced."""

    async def _optimize_folio(
        self, h: Hstate, folio: VirtAddr, vmemmap_pages: VirtAddr, flags: WalkFlag
    ) -> int:
        if not await self.vmemmap_should_optimize_folio(h, folio):
            return 0
        await self._key.static_branch_inc()
        if flags & WalkFlag.SYNCHRONIZE_RCU:
            await self._rcu.synchronize_rcu()
        ret = await self._remap(h, folio, vmemmap_pages, flags)
        if ret:
            await self._key.static_branch_dec()
        else:
            await folio_set_hugetlb_vmemmap_optimized(folio)
        return ret

    async def _remap(self, h: Hstate, folio: VirtAddr, vmemmap_pages: VirtAddr, flags: WalkFlag) -> int:
        start = VirtAddr(folio + HUGETLB_VMEMMAP_RESERVE_SIZE)
        end = VirtAddr(folio + hugetlb_vmemmap_size(h))
        return await self.vmemmap_remap_free(start, end, folio, vmemmap_pages, flags)


class NoRcuWait(HugetlbVmemmap):
    """Does not wait for those who looked at the count before it was frozen."""

    async def _optimize_folio(
        self, h: Hstate, folio: VirtAddr, vmemmap_pages: VirtAddr, flags: WalkFlag
    ) -> int:
        return await super()._optimize_folio(h, folio, vmemmap_pages, flags & ~WalkFlag.SYNCHRONIZE_RCU)


class KeyAfterRemap(FlagAfterRemap):
    """Raises the key when the remap is over."""

    async def _optimize_folio(
        self, h: Hstate, folio: VirtAddr, vmemmap_pages: VirtAddr, flags: WalkFlag
    ) -> int:
        if not await self.vmemmap_should_optimize_folio(h, folio):
            return 0
        await self._rcu.synchronize_rcu()
        await folio_set_hugetlb_vmemmap_optimized(folio)
        ret = await self._remap(h, folio, vmemmap_pages, flags)
        if ret:
            await folio_clear_hugetlb_vmemmap_optimized(folio)
        else:
            await self._key.static_branch_inc()
        return ret


class FlagsAnd(HugetlbVmemmap):
    """After the first folio of a batch it means to clear one flag, and clears all the others."""

    async def hugetlb_vmemmap_optimize_folios(self, h: Hstate, folio_list: VirtAddr) -> None:
        begun = await Annotate(OperationBegun("hugetlb_vmemmap_optimize_folios", ()))
        flags = WalkFlag.REMAP_NO_TLB_FLUSH | WalkFlag.SYNCHRONIZE_RCU
        async for entry in self._lists.entries(folio_list):
            if await self.hugetlb_vmemmap_split_folio(h, page_of_lru(entry)) == -ENOMEM:
                break
        await self._flush.flush_tlb_all()
        cpu = await ThisCpu()
        with self._stacks.list_head(cpu) as vmemmap_pages:
            await self._lists.init(vmemmap_pages)
            async for entry in self._lists.entries(folio_list):
                await self._optimize_folio(h, page_of_lru(entry), vmemmap_pages, flags)
                flags &= WalkFlag.SYNCHRONIZE_RCU
            await self._flush.flush_tlb_all()
            await self.free_vmemmap_page_list(vmemmap_pages)
        await Annotate(OperationReturned("hugetlb_vmemmap_optimize_folios", begun, None))


class WritableTails(HugetlbVmemmap):
    """Maps tails writable: nobody is told who writes there."""

    async def vmemmap_remap_pte(self, pte: PhysAddr, addr: VirtAddr, walk: VmemmapRemapWalk) -> None:
        await super().vmemmap_remap_pte(pte, addr, walk)
        if addr != walk.reuse_addr and self._is_left_writable(addr, walk):
            await set_pte_at(pte, mk_pte(page_to_pfn(walk.reuse_page), PAGE_KERNEL))

    def _is_left_writable(self, addr: VirtAddr, walk: VmemmapRemapWalk) -> bool:
        del addr, walk
        return True


class WriteProtectTooShort(WritableTails):
    """The range it write-protects ends too early: the last tail page stays writable."""

    def _is_left_writable(self, addr: VirtAddr, walk: VmemmapRemapWalk) -> bool:
        return addr - walk.reuse_addr == 7 * PAGE_BYTES


class HeadMappedBeforeCopy(HugetlbVmemmap):
    """The new head page is mapped before it has the old one's contents: the barrier's order, turned round."""

    async def vmemmap_remap_pte(self, pte: PhysAddr, addr: VirtAddr, walk: VmemmapRemapWalk) -> None:
        if addr != walk.reuse_addr:
            await super().vmemmap_remap_pte(pte, addr, walk)
            return
        to = page_to_virt(walk.reuse_page)
        old = (await entry_get(pte)).pfn
        await Fill(to, bytes(PAGE_BYTES))  # the copy made before did not count
        await super().vmemmap_remap_pte(pte, addr, walk)
        await Copy(to, page_to_virt(pfn_to_page(old)), PAGE_BYTES)


class FreesWithoutUnmapping(HugetlbVmemmap):
    """Puts a page on the list of those to be freed, and leaves it mapped."""

    async def vmemmap_remap_pte(self, pte: PhysAddr, addr: VirtAddr, walk: VmemmapRemapWalk) -> None:
        page = pfn_to_page((await entry_get(pte)).pfn)
        if addr == walk.reuse_addr:
            await super().vmemmap_remap_pte(pte, addr, walk)
            return
        await self._lists.add(VirtAddr(page + 8), walk.vmemmap_pages)
