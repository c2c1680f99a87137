"""Deviations in how a 2 MiB leaf of vmemmap becomes a page table."""

from __future__ import annotations

from emu.addr import PhysAddr, VirtAddr
from kernel_model.hvo.hugetlb_vmemmap import HugetlbVmemmap, VmemmapRemapWalk
from kernel_model.layout import pfn_to_page
from kernel_model.mm.pgtable import PAGE_KERNEL_RO, entry_get


class SplitWithoutRecheck(HugetlbVmemmap):
    """Splits without looking again, under the lock, whether it still is a leaf."""

    async def _still_leaf(self, pmd: PhysAddr) -> bool:
        del pmd
        return True


class SplitHeadUnlocked(HugetlbVmemmap):
    """Reads which block the leaf maps when the lock has been let go: it may be a page table's by then."""

    async def vmemmap_split_pmd(
        self, pmd: PhysAddr, head: VirtAddr, start: VirtAddr, walk: VmemmapRemapWalk
    ) -> int:
        head = pfn_to_page((await entry_get(pmd)).pfn)
        return await super().vmemmap_split_pmd(pmd, head, start, walk)


class SplitsNoBlock(HugetlbVmemmap):
    """Does not make single pages of a hotplugged block before it splits the PMD."""

    async def _split_page(self, head: VirtAddr) -> None:
        """They stay one block."""


class SplitReadOnly(HugetlbVmemmap):
    """The page table says less than the leaf did: all its entries are read-only, the neighbours' too."""

    split_pgprot = PAGE_KERNEL_RO
