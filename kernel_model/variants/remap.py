"""Deviations in how a folio's vmemmap is taken away: order, flags, flushes, rights."""

from __future__ import annotations

from emu.addr import PAGE_BYTES, PhysAddr, VirtAddr
from emu.cpu.ops import Copy
from emu.paging.pte import Pte
from kernel_model.hvo.hugetlb_vmemmap import HugetlbVmemmap, VmemmapRemapWalk, WalkFlag
from kernel_model.layout import page_to_virt
from kernel_model.mm.page import folio_clear_hugetlb_vmemmap_optimized, folio_set_hugetlb_vmemmap_optimized
from kernel_model.mm.pgtable import PAGE_KERNEL, PAGE_KERNEL_RO


class FreeBeforeFlush(HugetlbVmemmap):
    """Gives a folio's old vmemmap pages back before the flush that ends their use."""

    async def _flush_remapped(self, start: VirtAddr, end: VirtAddr, walk: VmemmapRemapWalk) -> None:
        if walk.remap_pte == self.vmemmap_remap_pte:
            await self.free_vmemmap_page_list(walk.vmemmap_pages)
            await self._lists.init(walk.vmemmap_pages)
        await super()._flush_remapped(start, end, walk)


class NoFlushAfterRemap(HugetlbVmemmap):
    """Does not flush after the remap (the caller was to, and does not)."""

    async def _flush_remapped(self, start: VirtAddr, end: VirtAddr, walk: VmemmapRemapWalk) -> None:
        if walk.remap_pte != self.vmemmap_remap_pte:
            await super()._flush_remapped(start, end, walk)


class FlushAfterReuse(HugetlbVmemmap):
    """The range that is flushed begins behind the head page: its own translation changed as well."""

    async def _flush_remapped(self, start: VirtAddr, end: VirtAddr, walk: VmemmapRemapWalk) -> None:
        await super()._flush_remapped(VirtAddr(start + PAGE_BYTES), end, walk)


class FlagAfterRemap(HugetlbVmemmap):
    """Sets the folio's flag after the remap: this CPU may still write to the page that was replaced."""

    async def _begin_optimize(self, folio: VirtAddr, flags: WalkFlag) -> None:
        del folio
        await self._key.static_branch_inc()
        if flags & WalkFlag.SYNCHRONIZE_RCU:
            await self._rcu.synchronize_rcu()

    async def _end_optimize(self, folio: VirtAddr, ret: int) -> None:
        if ret:
            await self._key.static_branch_dec()
        else:
            await folio_set_hugetlb_vmemmap_optimized(folio)


class NoRcuWait(HugetlbVmemmap):
    """Does not wait for those who looked at the count before it was frozen."""

    async def _begin_optimize(self, folio: VirtAddr, flags: WalkFlag) -> None:
        await super()._begin_optimize(folio, flags & ~WalkFlag.SYNCHRONIZE_RCU)


class KeyAfterRemap(HugetlbVmemmap):
    """Raises the key when the remap is over."""

    async def _begin_optimize(self, folio: VirtAddr, flags: WalkFlag) -> None:
        if flags & WalkFlag.SYNCHRONIZE_RCU:
            await self._rcu.synchronize_rcu()
        await folio_set_hugetlb_vmemmap_optimized(folio)

    async def _end_optimize(self, folio: VirtAddr, ret: int) -> None:
        if ret:
            await folio_clear_hugetlb_vmemmap_optimized(folio)
        else:
            await self._key.static_branch_inc()


class FlagsAnd(HugetlbVmemmap):
    """After the first folio of a batch it means to clear one flag, and clears all the others."""

    def _after_the_first(self, flags: WalkFlag) -> WalkFlag:
        return flags & WalkFlag.SYNCHRONIZE_RCU


class WritableTails(HugetlbVmemmap):
    """Maps tails writable: nobody is told who writes there."""

    async def vmemmap_remap_pte(self, pte: PhysAddr, addr: VirtAddr, walk: VmemmapRemapWalk) -> None:
        await self._remap_pte(pte, addr, walk, PAGE_KERNEL)


class WriteProtectTooShort(HugetlbVmemmap):
    """The range it write-protects ends too early: the last tail page stays writable."""

    async def vmemmap_remap_range(self, start: VirtAddr, end: VirtAddr, walk: VmemmapRemapWalk) -> int:
        async def remap_pte(pte: PhysAddr, addr: VirtAddr, walk: VmemmapRemapWalk) -> None:
            last = addr == end - PAGE_BYTES
            await self._remap_pte(pte, addr, walk, PAGE_KERNEL if last else PAGE_KERNEL_RO)

        if walk.remap_pte == self.vmemmap_remap_pte:
            walk.remap_pte = remap_pte
        return await super().vmemmap_remap_range(start, end, walk)


class HeadMappedBeforeCopy(HugetlbVmemmap):
    """The new head page is mapped before it has the old one's contents: the barrier's order, turned round."""

    async def _fill_head(self, to: VirtAddr, walk: VmemmapRemapWalk) -> None:
        """Not yet."""

    async def _set_remapped(
        self, pte: PhysAddr, addr: VirtAddr, entry: Pte, page: VirtAddr, walk: VmemmapRemapWalk
    ) -> None:
        await super()._set_remapped(pte, addr, entry, page, walk)
        if entry.writable:
            await Copy(page_to_virt(walk.reuse_page), page_to_virt(page), PAGE_BYTES)


class FreesWithoutUnmapping(HugetlbVmemmap):
    """Puts a tail page on the list of those to be freed, and leaves it mapped."""

    async def _set_remapped(
        self, pte: PhysAddr, addr: VirtAddr, entry: Pte, page: VirtAddr, walk: VmemmapRemapWalk
    ) -> None:
        if entry.writable:
            await super()._set_remapped(pte, addr, entry, page, walk)
