"""The hugetlb pool's lists and counts: what enters and leaves it (mm/hugetlb.c, v6.12), under `hugetlb_lock`.

The counts and list heads of each hstate are words of guest memory, and the lists go through the `lru` words
of the head struct pages, so through the very mappings that HVO changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from emu.addr import VirtAddr
from emu.cpu.ops import FetchAdd, FetchAndNot, FetchOr, Load, Store
from kernel_model.core.bug import bug
from kernel_model.core.kconfig import KernelConfig
from kernel_model.core.lists import Lists
from kernel_model.core.spinlock import HUGETLB_LOCK, spin_lock_irq, spin_unlock_irq
from kernel_model.hvo.hugetlb_vmemmap import HugetlbVmemmap
from kernel_model.layout import HstateFields
from kernel_model.mm.buddy import Buddy
from kernel_model.mm.hstate import Hstate
from kernel_model.mm.page import (
    HugetlbFlag,
    Offset,
    PageFlag,
    field,
    folio_clear_hugetlb,
    folio_ref_count,
    folio_set_hugetlb,
    folio_set_hugetlb_vmemmap_optimized,
    folio_test_hugetlb_vmemmap_optimized,
    lru,
    page_of_lru,
)
from kernel_model.pool.hwpoison import RawHwpoison

ULONG_MAX = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class PoolPrimitives:
    """What the pool calls and does not define. `hstates`: the largest first."""

    config: KernelConfig
    pages: Buddy
    lists: Lists
    hvo: HugetlbVmemmap
    raw: RawHwpoison
    hstates: Sequence[Hstate]


class PoolLists:
    """Everything that moves a folio between lists holds `hugetlb_lock`."""

    def __init__(self, primitives: PoolPrimitives) -> None:
        self._config = primitives.config
        self._pages = primitives.pages
        self._lists = primitives.lists
        self._hvo = primitives.hvo
        self._raw = primitives.raw
        self._hstates = {h.order: h for h in primitives.hstates}

    async def enqueue_hugetlb_folio(self, of: HstateFields, folio: VirtAddr) -> None:
        if self._config.debug_vm and await folio_ref_count(folio):
            await bug("enqueue_hugetlb_folio", "VM_BUG_ON_FOLIO(folio_ref_count(folio))")
        await self._lists.move(lru(folio), of.freelist)
        await FetchAdd(of.free_huge_pages, 1)
        await FetchOr(field(folio, Offset.PRIVATE), HugetlbFlag.FREED)

    async def dequeue_hugetlb_folio(self, h: Hstate) -> VirtAddr | None:
        """dequeue_hugetlb_folio_node_exact() under the lock: hand out a free folio with one reference."""
        of = HstateFields(h.order)
        found: VirtAddr | None = None
        await spin_lock_irq(HUGETLB_LOCK)
        async for entry in self._lists.entries(of.freelist):
            folio = page_of_lru(entry)
            if await Load(field(folio, Offset.FLAGS)) & PageFlag.HWPOISON:
                continue
            await self._lists.move(entry, of.activelist)
            await Store(field(folio, Offset.REFCOUNT), 1, 4)  # folio_ref_unfreeze()
            await FetchAndNot(field(folio, Offset.PRIVATE), HugetlbFlag.FREED)
            await FetchAdd(of.free_huge_pages, -1)
            found = folio
            break
        await spin_unlock_irq(HUGETLB_LOCK)
        return found

    async def remove_pool_hugetlb_folio(self, h: Hstate, of: HstateFields) -> VirtAddr | None:
        if await self._lists.empty(of.freelist):
            return None
        folio = page_of_lru(VirtAddr(await Load(of.freelist)))
        await self.remove_hugetlb_folio(h, folio, surplus=0)
        return folio

    async def remove_hugetlb_folio(self, h: Hstate, folio: VirtAddr, surplus: int) -> None:
        """Take it out of the pool, and `surplus` (0 or 1) off the surplus count.

        It stays hugetlb while its tails are missing: nobody may take it for an ordinary page (32c877191e02).
        """
        of = HstateFields(h.order)
        await self._lists.delete(lru(folio))
        if await Load(field(folio, Offset.PRIVATE)) & HugetlbFlag.FREED:
            await FetchAndNot(field(folio, Offset.PRIVATE), HugetlbFlag.FREED)
            await FetchAdd(of.free_huge_pages, -1)
        if surplus:
            await FetchAdd(of.surplus_huge_pages, -surplus)
        if await self._has_all_tails(folio):
            await folio_clear_hugetlb(folio)
        await FetchAdd(of.nr_huge_pages, -1)

    async def _has_all_tails(self, folio: VirtAddr) -> bool:
        return not await folio_test_hugetlb_vmemmap_optimized(folio)

    async def add_hugetlb_folio(self, h: Hstate, folio: VirtAddr, surplus: int) -> None:
        """Put back what could not be freed, and `surplus` (0 or 1) on the surplus count."""
        of = HstateFields(h.order)
        if self._config.debug_vm and not await folio_test_hugetlb_vmemmap_optimized(folio):
            await bug("add_hugetlb_folio", "VM_BUG_ON_FOLIO(!folio_test_hugetlb_vmemmap_optimized(folio))")
        await self._lists.init(lru(folio))
        await FetchAdd(of.nr_huge_pages, 1)
        if surplus:
            await FetchAdd(of.surplus_huge_pages, surplus)
        await folio_set_hugetlb(folio)
        # All flags go with `private`, and the one that is still true is set again.
        await Store(field(folio, Offset.PRIVATE), 0)
        await self._keep_vmemmap_optimized(folio)
        await self.enqueue_hugetlb_folio(of, folio)

    async def _keep_vmemmap_optimized(self, folio: VirtAddr) -> None:
        await folio_set_hugetlb_vmemmap_optimized(folio)

    async def persistent_huge_pages(self, of: HstateFields) -> int:
        """Those that are not surplus: an unsigned long, very large where more are surplus than there are."""
        return (await Load(of.nr_huge_pages) - await Load(of.surplus_huge_pages)) & ULONG_MAX

    async def adjust_pool_surplus(self, of: HstateFields, delta: int) -> bool:
        """Count one page more (1) or less (-1) as surplus; False where that cannot be."""
        surplus = await Load(of.surplus_huge_pages)
        possible = surplus > 0 if delta < 0 else surplus < await Load(of.nr_huge_pages)
        if not possible:
            return False
        await FetchAdd(of.surplus_huge_pages, delta)
        return True
