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
    folio_set_hugetlb,
    folio_test_hugetlb,
    page_of_lru,
)
from kernel_model.pool.hugetlb import Hugetlb


class TypeSetLate(Hugetlb):
    """Sets the hugetlb type when HVO is done: before, the folio is an ordinary one without its tails."""

    async def _set_type(self, folio: VirtAddr) -> None:
        await folio_clear_hugetlb(folio)  # not yet, and no longer where it had the type from boot

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

    async def _has_all_tails(self, folio: VirtAddr) -> bool:
        """Nobody asks: the type goes in any case."""
        del folio
        return True


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

    async def _keep_vmemmap_optimized(self, folio: VirtAddr) -> None:
        """It went with all the others."""


class FreedStaysListed(Hugetlb):
    """Frees what has been restored before the list failed, and leaves it on the list."""

    async def _take_off(self, entry: VirtAddr) -> None:
        """It stays."""
