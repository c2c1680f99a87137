"""Deviations in how a 2 MiB leaf of vmemmap becomes a page table."""

from __future__ import annotations

from emu.addr import PhysAddr, VirtAddr
from emu.cpu.ops import Fill
from kernel_model.core.spinlock import INIT_MM_PAGE_TABLE_LOCK, spin_lock, spin_unlock
from kernel_model.hvo.hugetlb_vmemmap import ENOMEM, PMD_ORDER, HugetlbVmemmap, VmemmapRemapWalk
from kernel_model.layout import PMD_SIZE, page_to_pfn
from kernel_model.mm.page import PageReserved
from kernel_model.mm.pgtable import PAGE_KERNEL, PAGE_KERNEL_RO, page_table, pmd_populate_kernel, table_start


class SplitWithoutRecheck(HugetlbVmemmap):
    """Splits without looking again, under the lock, whether it still is a leaf."""

    pgprot = PAGE_KERNEL

    async def vmemmap_split_pmd(
        self, pmd: PhysAddr, head: VirtAddr, start: VirtAddr, walk: VmemmapRemapWalk
    ) -> int:
        del walk
        pgtable = await self._pte_alloc_one_kernel()
        if pgtable is None:
            return -ENOMEM
        table = page_to_pfn(pgtable)
        await Fill(table_start(table), page_table(page_to_pfn(head), self.pgprot))
        await spin_lock(INIT_MM_PAGE_TABLE_LOCK)
        await self._make_single_pages(head)
        await pmd_populate_kernel(pmd, table)
        await self._flush.flush_tlb_kernel_range(start, VirtAddr(start + PMD_SIZE))
        await spin_unlock(INIT_MM_PAGE_TABLE_LOCK)
        return 0

    async def _make_single_pages(self, head: VirtAddr) -> None:
        if not await PageReserved(head):
            await self._pages.split_page(head, PMD_ORDER)


class SplitsNoBlock(SplitWithoutRecheck):
    """Does not make single pages of a hotplugged block before it splits the PMD."""

    async def _make_single_pages(self, head: VirtAddr) -> None:
        await PageReserved(head)


class SplitReadOnly(SplitWithoutRecheck):
    """The page table says less than the leaf did: all its entries are read-only, the neighbours' too."""

    pgprot = PAGE_KERNEL_RO
