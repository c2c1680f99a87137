"""Addresses, frame numbers and page sizes.

`VirtAddr`, `PhysAddr` and `Pfn` are different types to the type checker and plain integers at run time.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NewType

VirtAddr = NewType("VirtAddr", int)
PhysAddr = NewType("PhysAddr", int)
Pfn = NewType("Pfn", int)

PAGE_SHIFT = 12
PAGE_BYTES = 1 << PAGE_SHIFT
PAGE_MASK = PAGE_BYTES - 1
WORD_MASK = (1 << 64) - 1
VA_BITS = 48
_HALF = 1 << (VA_BITS - 1)
_TOP = (1 << 64) - _HALF


class PageSize(IntEnum):
    """Sizes a translation can have, in bytes (SDM 3A 4.5)."""

    KIB4 = 1 << 12
    MIB2 = 1 << 21
    GIB1 = 1 << 30

    def __str__(self) -> str:
        return {PageSize.KIB4: "4K", PageSize.MIB2: "2M", PageSize.GIB1: "1G"}[self]


def is_canonical(value: int) -> bool:
    """Whether bits 63:47 of `value` are all equal (SDM 1, 3.3.7.1)."""
    return 0 <= value < _HALF or _TOP <= value <= WORD_MASK


def page_start(va: VirtAddr, size: PageSize = PageSize.KIB4) -> VirtAddr:
    """First address of the page of that size that holds `va`."""
    return VirtAddr(va & ~(size - 1) & WORD_MASK)


def frame(pa: PhysAddr) -> Pfn:
    """The 4 KiB frame that holds `pa`."""
    return Pfn(pa >> PAGE_SHIFT)


def frame_start(pfn: Pfn) -> PhysAddr:
    """First physical address of the 4 KiB frame."""
    return PhysAddr(pfn << PAGE_SHIFT)
