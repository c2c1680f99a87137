"""Memory errors in hugetlb folios (mm/hugetlb.c, mm/memory-failure.c, v6.12): where they are kept.

While a folio is hugetlb, an error is kept on the head: PG_hwpoison, and a list of the raw pages that hangs in
struct page 2. When the folio stops being hugetlb the errors move to the raw pages' own struct pages. Whoever
marks a raw page's struct page before that writes to a tail, which HVO maps read-only.
"""

from __future__ import annotations

from emu.addr import VirtAddr
from emu.ops import FetchAdd, FetchAndNot, FetchOr, Load, Store
from kernel_model.layout import RAW_HWP_NODES
from kernel_model.page import (
    HugetlbFlag,
    Offset,
    PageFlag,
    field,
    folio_test_hugetlb_vmemmap_optimized,
    nth_page,
)

NODE_BYTES = 16  # struct raw_hwp_page: llist node, page
EHWPOISON = 133


class RawHwpoison:
    """The raw error pages of hugetlb folios. Nodes come from an array in kernel data, used once each."""

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
