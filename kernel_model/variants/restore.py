"""Deviations in how a folio gets its vmemmap back, or keeps it after a failure."""

from __future__ import annotations

from emu.addr import PAGE_BYTES, PhysAddr, VirtAddr
from emu.cpu.ops import Copy, Load
from kernel_model.hvo.hugetlb_vmemmap import HugetlbVmemmap, VmemmapRemapWalk, WalkFlag
from kernel_model.layout import STRUCT_PAGE_SIZE, page_to_pfn, page_to_virt, pfn_to_page
from kernel_model.mm.hstate import Hstate, hugetlb_vmemmap_size
from kernel_model.mm.page import page_of_lru
from kernel_model.mm.pgtable import PAGE_KERNEL, entry_get, mk_pte


class ResetTooSmall(HugetlbVmemmap):
    """Overwrites two struct pages at the start of a restored page where three carry other metadata."""

    async def reset_struct_pages(self, start: VirtAddr) -> None:
        length = 2 * STRUCT_PAGE_SIZE
        await Copy(start, VirtAddr(start + length), length)


class RestoreMapsBeforeCopy(HugetlbVmemmap):
    """Maps a new page before it has its contents."""

    async def _fill_and_map(
        self, pte: PhysAddr, addr: VirtAddr, page: VirtAddr, walk: VmemmapRemapWalk
    ) -> None:
        await self._set_pte_at(pte, addr, mk_pte(page_to_pfn(page), PAGE_KERNEL), walk)
        await self._fill(page_to_virt(page), walk)


class RestoreWithoutCopy(HugetlbVmemmap):
    """Maps a new page and leaves in it whatever its last owner left."""

    async def _fill(self, to: VirtAddr, walk: VmemmapRemapWalk) -> None:
        """It is full of something."""


class OnePageTooFew(HugetlbVmemmap):
    """Allocates one page less than it has to map."""

    async def alloc_vmemmap_page_list(self, start: VirtAddr, end: VirtAddr, pages: VirtAddr) -> int:
        return await super().alloc_vmemmap_page_list(start, VirtAddr(end - PAGE_BYTES), pages)


class KeyLoweredBeforeFlush(HugetlbVmemmap):
    """Lowers the key when the pages are mapped again, while CPUs may still see fake heads."""

    async def vmemmap_remap_alloc(
        self, start: VirtAddr, end: VirtAddr, reuse: VirtAddr, flags: WalkFlag
    ) -> int:
        return await super().vmemmap_remap_alloc(start, end, reuse, flags | WalkFlag.REMAP_NO_TLB_FLUSH)

    async def _end_restore(self, h: Hstate, folio: VirtAddr, flags: WalkFlag) -> None:
        await super()._end_restore(h, folio, flags)
        if not flags & WalkFlag.REMAP_NO_TLB_FLUSH:
            end = VirtAddr(folio + hugetlb_vmemmap_size(h))
            await self._flush.flush_tlb_kernel_range(folio, end)


class RollbackFromTemplate(HugetlbVmemmap):
    """Rolling back, it makes tails of every page of the folio, of the head page too."""

    async def vmemmap_pte_entry(self, pte: PhysAddr, addr: VirtAddr, walk: VmemmapRemapWalk) -> int:
        first = not walk.reuse_page
        ret = await super().vmemmap_pte_entry(pte, addr, walk)
        if first and self._rolls_back(walk):
            head = page_to_virt(pfn_to_page((await entry_get(pte)).pfn))
            await Copy(head, VirtAddr(head + PAGE_BYTES // 2), PAGE_BYTES // 2)
        return ret

    def _rolls_back(self, walk: VmemmapRemapWalk) -> bool:
        return walk.remap_pte == self.vmemmap_restore_pte and _without_flags(walk)


class RollbackFirstInFirstOut(HugetlbVmemmap):
    """Rolling back, it takes the pages in the order in which they were taken out, the old head page first."""

    async def _next_vmemmap_page(self, walk: VmemmapRemapWalk) -> VirtAddr:
        if not _without_flags(walk):
            return await super()._next_vmemmap_page(walk)
        return page_of_lru(VirtAddr(await Load(VirtAddr(walk.vmemmap_pages + 8))))


def _without_flags(walk: VmemmapRemapWalk) -> bool:
    """A walk that rolls back has no flags; one that restores waits for RCU, or does not flush, or both."""
    return not walk.flags
