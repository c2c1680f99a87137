"""Allocation flags (include/linux/gfp_types.h, v6.12): what a caller tells the page allocator.

They decide how hard the allocator tries and what it says when it fails. Which allocations fail is data here
(kernel_model/mm/failures.py), so the flags change nothing; they are announced with each allocation.
"""

from __future__ import annotations

from enum import IntFlag


class Gfp(IntFlag):
    """The bits that the modelled code gives, by the kernel's names without their underscores."""

    IO = 1 << 6
    FS = 1 << 7
    ZERO = 1 << 8
    DIRECT_RECLAIM = 1 << 10
    KSWAPD_RECLAIM = 1 << 11
    NOWARN = 1 << 13
    RETRY_MAYFAIL = 1 << 14
    NORETRY = 1 << 16
    COMP = 1 << 18


GFP_KERNEL = Gfp.DIRECT_RECLAIM | Gfp.KSWAPD_RECLAIM | Gfp.IO | Gfp.FS
GFP_PGTABLE_KERNEL = GFP_KERNEL | Gfp.ZERO
