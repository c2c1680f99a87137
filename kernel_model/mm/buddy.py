"""The page allocator: a buddy free list under the zone lock, and per-CPU lists of single pages before it.

Which frames are free is the allocator's own knowledge (`zone`); what is to be seen of it (a page's
reference count, its contents, free blocks linked through their struct pages) is in guest memory and goes
through the MMU. Freeing checks the struct page as Linux does and poisons the frame. Not modelled: zones,
watermarks, reclaim, migrate types; the lists of a CPU are not in memory.
"""

from __future__ import annotations

from collections.abc import Container

from emu.addr import PAGE_BYTES, Pfn, VirtAddr
from emu.cpu.ops import Annotate, FetchAdd, FetchAndNot, Fill, Load, Store, ThisCpu, Transact
from emu.ledger import Ledger
from kernel_model.core.bug import bug
from kernel_model.core.events import AllocationFailed, BadPage, PageAllocated, PageFreed
from kernel_model.core.gfp import GFP_KERNEL, Gfp
from kernel_model.core.kconfig import KernelConfig
from kernel_model.core.spinlock import ZONE_LOCK, spin_lock, spin_unlock
from kernel_model.layout import (
    FREE_AREA,
    STRUCT_PAGE_SIZE,
    VMEMMAP_END,
    VMEMMAP_START,
    page_to_pfn,
    page_to_virt,
    pfn_to_page,
)
from kernel_model.mm.compound import poisoned, prep_compound_page, take_apart
from kernel_model.mm.failures import (
    AllocationFailures,
    NoFailures,
    fails,
    forget_allocations,
    note_free,
    own_position,
    settled,
)
from kernel_model.mm.free_area import MAX_PAGE_ORDER, FreeArea
from kernel_model.mm.image import Image, struct_page
from kernel_model.mm.page import (
    CHECK_AT_FREE,
    CHECK_AT_PREP,
    NO_MAPCOUNT,
    PGTY_BUDDY,
    SECTION_INFO,
    Offset,
    PageFlag,
    field,
    lru,
    nth_page,
)
from kernel_model.mm.zone import (
    GenerationOf,
    GiveBlock,
    GiveSingle,
    IsFree,
    Refill,
    TakeBlock,
    TakeRange,
    TakeSingle,
    forget_generations,
    pcp_count,
)

POISON_BYTE = 0xAA  # PAGE_POISON


