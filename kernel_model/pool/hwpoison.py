"""Memory errors in hugetlb folios (mm/hugetlb.c, mm/memory-failure.c, v6.12): where they are kept.

While a folio is hugetlb, an error is kept on the head: PG_hwpoison, and a list of the raw pages that hangs in
struct page 2. When the folio stops being hugetlb the errors move to the raw pages' own struct pages. Whoever
marks a raw page's struct page before that writes to a tail, which HVO maps read-only.
"""

from __future__ import annotations

from emu.addr import VirtAddr
from emu.cpu.ops import Annotate, FetchAdd, FetchAndNot, FetchOr, Load, Store
from kernel_model.core.events import ActionResult, MemoryFailed
from kernel_model.core.spinlock import HUGETLB_LOCK, spin_lock_irq, spin_unlock_irq
from kernel_model.layout import HUGETLB_OPTIMIZE_VMEMMAP_KEY, RAW_HWP_NODES, page_to_pfn
from kernel_model.mm.page import (
    HugetlbFlag,
    Offset,
    PageFlag,
    compound_head,
    field,
    folio_test_hugetlb,
    folio_test_hugetlb_vmemmap_optimized,
    nth_page,
)
from kernel_model.mm.page_ref import folio_try_get

NODE_BYTES = 16  # struct raw_hwp_page: llist node, page
EBUSY = 16
EHWPOISON = 133
_NOT_A_HUGE_PAGE = 2


class RawHwpoison:
    """The raw error pages of hugetlb folios. Nodes come from an array in kernel data, used once each."""

    async def memory_failure(self, page: VirtAddr) -> int:
        """memory_failure(), up to where the error is kept. Nobody is killed, nothing dissolved or unmapped.

        Of what is hugetlb under the lock the error is kept with the head, of anything else in the page.
        Returns -EBUSY for a folio on its way into the pool or out of it, though its error has been kept: for
        the caller and the log it was ignored. -EHWPOISON where the head had an error before; else 0.
        """
        await Annotate(MemoryFailed(page_to_pfn(page)))
        for last in (False, True):  # MF_NO_RETRY is set for the second time
            await spin_lock_irq(HUGETLB_LOCK)
            res = await self._get_huge_page_for_hwpoison(page, no_retry=last)
            await spin_unlock_irq(HUGETLB_LOCK)
            if res != -EBUSY:
                break
        if res == _NOT_A_HUGE_PAGE:
            await FetchOr(field(page, Offset.FLAGS), PageFlag.HWPOISON)  # TestSetPageHWPoison()
        if res == -EBUSY:
            await Annotate(ActionResult(page_to_pfn(page), "get hwpoison page", "Ignored"))
        return min(res, 0)

    async def _get_huge_page_for_hwpoison(self, page: VirtAddr, *, no_retry: bool) -> int:
        """__get_huge_page_for_hwpoison() under hugetlb_lock: 0 free, 1 in use, or -EBUSY, -EHWPOISON.

        A folio that is neither free nor in use is on its way into the pool or out of it: busy, once. The
        second time its error is kept all the same.
        """
        folio = await compound_head(page, HUGETLB_OPTIMIZE_VMEMMAP_KEY)
        if not await folio_test_hugetlb(folio):
            return _NOT_A_HUGE_PAGE
        flags = await Load(field(folio, Offset.PRIVATE))
        res = 0
        if flags & HugetlbFlag.MIGRATABLE and not flags & HugetlbFlag.FREED:
            res = int(await folio_try_get(folio, HUGETLB_OPTIMIZE_VMEMMAP_KEY))
        elif not flags & HugetlbFlag.FREED:
            res = -EBUSY
            if not no_retry:
                return res
        if await self.folio_set_hugetlb_hwpoison(folio, page):
            res = -EHWPOISON
        if res == 1:
            await FetchAndNot(field(folio, Offset.PRIVATE), HugetlbFlag.MIGRATABLE)
        return res

    async def folio_set_hugetlb_hwpoison(self, folio: VirtAddr, page: VirtAddr) -> int:
        """Keep an error of `page` with the head. Returns 0, or -EHWPOISON when the head had one already."""
        before = await FetchOr(field(folio, Offset.FLAGS), PageFlag.HWPOISON)
        node = VirtAddr(RAW_HWP_NODES + NODE_BYTES + NODE_BYTES * await FetchAdd(RAW_HWP_NODES, 1))
        await Store(VirtAddr(node + 8), page)
        await Store(node, await Load(raw_hwp_list_head(folio)))
        await Store(raw_hwp_list_head(folio), node)
        return -EHWPOISON if before & PageFlag.HWPOISON else 0

    async def folio_clear_hugetlb_hwpoison(self, folio: VirtAddr) -> None:
        """Move the errors from the head to the raw pages, whose struct pages must be writable by now."""
        if await Load(field(folio, Offset.PRIVATE)) & HugetlbFlag.RAW_HWP_UNRELIABLE:
            return
        if await folio_test_hugetlb_vmemmap_optimized(folio):
            return
        await FetchAndNot(field(folio, Offset.FLAGS), PageFlag.HWPOISON)
        node = VirtAddr(await Load(raw_hwp_list_head(folio)))
        await Store(raw_hwp_list_head(folio), 0)
        while node:
            page = VirtAddr(await Load(VirtAddr(node + 8)))
            await FetchOr(field(page, Offset.FLAGS), PageFlag.HWPOISON)
            node = VirtAddr(await Load(node))


def raw_hwp_list_head(folio: VirtAddr) -> VirtAddr:
    """&folio->_hugetlb_hwpoison, in struct page 2"""
    return field(nth_page(folio, 2), Offset.PRIVATE)
