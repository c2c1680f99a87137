"""struct page of Linux v6.12, 64 bytes, as the words of memory it is.

Offsets and the head page's values agree with struct pages read out of a running v6.12 kernel (see
tests/fixtures). Flag positions are those of include/linux/page-flags.h at v6.12. Every function here goes
through the vmemmap address, so through the TLB of the CPU it runs on.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

from emu.addr import PAGE_MASK, VirtAddr
from emu.cpu.ops import FetchAndNot, FetchOr, Load, Store
from kernel_model.layout import STRUCT_PAGE_SIZE


class Offset(IntEnum):
    """Byte offsets in struct page. Head and tail meanings of one word share an offset."""

    FLAGS = 0
    LRU_NEXT = 8
    COMPOUND_HEAD = 8  # of a tail: the head's address + 1
    LRU_PREV = 16
    MAPPING = 24
    INDEX = 32
    PRIVATE = 40
    MAPCOUNT = 48
    PAGE_TYPE = 48
    REFCOUNT = 52
    MEMCG_DATA = 56


class PageFlag(IntFlag):
    """The bits of page->flags that the model looks at."""

    LOCKED = 1 << 0
    WRITEBACK = 1 << 1
    LRU = 1 << 5
    HEAD = 1 << 6
    ACTIVE = 1 << 8
    OWNER_PRIV_1 = 1 << 10
    VMEMMAP_SELF_HOSTED = 1 << 10  # PG_vmemmap_self_hosted is PG_owner_priv_1
    RESERVED = 1 << 13
    PRIVATE = 1 << 14
    PRIVATE_2 = 1 << 15
    UNEVICTABLE = 1 << 18
    MLOCKED = 1 << 19
    HWPOISON = 1 << 20


class HugetlbFlag(IntFlag):
    """HPG bits in the head's `private` word (include/linux/hugetlb.h)."""

    RESTORE_RESERVE = 1 << 0
    MIGRATABLE = 1 << 1
    TEMPORARY = 1 << 2
    FREED = 1 << 3
    VMEMMAP_OPTIMIZED = 1 << 4
    RAW_HWP_UNRELIABLE = 1 << 5


# Node 0, one zone, last-cpupid all ones: what a one-node machine has in the upper bits.
FLAGS_BASE = 0x000F_FFFF_C000_0000
PGTY_BUDDY = 0xF0 << 24
PGTY_HUGETLB = 0xF4 << 24
NO_MAPCOUNT = 0xFFFF_FFFF
TAIL_MAPPING = 0xDEAD_0000_0000_0400  # TAIL_MAPPING

SECTION_INFO = 12  # enum bootmem_type, kept in `index` of a boot-time vmemmap page

# PAGE_FLAGS_CHECK_AT_FREE, as far as modelled.
CHECK_AT_FREE = (
    PageFlag.LRU
    | PageFlag.LOCKED
    | PageFlag.PRIVATE
    | PageFlag.PRIVATE_2
    | PageFlag.WRITEBACK
    | PageFlag.RESERVED
    | PageFlag.ACTIVE
    | PageFlag.UNEVICTABLE
    | PageFlag.MLOCKED
)
# PAGE_FLAGS_CHECK_AT_PREP: every flag but PG_hwpoison.
CHECK_AT_PREP = PageFlag(((1 << 22) - 1) & ~int(PageFlag.HWPOISON))


def field(page: VirtAddr, offset: Offset) -> VirtAddr:
    """Address of a field of a struct page."""
    return VirtAddr(page + offset)


def lru(page: VirtAddr) -> VirtAddr:
    """&page->lru"""
    return field(page, Offset.LRU_NEXT)


def page_of_lru(entry: VirtAddr) -> VirtAddr:
    """list_entry(entry, struct page, lru)"""
    return VirtAddr(entry - Offset.LRU_NEXT)


def nth_page(page: VirtAddr, number: int) -> VirtAddr:
    """page + number"""
    return VirtAddr(page + number * STRUCT_PAGE_SIZE)


async def PageReserved(page: VirtAddr) -> bool:  # noqa: N802
    return bool(await Load(field(page, Offset.FLAGS)) & PageFlag.RESERVED)


async def PageVmemmapSelfHosted(page: VirtAddr) -> bool:  # noqa: N802
    return bool(await Load(field(page, Offset.FLAGS)) & PageFlag.VMEMMAP_SELF_HOSTED)


async def page_to_nid(page: VirtAddr) -> int:
    """The node number lies in the flags word above bit 52: reading it reads the struct page."""
    return await Load(field(page, Offset.FLAGS)) >> 52


async def folio_test_hugetlb(folio: VirtAddr) -> bool:
    return await Load(field(folio, Offset.PAGE_TYPE), 4) >> 24 == PGTY_HUGETLB >> 24


async def folio_set_hugetlb(folio: VirtAddr) -> None:
    """__folio_set_hugetlb()"""
    await Store(field(folio, Offset.PAGE_TYPE), PGTY_HUGETLB, 4)


async def folio_clear_hugetlb(folio: VirtAddr) -> None:
    """__folio_clear_hugetlb()"""
    await Store(field(folio, Offset.PAGE_TYPE), NO_MAPCOUNT, 4)


async def folio_order(folio: VirtAddr) -> int:
    """The order lies in the low byte of the first tail's flags."""
    return await Load(field(nth_page(folio, 1), Offset.FLAGS)) & 0xFF


async def compound_head(page: VirtAddr, key: VirtAddr) -> VirtAddr:
    """compound_head() with page_fixed_fake_head(): three loads that need not use one translation."""
    own = await Load(field(page, Offset.COMPOUND_HEAD))
    if own & 1:
        return VirtAddr(own - 1)
    if not await Load(key) or page & PAGE_MASK or not await Load(page) & PageFlag.HEAD:
        return page
    following = await Load(field(nth_page(page, 1), Offset.COMPOUND_HEAD))
    return VirtAddr(following - 1) if following & 1 else page


async def folio_ref_count(folio: VirtAddr) -> int:
    return await Load(field(folio, Offset.REFCOUNT), 4)


async def folio_test_hugetlb_vmemmap_optimized(folio: VirtAddr) -> bool:
    return bool(await Load(field(folio, Offset.PRIVATE)) & HugetlbFlag.VMEMMAP_OPTIMIZED)


async def folio_set_hugetlb_vmemmap_optimized(folio: VirtAddr) -> None:
    await FetchOr(field(folio, Offset.PRIVATE), HugetlbFlag.VMEMMAP_OPTIMIZED)


async def folio_clear_hugetlb_vmemmap_optimized(folio: VirtAddr) -> None:
    await FetchAndNot(field(folio, Offset.PRIVATE), HugetlbFlag.VMEMMAP_OPTIMIZED)
