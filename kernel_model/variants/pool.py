"""Deviations in the pool: when a folio is hugetlb, where memory errors are kept, what cannot be freed."""

from __future__ import annotations

from emu.addr import VirtAddr
from emu.cpu.ops import FetchAdd, Load
from kernel_model.core.spinlock import HUGETLB_LOCK, spin_lock_irq, spin_unlock_irq
from kernel_model.layout import HstateFields
from kernel_model.mm.hstate import Hstate
from kernel_model.mm.page import (
    Offset,
    PageFlag,
    field,
    folio_clear_hugetlb,
    folio_clear_hugetlb_vmemmap_optimized,
    folio_set_hugetlb,
    folio_test_hugetlb,
    page_of_lru,
)
from kernel_model.pool.hugetlb import Hugetlb


class TypeSetLate(Hugetlb):
    """Sets the hugetlb type when HVO is done: before, the folio is an ordinary one without its tails."""

    async def init_new_hugetlb_folio(self, folio: VirtAddr) -> None:
        await super().init_new_hugetlb_folio(folio)
        await folio_clear_hugetlb(folio)

    async def prep_and_add_allocated_folios(self, h: Hstate, folio_list: VirtAddr) -> None:
        of = HstateFields(h.order)
        await self._hvo.hugetlb_vmemmap_optimize_folios(h, folio_list)
        await spin_lock_irq(HUGETLB_LOCK)
        async for entry in self._lists.entries_safe(folio_list):
            await folio_set_hugetlb(page_of_lru(entry))
            await FetchAdd(of.nr_huge_pages, 1)
            await self.enqueue_hugetlb_folio(of, page_of_lru(entry))
        await spin_unlock_irq(HUGETLB_LOCK)


class TypeClearedEarly(Hugetlb):
    """Takes the type away under the lock, before the vmemmap is back."""

    async def remove_hugetlb_folio(self, h: Hstate, folio: VirtAddr, surplus: int) -> None:
        await super().remove_hugetlb_folio(h, folio, surplus)
        await folio_clear_hugetlb(folio)


class HwpoisonBeforeType(Hugetlb):
    """Moves the errors to the raw pages first; one that comes in between is forgotten."""

    async def _forget_hugetlb(self, folio: VirtAddr) -> None:
        if await Load(field(folio, Offset.FLAGS)) & PageFlag.HWPOISON:
            await self._raw.folio_clear_hugetlb_hwpoison(folio)
        if await folio_test_hugetlb(folio):
            await spin_lock_irq(HUGETLB_LOCK)
            await folio_clear_hugetlb(folio)
            await spin_unlock_irq(HUGETLB_LOCK)


class SurplusLosesFlag(Hugetlb):
    """Wipes `private` of what could not be freed, and forgets that one of its flags is still true."""

    async def add_hugetlb_folio(self, h: Hstate, folio: VirtAddr, surplus: int) -> None:
        await super().add_hugetlb_folio(h, folio, surplus)
        await folio_clear_hugetlb_vmemmap_optimized(folio)


class FreedStaysListed(Hugetlb):
    """Frees what has been restored before the list failed, and leaves it on the list."""

    async def _bulk_vmemmap_restore_error(
        self, h: Hstate, folio_list: VirtAddr, non_hvo_folios: VirtAddr
    ) -> None:
        if await self._lists.empty(non_hvo_folios):
            await super()._bulk_vmemmap_restore_error(h, folio_list, non_hvo_folios)
            return
        async for entry in self._lists.entries_safe(non_hvo_folios):
            await self._free_restored(h, page_of_lru(entry))
