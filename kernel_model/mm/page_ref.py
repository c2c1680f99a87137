"""Reference counts of struct pages, and who looks at struct pages without holding a reference.

page_ref_add_unless() is how a reference is taken by who has none yet. It has had three forms; HVO depends on
which it is, because the tail pages it maps read-only are among those that are asked.
"""

from __future__ import annotations

from enum import Enum, IntFlag
from typing import assert_never

from emu.addr import PAGE_MASK, VirtAddr
from emu.cpu.ops import CmpXchg, FetchAdd, Load, ThisCpu
from kernel_model.layout import PerCpu
from kernel_model.mm.page import Offset, PageFlag, compound_head, field, folio_test_hugetlb, nth_page

_COUNT_MASK = 0xFFFF_FFFF


class PageRef(Enum):
    """The forms of page_ref_add_unless() (include/linux/page_ref.h)."""

    V6_9 = "up to v6.9: the count, then LOCK CMPXCHG"
    V6_10 = "v6.10 to v6.14 (bd225530a4c7): RCU section, fake-head test, count, LOCK CMPXCHG"
    Y2025 = "since 2025 (page_count_writable()): RCU section, count, fake-head test, LOCK CMPXCHG"


class KpageFlag(IntFlag):
    """The bits of /proc/kpageflags that tell a compound page (include/uapi/linux/kernel-page-flags.h)."""

    COMPOUND_HEAD = 1 << 15
    COMPOUND_TAIL = 1 << 16
    HUGE = 1 << 17


# -- taking and giving back a reference ------------------------------------------------------------------


async def rcu_read_lock() -> None:
    """Add 1 to this CPU's nesting word, which nobody else writes."""
    await FetchAdd(PerCpu(await ThisCpu()).rcu_nesting, 1)


async def rcu_read_unlock() -> None:
    await FetchAdd(PerCpu(await ThisCpu()).rcu_nesting, -1)


async def page_ref_add_unless(
    page: VirtAddr, nr: int, u: int, key: VirtAddr, form: PageRef = PageRef.V6_10
) -> bool:
    """Add `nr` to the page's count unless that is `u`; whether it was added. `key`: the static key's word."""
    match form:
        case PageRef.V6_9:
            return await atomic_add_unless(_refcount(page), nr, u)
        case PageRef.V6_10:
            writable = _not_fake_then_counted
        case PageRef.Y2025:
            writable = page_count_writable
        case _:
            assert_never(form)
    await rcu_read_lock()
    added = await writable(page, u, key) and await atomic_add_unless(_refcount(page), nr, u)
    await rcu_read_unlock()
    return added


async def atomic_add_unless(counter: VirtAddr, nr: int, u: int) -> bool:
    """Reads first and writes nothing when the value is `u`; a failed LOCK CMPXCHG is a write access too."""
    old = await Load(counter, 4)
    while old != u:
        seen = await CmpXchg(counter, old, old + nr & _COUNT_MASK, 4)
        if seen == old:
            return True
        old = seen
    return False


async def page_count_writable(page: VirtAddr, u: int, key: VirtAddr) -> bool:
    """The count before the fake-head test; with the key off, neither."""
    if not await Load(key):
        return True
    if await Load(_refcount(page), 4) == u:
        return False
    return not await page_is_fake_head(page, key)


async def page_is_fake_head(page: VirtAddr, key: VirtAddr) -> bool:
    """Whether page_fixed_fake_head() names another page: one that starts a vmemmap page and whose next is a
    tail of another."""
    if not await Load(key) or page & PAGE_MASK or not await Load(page) & PageFlag.HEAD:
        return False
    following = await Load(field(nth_page(page, 1), Offset.COMPOUND_HEAD))
    return bool(following & 1) and following - 1 != page


async def get_page_unless_zero(page: VirtAddr, key: VirtAddr, form: PageRef = PageRef.V6_10) -> bool:
    return await page_ref_add_unless(page, 1, 0, key, form)


async def folio_try_get(folio: VirtAddr, key: VirtAddr, form: PageRef = PageRef.V6_10) -> bool:
    return await page_ref_add_unless(folio, 1, 0, key, form)


async def page_ref_dec_and_test(page: VirtAddr) -> bool:
    """Give a reference back; whether it was the last."""
    return await FetchAdd(_refcount(page), -1, 4) == 1


async def page_ref_freeze(page: VirtAddr, count: int) -> bool:
    """Make the count 0 if it is `count`: nobody can take a reference from then on."""
    return await CmpXchg(_refcount(page), count, 0, 4) == count


# -- walkers ---------------------------------------------------------------------------------------------


async def stable_page_flags(page: VirtAddr, key: VirtAddr) -> KpageFlag:
    """fs/proc/page.c, as far as it tells a compound page: no reference, no RCU section, five loads."""
    folio = await compound_head(page, key)
    flags = await Load(field(folio, Offset.FLAGS))
    told = KpageFlag(0)
    if folio != page:
        told |= KpageFlag.COMPOUND_TAIL
    elif flags & PageFlag.HEAD:
        told |= KpageFlag.COMPOUND_HEAD
    if await folio_test_hugetlb(folio):
        told |= KpageFlag.HUGE
    return told


async def kpageflags_read(first: VirtAddr, count: int, key: VirtAddr) -> tuple[KpageFlag, ...]:
    return tuple([await stable_page_flags(nth_page(first, number), key) for number in range(count)])


async def isolate_migratepages(
    first: VirtAddr, count: int, key: VirtAddr, form: PageRef = PageRef.V6_10
) -> tuple[int | None, ...]:
    """isolate_migratepages_block() (mm/compaction.c) where it cannot tell a page to be free or compound:
    take a reference, look at the flags, give it back.

    The flags of each page, None where no reference was to be had. A page is not freed here, even if the
    reference given back was its last.
    """
    return tuple([await _isolate(nth_page(first, number), key, form) for number in range(count)])


async def _isolate(page: VirtAddr, key: VirtAddr, form: PageRef) -> int | None:
    if not await get_page_unless_zero(page, key, form):
        return None
    flags = await Load(field(page, Offset.FLAGS))
    await page_ref_dec_and_test(page)
    return flags


async def _not_fake_then_counted(page: VirtAddr, u: int, key: VirtAddr) -> bool:
    """`!page_is_fake_head(page) && page_ref_count(page) != u`"""
    return not await page_is_fake_head(page, key) and await Load(_refcount(page), 4) != u


def _refcount(page: VirtAddr) -> VirtAddr:
    return field(page, Offset.REFCOUNT)