class Buddy:
    """What it knows of frames is in `ledger`, which its routines change by transactions.

    ZONE_LOCK guards the free blocks; a CPU's list is that CPU's alone. Nothing is given back from one.
    """

    def __init__(self, config: KernelConfig, cpus: int, ledger: Ledger) -> None:
        self.failures: AllocationFailures = NoFailures()
        self._config = config
        self._cpus = cpus
        self._ledger = ledger
        self._known: list[Container[int]] = []

    # -- before time zero ----------------------------------------------------------------------------

    def add_free(self, start: int, end: int) -> None:
        """Give frames [start, end) to the allocator, as memblock does at boot."""
        area, pfn = FreeArea(self._ledger), start
        self._known.append(range(start, end))
        while pfn < end:
            order = MAX_PAGE_ORDER
            while pfn & ((1 << order) - 1) or pfn + (1 << order) > end:
                order -= 1
            area.give(pfn, order)
            pfn += 1 << order
        area.enter()

    def write_free_lists(self, image: Image) -> None:
        """Show in memory what has been given so far."""
        area = FreeArea(self._ledger)
        for pfn, order, following, before in area.listed():
            fields = {Offset.LRU_NEXT: following, Offset.LRU_PREV: before, Offset.PRIVATE: order}
            image.write_struct_pages(pfn, struct_page(fields, page_type=PGTY_BUDDY))
        image.write_globals(FREE_AREA, area.heads())

    def adopt(self, frames: Container[int]) -> None:
        """Take note of frames in use at time zero, which may be freed later."""
        self._known.append(frames)

    def mark_time_zero(self) -> None:
        """What was asked for and freed so far was before time zero. What is free stays so."""
        forget_allocations(self._ledger)
        forget_generations(self._ledger)

    # -- what tests and monitors may ask ---------------------------------------------------------------

    def free_frames(self) -> int:
        """How many frames are free, on every list."""
        listed = sum(self._ledger.get(pcp_count(cpu), 0) for cpu in range(self._cpus))
        return FreeArea(self._ledger).free_frames() + listed

    def is_free(self, pfn: int) -> bool:
        """Whether the allocator holds that frame."""
        return IsFree(Pfn(pfn))(self._ledger)

    # -- order 0 ---------------------------------------------------------------------------------------

    async def alloc_page(self, purpose: str, gfp: Gfp = GFP_KERNEL, nid: int = 0) -> VirtAddr | None:
        """alloc_pages_node(nid, gfp, 0): the struct page, with reference count 1; None when out of memory.

        There is one node. The flags say how hard to try, and are announced: whether it fails is `failures`'.
        """
        if await fails(self.failures, purpose):
            await _failed(purpose, 0, gfp, nid)
            return None
        pfn = await self._take_good_page()
        if pfn is None:
            await _failed(purpose, 0, gfp, nid)
            return None
        await self._announce(pfn, 0, purpose, gfp, nid)
        page = pfn_to_page(pfn)
        await Store(field(page, Offset.REFCOUNT), 1, 4)
        return page

    async def free_page(self, page: VirtAddr) -> None:
        """__free_page(): drop a reference; the last one gives the frame back."""
        before = await FetchAdd(field(page, Offset.REFCOUNT), -1, 4)
        if before == 0 and self._config.debug_vm:
            await bug("put_page_testzero", f"VM_BUG_ON_PAGE(page_ref_count(page) == 0): {page:x}")
        if before != 1:
            return
        pfn = page_to_pfn(page)
        # free_pages_prepare(): a poisoned page is kept without a word, whatever the configuration.
        if await Load(field(page, Offset.FLAGS)) & PageFlag.HWPOISON:
            return
        if await self._is_bad(page, "PAGE_FLAGS_CHECK_AT_FREE", CHECK_AT_FREE):
            return
        if not self._knows(pfn) or await Transact(IsFree(pfn)):
            await bug("free_unref_page", f"double free of pfn {pfn:#x}")
        if self._config.page_poisoning:
            await Fill(page_to_virt(page), bytes([POISON_BYTE]) * PAGE_BYTES)
        await note_free(self.failures)
        cpu = await ThisCpu()
        generation = await Transact(GenerationOf(pfn)) + 1
        await Annotate(PageFreed(pfn, 0, generation))
        await Transact(GiveSingle(cpu, pfn, generation))

    async def free_bootmem_page(self, page: VirtAddr) -> None:
        """Free a page that memblock handed out before this allocator existed (mm/bootmem_info.c)."""
        if self._config.debug_vm and await Load(field(page, Offset.REFCOUNT), 4) != 2:
            await bug("free_bootmem_page", f"VM_BUG_ON_PAGE(page_ref_count(page) != 2): {page:x}")
        if await Load(field(page, Offset.INDEX)) != SECTION_INFO:
            await bug("free_bootmem_page", f"VM_BUG_ON_PAGE(1): {page:x} has no section info")
        # put_page_bootmem()
        if await FetchAdd(field(page, Offset.REFCOUNT), -1, 4) != 2:
            return
        await Store(field(page, Offset.INDEX), 0)
        await FetchAndNot(field(page, Offset.FLAGS), PageFlag.PRIVATE)
        await Store(field(page, Offset.PRIVATE), 0)
        await Store(lru(page), lru(page))
        await Store(field(page, Offset.LRU_PREV), lru(page))
        # free_reserved_page()
        await FetchAndNot(field(page, Offset.FLAGS), PageFlag.RESERVED)
        await Store(field(page, Offset.REFCOUNT), 1, 4)
        await self.free_page(page)

    # -- blocks --------------------------------------------------------------------------------------

    async def alloc_pages(
        self, order: int, purpose: str, gfp: Gfp = GFP_KERNEL | Gfp.COMP, nid: int = 0
    ) -> VirtAddr | None:
        """alloc_pages() with __GFP_COMP: a compound page with reference count 1; None when there is none.

        Above MAX_PAGE_ORDER it is what alloc_contig_pages() finds: any aligned run of free frames.
        """
        if await fails(self.failures, purpose):
            await _failed(purpose, order, gfp, nid)
            return None
        while True:
            await spin_lock(ZONE_LOCK)
            taken = await Transact(TakeBlock(order))
            await taken.relisted.write_back()
            await spin_unlock(ZONE_LOCK)
            pfn = taken.pfn
            if pfn is None:
                await _failed(purpose, order, gfp, nid)
                return None
            # check_new_pages(): a block with a poisoned page in it leaves circulation.
            if not self._config.debug_vm or not await poisoned(pfn_to_page(pfn), order):
                break
        await self._announce(pfn, order, purpose, gfp, nid)
        await prep_compound_page(pfn_to_page(pfn), order)
        return pfn_to_page(pfn)

    async def alloc_contig_range(
        self, pfn: Pfn, order: int, purpose: str, gfp: Gfp = GFP_KERNEL | Gfp.COMP, nid: int = 0
    ) -> VirtAddr | None:
        """alloc_contig_range() of 2**`order` frames from `pfn` on, aligned, made a compound page.

        Its reference count is 1. Without migration: None unless every frame is free.
        """
        if await fails(self.failures, purpose):
            await _failed(purpose, order, gfp, nid)
            return None
        await spin_lock(ZONE_LOCK)
        taken = await Transact(TakeRange(pfn, order))
        await taken.relisted.write_back()
        await spin_unlock(ZONE_LOCK)
        if taken.pfn is None:
            await _failed(purpose, order, gfp, nid)
            return None
        await self._announce(pfn, order, purpose, gfp, nid)
        await prep_compound_page(pfn_to_page(pfn), order)
        return pfn_to_page(pfn)

    async def free_pages(self, folio: VirtAddr, order: int) -> None:
        """folio_put() of a compound page with one reference: take it apart and give the block back.

        The frames are not poisoned: nobody looks at the memory of a huge page here. What is no struct page,
        off a corrupted list, is a BUG at once; in Linux it is whatever comes of it.
        """
        if (folio - VMEMMAP_START) % STRUCT_PAGE_SIZE or not VMEMMAP_START <= folio < VMEMMAP_END:
            await bug("free_pages", f"{folio:x} is no struct page")
        if await FetchAdd(field(folio, Offset.REFCOUNT), -1, 4) != 1:
            return
        pfn = page_to_pfn(folio)
        reason = await take_apart(folio, order)
        if reason is not None and self._config.debug_vm:
            await Annotate(BadPage(pfn, reason))
            return
        generation = await Transact(GenerationOf(pfn)) + 1
        await Annotate(PageFreed(pfn, order, generation))
        await spin_lock(ZONE_LOCK)
        await note_free(self.failures)
        relisted = await Transact(GiveBlock(pfn, order, generation))
        await relisted.write_back()
        await spin_unlock(ZONE_LOCK)

    async def split_page(self, page: VirtAddr, order: int) -> None:
        """split_page(): make an order-n block independent pages, each with reference count 1."""
        for number in range(1, 1 << order):
            await Store(field(nth_page(page, number), Offset.REFCOUNT), 1, 4)

    # -- inside --------------------------------------------------------------------------------------

    async def _announce(self, pfn: Pfn, order: int, purpose: str, gfp: Gfp, nid: int) -> None:
        await settled()
        generation = await Transact(GenerationOf(pfn))
        await Annotate(PageAllocated(pfn, order, generation, purpose, gfp, nid))

    def _knows(self, pfn: int) -> bool:
        """Whether it is a frame that the allocator was given, or told of."""
        return any(pfn in frames for frames in self._known)

    async def _take_good_page(self) -> Pfn | None:
        """rmqueue_pcplist(): single pages off this CPU's list until one is as an unused page should be."""
        cpu = await ThisCpu()
        while True:
            pfn = await Transact(TakeSingle(cpu))
            if pfn is None:
                await spin_lock(ZONE_LOCK)
                relisted = await Transact(Refill(cpu))
                await relisted.write_back()
                await spin_unlock(ZONE_LOCK)
                pfn = await Transact(TakeSingle(cpu))
            if pfn is None or not await self._is_bad(
                pfn_to_page(pfn), "PAGE_FLAGS_CHECK_AT_PREP", CHECK_AT_PREP
            ):
                return pfn

    async def _is_bad(self, page: VirtAddr, checked: str, flags_checked: PageFlag) -> bool:
        """With CONFIG_DEBUG_VM: whether the page must leave circulation. bad_page() gives one reason.

        A poisoned page does so without a word (free_pages_prepare(), check_new_page_bad()).
        """
        if not self._config.debug_vm:
            return False
        mapping = await Load(field(page, Offset.MAPPING))
        counts = await Load(field(page, Offset.MAPCOUNT))
        flags = await Load(field(page, Offset.FLAGS))
        if flags & PageFlag.HWPOISON:
            return True
        reason = None
        if counts & 0xFFFF_FFFF != NO_MAPCOUNT:
            reason = "nonzero mapcount"
        if mapping:
            reason = "non-NULL mapping"
        if counts >> 32:
            reason = "nonzero _refcount"
        if flags & flags_checked:
            reason = f"{checked} flag(s) set"
        if reason is None:
            return False
        await Annotate(BadPage(page_to_pfn(page), reason))
        return True


async def _failed(purpose: str, order: int, gfp: Gfp, nid: int) -> None:
    """The allocation asked for on this CPU gets nothing."""
    await Annotate(AllocationFailed(purpose, order, await own_position(), gfp, nid))
    await settled()
