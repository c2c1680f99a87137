"""The page allocator: a buddy free list under the zone lock, and per-CPU lists of single pages before it.

Which frames are free is the allocator's own knowledge; what a page's owner sees (its reference count, its
contents) is in guest memory and goes through the MMU. Freeing checks the struct page as Linux does and
poisons the frame. Not modelled: zones, watermarks, reclaim, migrate types.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable

from emu.addr import PAGE_BYTES, Pfn, VirtAddr
from emu.cpu.condition import Word
from emu.cpu.ops import AddWords, Annotate, FetchAdd, FetchAndNot, Fill, Load, Store, ThisCpu
from kernel_model.core.bug import bug
from kernel_model.core.events import AllocationFailed, BadPage, PageAllocated, PageFreed
from kernel_model.core.gfp import GFP_KERNEL, Gfp
from kernel_model.core.kconfig import KernelConfig
from kernel_model.core.spinlock import spin_lock, spin_unlock
from kernel_model.layout import page_to_pfn, page_to_virt, pfn_to_page
from kernel_model.mm.compound import poisoned, prep_compound_page, take_apart
from kernel_model.mm.failures import AllocationFailures, FailAt, FailFrom, FailUntilFreed, NoFailures, fails
from kernel_model.mm.page import (
    CHECK_AT_FREE,
    CHECK_AT_PREP,
    NO_MAPCOUNT,
    SECTION_INFO,
    Offset,
    PageFlag,
    field,
    lru,
    nth_page,
)

ZONE_LOCK = Word("zone.lock")
ALLOCATIONS = Word("allocations so far")
MAX_PAGE_ORDER = 10
PCP_BATCH = 16
POISON_BYTE = 0xAA  # PAGE_POISON


class Buddy:
    """Frames by order. ZONE_LOCK guards `_free`; `_pcp[cpu]` is that CPU's alone.

    Nothing is given back from a per-CPU list, so it grows with all that was freed: a deque, whose front costs
    the same at any length.
    """

    def __init__(self, config: KernelConfig, cpus: int) -> None:
        self.failures: AllocationFailures = NoFailures()
        self._config = config
        self._free: list[list[int]] = [[] for _ in range(MAX_PAGE_ORDER + 1)]
        self._pcp: list[deque[Pfn]] = [deque() for _ in range(cpus)]
        self._allocated: set[int] = set()
        self._generation: dict[int, int] = {}
        self._position = 0
        self._freed_at = 0  # the position when something was last freed
        self._at_zero: tuple[list[list[int]], set[int], list[deque[Pfn]]] = ([], set(), self._pcp)

    # -- before time zero ----------------------------------------------------------------------------

    def add_free(self, start: int, end: int) -> None:
        """Give frames [start, end) to the allocator, as memblock does at boot."""
        pfn = start
        while pfn < end:
            order = MAX_PAGE_ORDER
            while pfn & ((1 << order) - 1) or pfn + (1 << order) > end:
                order -= 1
            self._give_back(pfn, order)
            pfn += 1 << order

    def adopt(self, frames: Iterable[int]) -> None:
        """Take note of frames in use at time zero, which may be freed later."""
        self._allocated.update(frames)

    def mark_time_zero(self) -> None:
        """What is free and allocated now is what `reset` comes back to."""
        self._position = self._freed_at = 0
        self._generation.clear()
        self._at_zero = (
            [list(blocks) for blocks in self._free],
            set(self._allocated),
            [pages.copy() for pages in self._pcp],
        )

    def reset(self) -> None:
        """Back to time zero: nothing was ever allocated, failed or freed since."""
        free, allocated, per_cpu = self._at_zero
        self._free = [list(blocks) for blocks in free]
        self._pcp = [pages.copy() for pages in per_cpu]
        self._allocated = set(allocated)
        self._generation.clear()
        self._position = self._freed_at = 0

    # -- what tests and monitors may ask ---------------------------------------------------------------

    def free_frames(self) -> int:
        """How many frames are free, on every list."""
        return sum(len(blocks) << order for order, blocks in enumerate(self._free)) + sum(map(len, self._pcp))

    def is_free(self, pfn: int) -> bool:
        """Whether the allocator holds that frame."""
        if any(pfn in pages for pages in self._pcp):
            return True
        return any(pfn & ~((1 << order) - 1) in blocks for order, blocks in enumerate(self._free))

    # -- order 0 ---------------------------------------------------------------------------------------

    async def alloc_page(self, purpose: str, gfp: Gfp = GFP_KERNEL, nid: int = 0) -> VirtAddr | None:
        """alloc_pages_node(nid, gfp, 0): the struct page, with reference count 1; None when out of memory.

        There is one node. The flags say how hard to try, and are announced: whether it fails is `failures`'.
        """
        position = await self._next_position()
        if await fails(self.failures, position, self._freed_at, purpose):
            await Annotate(AllocationFailed(purpose, 0, position, gfp, nid))
            return None
        pfn = await self._take_good_page()
        if pfn is None:
            await Annotate(AllocationFailed(purpose, 0, position, gfp, nid))
            return None
        await Annotate(PageAllocated(pfn, 0, self._generation.get(pfn, 0), purpose, gfp, nid))
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
        if pfn not in self._allocated:
            await bug("free_unref_page", f"double free of pfn {pfn:#x}")
        if self._config.page_poisoning:
            await Fill(page_to_virt(page), bytes([POISON_BYTE]) * PAGE_BYTES)
        await self._note_free()
        cpu = await ThisCpu()
        generation = self._generation.get(pfn, 0) + 1
        await Annotate(PageFreed(pfn, 0, generation))
        self._allocated.discard(pfn)
        self._generation[pfn] = generation
        self._pcp[cpu].appendleft(pfn)

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
        position = await self._next_position()
        if await fails(self.failures, position, self._freed_at, purpose):
            await Annotate(AllocationFailed(purpose, order, position, gfp, nid))
            return None
        while True:
            await spin_lock(ZONE_LOCK)
            pfn = self._take_block(order)
            await spin_unlock(ZONE_LOCK)
            if pfn is None:
                await Annotate(AllocationFailed(purpose, order, position, gfp, nid))
                return None
            # check_new_pages(): a block with a poisoned page in it leaves circulation.
            if not self._config.debug_vm or not await poisoned(pfn_to_page(pfn), order):
                break
        await Annotate(PageAllocated(pfn, order, self._generation.get(pfn, 0), purpose, gfp, nid))
        await prep_compound_page(pfn_to_page(pfn), order)
        return pfn_to_page(pfn)

    async def alloc_contig_range(
        self, pfn: Pfn, order: int, purpose: str, gfp: Gfp = GFP_KERNEL | Gfp.COMP, nid: int = 0
    ) -> VirtAddr | None:
        """alloc_contig_range() of 2**`order` frames from `pfn` on, aligned, made a compound page.

        Its reference count is 1. Without migration: None unless every frame is free.
        """
        position = await self._next_position()
        if await fails(self.failures, position, self._freed_at, purpose):
            await Annotate(AllocationFailed(purpose, order, position, gfp, nid))
            return None
        await spin_lock(ZONE_LOCK)
        taken = self._take_range(pfn, order)
        await spin_unlock(ZONE_LOCK)
        if not taken:
            await Annotate(AllocationFailed(purpose, order, position, gfp, nid))
            return None
        await Annotate(PageAllocated(pfn, order, self._generation.get(pfn, 0), purpose, gfp, nid))
        await prep_compound_page(pfn_to_page(pfn), order)
        return pfn_to_page(pfn)

    async def free_pages(self, folio: VirtAddr, order: int) -> None:
        """folio_put() of a compound page with one reference: take it apart and give the block back.

        The frames are not poisoned: nobody looks at the memory of a huge page here.
        """
        if await FetchAdd(field(folio, Offset.REFCOUNT), -1, 4) != 1:
            return
        pfn = page_to_pfn(folio)
        reason = await take_apart(folio, order)
        if reason is not None and self._config.debug_vm:
            await Annotate(BadPage(pfn, reason))
            return
        frames = range(pfn, pfn + (1 << order))
        generation = self._generation.get(pfn, 0) + 1
        await Annotate(PageFreed(pfn, order, generation))
        await spin_lock(ZONE_LOCK)
        await self._note_free()
        self._allocated.difference_update(frames)
        self._generation[pfn] = generation
        for first in range(pfn, frames.stop, 1 << min(order, MAX_PAGE_ORDER)):
            self._give_back(first, min(order, MAX_PAGE_ORDER))
        await spin_unlock(ZONE_LOCK)

    async def split_page(self, page: VirtAddr, order: int) -> None:
        """split_page(): make an order-n block independent pages, each with reference count 1."""
        for number in range(1, 1 << order):
            await Store(field(nth_page(page, number), Offset.REFCOUNT), 1, 4)

    # -- inside --------------------------------------------------------------------------------------

    async def _next_position(self) -> int:
        if isinstance(self.failures, FailAt | FailFrom | FailUntilFreed):
            # Which allocation fails then depends on their order on all CPUs: a step that says so.
            await AddWords(((ALLOCATIONS, 1),))
        position, self._position = self._position, self._position + 1
        return position

    async def _note_free(self) -> None:
        """Memory is about to come back, which may end a shortage."""
        if isinstance(self.failures, FailUntilFreed):
            # Which allocations fail then depends on their order with this free: a step that says so.
            await AddWords(((ALLOCATIONS, 0),))
        self._freed_at = self._position

    async def _take_good_page(self) -> Pfn | None:
        """rmqueue_pcplist(): single pages off this CPU's list until one is as an unused page should be."""
        cpu = await ThisCpu()
        while True:
            if not self._pcp[cpu]:
                await spin_lock(ZONE_LOCK)
                self._pcp[cpu].extend(self._take_batch())
                await spin_unlock(ZONE_LOCK)
            if not self._pcp[cpu]:
                return None
            pfn = self._pcp[cpu].popleft()
            self._allocated.add(pfn)
            if not await self._is_bad(pfn_to_page(pfn), "PAGE_FLAGS_CHECK_AT_PREP", CHECK_AT_PREP):
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

    def _take_batch(self) -> list[Pfn]:
        """rmqueue_bulk(): up to PCP_BATCH single frames, lowest first."""
        batch: list[Pfn] = []
        while len(batch) < PCP_BATCH:
            order = next((order for order, blocks in enumerate(self._free) if blocks), None)
            if order is None:
                break
            first = self._free[order].pop(0)
            batch.append(Pfn(first))
            for half in range(order - 1, -1, -1):
                insort(self._free[half], first + (1 << half))
        return batch

    def _take_block(self, order: int) -> Pfn | None:
        """The lowest aligned block of 2**order free frames, taken off the free lists."""
        if order > MAX_PAGE_ORDER:
            return self._take_run(order)
        have = next((size for size in range(order, MAX_PAGE_ORDER + 1) if self._free[size]), None)
        if have is None:
            return None
        pfn = self._free[have].pop(0)
        for half in range(have - 1, order - 1, -1):
            insort(self._free[half], pfn + (1 << half))
        self._allocated.update(range(pfn, pfn + (1 << order)))
        return Pfn(pfn)

    def _take_run(self, order: int) -> Pfn | None:
        """alloc_contig_pages(), without migration: every frame of the run must be free."""
        blocks = self._free[MAX_PAGE_ORDER]
        wanted = 1 << (order - MAX_PAGE_ORDER)
        for at, first in enumerate(blocks):
            last = at + wanted - 1
            if first % (1 << order) or last >= len(blocks):
                continue
            if blocks[last] == first + ((wanted - 1) << MAX_PAGE_ORDER):
                del blocks[at : last + 1]
                self._allocated.update(range(first, first + (1 << order)))
                return Pfn(first)
        return None

    def _take_range(self, pfn: int, order: int) -> bool:
        """Take just these frames off the free lists; False, and nothing taken, when one is not there."""
        size = min(order, MAX_PAGE_ORDER)
        starts = range(pfn, pfn + (1 << order), 1 << size)
        if any(self._free_block_with(first, size) is None for first in starts):
            return False
        for first in starts:
            self._split_out(first, size)
        self._allocated.update(range(pfn, pfn + (1 << order)))
        return True

    def _free_block_with(self, pfn: int, order: int) -> tuple[int, int] | None:
        """The free block, (first frame, order), that holds the aligned block of 2**`order` from `pfn` on."""
        for size in range(order, MAX_PAGE_ORDER + 1):
            first = pfn & ~((1 << size) - 1)
            blocks = self._free[size]
            at = bisect_left(blocks, first)
            if at < len(blocks) and blocks[at] == first:
                return first, size
        return None

    def _split_out(self, pfn: int, order: int) -> None:
        """Take a block out of the free block around it, and leave the rest free."""
        around = self._free_block_with(pfn, order)
        assert around is not None
        first, size = around
        self._free[size].remove(first)
        for half in range(size - 1, order - 1, -1):
            low, high = first, first + (1 << half)
            first, other = (high, low) if pfn >= high else (low, high)
            insort(self._free[half], other)

    def _give_back(self, pfn: int, order: int) -> None:
        """Put a block on its free list, merged with its buddy while that is free too."""
        while order < MAX_PAGE_ORDER:
            blocks, buddy = self._free[order], pfn ^ (1 << order)
            at = bisect_left(blocks, buddy)
            if at == len(blocks) or blocks[at] != buddy:
                break
            del blocks[at]
            pfn, order = pfn & ~(1 << order), order + 1
        insort(self._free[order], pfn)
