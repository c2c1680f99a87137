"""Deviations in how a folio gets its vmemmap back, or keeps it after a failure."""

from __future__ import annotations

from emu.addr import PAGE_BYTES, PAGE_SHIFT, PhysAddr, VirtAddr
from emu.cpu.ops import Copy, Count, Load
from kernel_model.hvo.hugetlb_vmemmap import HugetlbVmemmap, VmemmapRemapWalk, WalkFlag
from kernel_model.layout import STRUCT_PAGE_SIZE, page_to_pfn, page_to_virt, pfn_to_page
from kernel_model.mm.hstate import HUGETLB_VMEMMAP_RESERVE_SIZE, Hstate, hugetlb_vmemmap_size
from kernel_model.mm.page import (
    folio_clear_hugetlb_vmemmap_optimized,
    folio_test_hugetlb_vmemmap_optimized,
    lru,
    page_of_lru,
)
from kernel_model.mm.pgtable import PAGE_KERNEL, entry_get, mk_pte, set_pte_at


class ResetTooSmall(HugetlbVmemmap):
    """Overwrites two struct pages at the start of a restored page where three carry other metadata."""

    async def reset_struct_pages(self, start: VirtAddr) -> None:
        length = 2 * STRUCT_PAGE_SIZE
        await Copy(start, VirtAddr(start + length), length)


class RestoreMapsBeforeCopy(HugetlbVmemmap):
    """Maps a new page before it has its contents."""

    async def vmemmap_restore_pte(self, pte: PhysAddr, addr: VirtAddr, walk: VmemmapRemapWalk) -> None:
        del addr
        page = page_of_lru(VirtAddr(await Load(walk.vmemmap_pages)))
        await self._lists.delete(lru(page))
        to = page_to_virt(page)
        await set_pte_at(pte, mk_pte(page_to_pfn(page), PAGE_KERNEL))
        await self._fill(to, page_to_virt(walk.reuse_page))

    async def _fill(self, to: VirtAddr, source: VirtAddr) -> None:
        await Copy(to, source, PAGE_BYTES)
        await self.reset_struct_pages(to)


class RestoreWithoutCopy(RestoreMapsBeforeCopy):
    """Maps a new page and leaves in it whatever its last owner left."""

    async def _fill(self, to: VirtAddr, source: VirtAddr) -> None:
        del to, source


class OnePageTooFew(HugetlbVmemmap):
    """Allocates one page less than it has to map."""

    async def alloc_vmemmap_page_list(self, start: VirtAddr, end: VirtAddr, pages: VirtAddr) -> int:
        nr_pages = (end - start) >> PAGE_SHIFT
        for _ in range(nr_pages - 1):
            page = await self._pages.alloc_page("vmemmap tail page")
            assert page is not None
            await self._lists.add(lru(page), pages)
        await Count("nr_memmap_pages", nr_pages)
        return 0


class KeyLoweredBeforeFlush(HugetlbVmemmap):
    """Lowers the key when the pages are mapped again, while CPUs may still see fake heads."""

    async def _restore_folio(self, h: Hstate, folio: VirtAddr, flags: WalkFlag) -> int:
        if not await folio_test_hugetlb_vmemmap_optimized(folio):
            return 0
        await self._rcu.synchronize_rcu()
        start = VirtAddr(folio + HUGETLB_VMEMMAP_RESERVE_SIZE)
        end = VirtAddr(folio + hugetlb_vmemmap_size(h))
        ret = await self.vmemmap_remap_alloc(start, end, folio, flags | WalkFlag.REMAP_NO_TLB_FLUSH)
        if ret:
            return ret
        await folio_clear_hugetlb_vmemmap_optimized(folio)
        await self._key.static_branch_dec()
        if not flags & WalkFlag.REMAP_NO_TLB_FLUSH:
            await self._flush.flush_tlb_kernel_range(folio, end)
        return 0


class RollbackFromTemplate(HugetlbVmemmap):
    """Rolling back, it makes tails of every page of the folio, of the head page too."""

    async def vmemmap_pte_entry(self, pte: PhysAddr, addr: VirtAddr, walk: VmemmapRemapWalk) -> int:
        first = not walk.reuse_page
        ret = await super().vmemmap_pte_entry(pte, addr, walk)
        if first and walk.remap_pte == self.vmemmap_restore_pte and not walk.flags:
            head = page_to_virt(pfn_to_page((await entry_get(pte)).pfn))
            await Copy(head, VirtAddr(head + PAGE_BYTES // 2), PAGE_BYTES // 2)
        return ret


class RollbackFirstInFirstOut(HugetlbVmemmap):
    """Rolling back, it takes the pages in the order in which they were taken out, the old head page first."""

    async def vmemmap_restore_pte(self, pte: PhysAddr, addr: VirtAddr, walk: VmemmapRemapWalk) -> None:
        last = VirtAddr(await Load(VirtAddr(walk.vmemmap_pages + 8)))
        await self._lists.move(last, walk.vmemmap_pages)
        await super().vmemmap_restore_pte(pte, addr, walk)
