"""struct hstate: a size of huge page, and what its vmemmap measures (mm/hugetlb_vmemmap.h)."""

from __future__ import annotations

from dataclasses import dataclass

from emu.addr import PAGE_BYTES
from kernel_model.layout import STRUCT_PAGE_SIZE

HUGETLB_VMEMMAP_RESERVE_SIZE = PAGE_BYTES
HUGETLB_VMEMMAP_RESERVE_PAGES = HUGETLB_VMEMMAP_RESERVE_SIZE // STRUCT_PAGE_SIZE


@dataclass(frozen=True, slots=True)
class Hstate:
    """`order`: a huge page is 2**order base pages."""

    name: str
    order: int

    @property
    def pages_per_huge_page(self) -> int:
        return 1 << self.order


HSTATE_2M = Hstate("2M", 9)
HSTATE_1G = Hstate("1G", 18)
HSTATES = (HSTATE_1G, HSTATE_2M)


def hugetlb_vmemmap_size(h: Hstate) -> int:
    """Bytes of struct pages of one huge page."""
    return h.pages_per_huge_page * STRUCT_PAGE_SIZE


def hugetlb_vmemmap_optimizable_size(h: Hstate) -> int:
    """Bytes of them that HVO can give back; 0 when there are none."""
    return max(hugetlb_vmemmap_size(h) - HUGETLB_VMEMMAP_RESERVE_SIZE, 0)


def hugetlb_vmemmap_optimizable(h: Hstate) -> bool:
    return hugetlb_vmemmap_optimizable_size(h) != 0
