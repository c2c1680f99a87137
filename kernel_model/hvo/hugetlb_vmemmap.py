"""HugeTLB Vmemmap Optimization: a port of Linux mm/hugetlb_vmemmap.c.

The original is Copyright (c) 2020 ByteDance, GPL-2.0, by Muchun Song; the revision is that of v6.12
(c94cd9508b13). This file follows it function by function, in its order and under its names; the words are
ours. Where the original does something odd, so does this.

What differs is only what a model needs: functions are async, a page is the address of its struct page, the
512 stores that fill a page table nobody sees yet are one `Fill`, and the exported functions announce when
they begin and return. smp_wmb() is a comment: a step is sequentially consistent. Some steps of the longer
functions are methods of their own, with an underscore, so that a variant can do otherwise in just that.

The sysctl is one call, without the text of /proc; the boot parameter a value, not a command line; the static
key and the bodies of locks and flushes are in kernel_model.core and kernel_model.flush. mmap_read_lock() of
init_mm is left out (kernel_model.mm.pagewalk says why); nothing else of the file is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import IntFlag
from functools import partial

from emu.addr import PAGE_BYTES, PAGE_MASK, PAGE_SHIFT, PhysAddr, VirtAddr, frame
from emu.cpu.ops import Annotate, Copy, Count, Fill, Load, Store, ThisCpu
from emu.paging.pte import Pte, PteBit
from kernel_model.core.bug import bug, warn
from kernel_model.core.events import OperationBegun, OperationReturned
from kernel_model.core.gfp import GFP_KERNEL, GFP_PGTABLE_KERNEL, Gfp
from kernel_model.core.kconfig import KernelConfig
from kernel_model.core.lists import Lists
from kernel_model.core.rcu import Rcu
from kernel_model.core.sites import FlushSite
from kernel_model.core.spinlock import INIT_MM_PAGE_TABLE_LOCK, spin_lock, spin_unlock
from kernel_model.core.stack import ListHead
from kernel_model.core.static_key import StaticKey
from kernel_model.flush.policy import EntryChange
from kernel_model.flush.tlb import KernelTlb
from kernel_model.layout import (
    PMD_SIZE,
    STRUCT_PAGE_SIZE,
    VMEMMAP_OPTIMIZE_ENABLED,
    direct_map,
    page_to_pfn,
    page_to_virt,
    pfn_to_page,
)
from kernel_model.mm.buddy import Buddy
from kernel_model.mm.hstate import (
    HUGETLB_VMEMMAP_RESERVE_PAGES,
    HUGETLB_VMEMMAP_RESERVE_SIZE,
    Hstate,
    hugetlb_vmemmap_optimizable,
    hugetlb_vmemmap_size,
)
from kernel_model.mm.page import (
    PageReserved,
    PageVmemmapSelfHosted,
    folio_clear_hugetlb_vmemmap_optimized,
    folio_ref_count,
    folio_set_hugetlb_vmemmap_optimized,
    folio_test_hugetlb,
    folio_test_hugetlb_vmemmap_optimized,
    lru,
    nth_page,
    page_of_lru,
    page_to_nid,
)
from kernel_model.mm.pagewalk import Action, MmWalkOps, PmdResult, walk_page_range_novma
from kernel_model.mm.pgtable import (
    PAGE_KERNEL,
    PAGE_KERNEL_RO,
    entry_get,
    mk_pte,
    page_table,
    pmd_clear,
    pmd_leaf,
    pmd_of,
    pmd_populate_kernel,
    pte_clear,
    pte_offset_kernel,
    set_pte_at,
    table_start,
)

ENOENT = 2
ENOMEM = 12
ENOTSUPP = 524
PMD_ORDER = 9

NO_PAGE = VirtAddr(0)

# How many struct pages at the start of a restored page are overwritten: one head and two tails carry
# metadata that must not appear in an ordinary tail.
NR_RESET_STRUCT_PAGE = 3
assert NR_RESET_STRUCT_PAGE * 2 <= PAGE_BYTES // STRUCT_PAGE_SIZE  # BUILD_BUG_ON in reset_struct_pages()
# __NR_USED_SUBPAGE (linux/hugetlb.h): the struct pages of a folio in which hugetlb keeps something.
NR_USED_SUBPAGE = 3
assert NR_USED_SUBPAGE <= HUGETLB_VMEMMAP_RESERVE_PAGES  # BUILD_BUG_ON in hugetlb_vmemmap_init()


class WalkFlag(IntFlag):
    """vmemmap_remap_walk.flags"""

    SPLIT_NO_TLB_FLUSH = 1 << 0
    REMAP_NO_TLB_FLUSH = 1 << 1
    SYNCHRONIZE_RCU = 1 << 2  # wait for writers in page_ref_add_unless()


@dataclass(slots=True)
class VmemmapRemapWalk:
    """struct vmemmap_remap_walk. Pages are struct page addresses, 0 for none; `vmemmap_pages` a list head."""

    remap_pte: Callable[[PhysAddr, VirtAddr, VmemmapRemapWalk], Awaitable[None]] | None
    flags: WalkFlag
    nr_walked: int = 0
    reuse_page: VirtAddr = NO_PAGE
    reuse_addr: VirtAddr = NO_PAGE
    vmemmap_pages: VirtAddr = NO_PAGE


@dataclass(frozen=True, slots=True)
class Primitives:
    """What the C file calls and does not define."""

    config: KernelConfig
    pages: Buddy
    lists: Lists
    flush: KernelTlb
    rcu: Rcu
    key: StaticKey
    hstates: Sequence[Hstate]  # for_each_hstate()
    root: PhysAddr  # the top-level table of init_mm


class HugetlbVmemmap:
    """The file's functions over one set of primitives. Its sysctl is a word of guest memory."""

    split_pgprot = PAGE_KERNEL

    def __init__(self, primitives: Primitives) -> None:
        self._config = primitives.config
        self._pages = primitives.pages
        self._lists = primitives.lists
        self._flush = primitives.flush
        self._rcu = primitives.rcu
        self._key = primitives.key
        self._hstates = primitives.hstates
        self._root = frame(primitives.root)
        self._sysctl_registered = False

    async def vmemmap_split_pmd(
        self, pmd: PhysAddr, head: VirtAddr, start: VirtAddr, walk: VmemmapRemapWalk
    ) -> int:
        pgtable = await self._pte_alloc_one_kernel()
        if pgtable is None:
            return -ENOMEM
        table = page_to_pfn(pgtable)
        await Fill(table_start(table), page_table(page_to_pfn(head), self.split_pgprot))

        await spin_lock(INIT_MM_PAGE_TABLE_LOCK)
        if await self._still_leaf(pmd):
            # A block from the buddy allocator becomes single pages, which can be freed one by one.
            if not await PageReserved(head):
                await self._split_page(head)
            # smp_wmb(): the PTEs before the PMD that leads to them.
            end, deferred = VirtAddr(start + PMD_SIZE), walk.flags & WalkFlag.SPLIT_NO_TLB_FLUSH
            site = FlushSite.SPLIT_OF_BATCH if deferred else FlushSite.SPLIT
            populate = partial(pmd_populate_kernel, pmd, table)
            entry = EntryChange(direct_map(pmd), pmd_of(table), populate, partial(pmd_clear, pmd))
            await self._flush.change(site, start, end, entry)
            if deferred:
                await self._flush.changed(site, start, end)
            else:
                await self._flush.flush_tlb_kernel_range(start, end, site)
        else:
            await self._pages.free_page(pgtable)  # pte_free_kernel()
        await spin_unlock(INIT_MM_PAGE_TABLE_LOCK)
        return 0

    async def _still_leaf(self, pmd: PhysAddr) -> bool:
        return pmd_leaf(await entry_get(pmd))

    async def _split_page(self, head: VirtAddr) -> None:
        await self._pages.split_page(head, PMD_ORDER)

    async def vmemmap_pmd_entry(self, pmd: PhysAddr, addr: VirtAddr, walk: VmemmapRemapWalk) -> PmdResult:
        # Without a function for PTEs this walk only splits.
        action = Action.CONTINUE if walk.remap_pte is None else Action.SUBTREE
        error = 0
        await spin_lock(INIT_MM_PAGE_TABLE_LOCK)
        entry = await entry_get(pmd)
        head = pfn_to_page(entry.pfn) if pmd_leaf(entry) else NO_PAGE
        # Self-hosted vmemmap lies at the start of its memory, so the first page walked tells for all.
        if self._config.memory_hotplug and not walk.nr_walked:
            if head:
                page = nth_page(head, (addr >> PAGE_SHIFT) & 511)
            else:
                page = pfn_to_page((await entry_get(pte_offset_kernel(entry.pfn, addr))).pfn)
            if await PageVmemmapSelfHosted(page):
                error = -ENOTSUPP
        await spin_unlock(INIT_MM_PAGE_TABLE_LOCK)
        if not head or error:
            return PmdResult(error, action)
        return PmdResult(
            await self.vmemmap_split_pmd(pmd, head, VirtAddr(addr & ~(PMD_SIZE - 1)), walk), action
        )

    async def vmemmap_pte_entry(self, pte: PhysAddr, addr: VirtAddr, walk: VmemmapRemapWalk) -> int:
        # The page to reuse is the first one met, unless the caller brought one.
        if not walk.reuse_page:
            walk.reuse_page = pfn_to_page((await entry_get(pte)).pfn)
        else:
            assert walk.remap_pte is not None
            await walk.remap_pte(pte, addr, walk)
        walk.nr_walked += 1
        return 0

    async def vmemmap_remap_range(self, start: VirtAddr, end: VirtAddr, walk: VmemmapRemapWalk) -> int:
        if self._config.debug_vm and (start | end) & PAGE_MASK:
            await bug("vmemmap_remap_range", f"VM_BUG_ON(!PAGE_ALIGNED({start:#x} | {end:#x}))")

        async def pmd_entry(pmd: PhysAddr, addr: VirtAddr) -> PmdResult:
            return await self.vmemmap_pmd_entry(pmd, addr, walk)

        async def pte_entry(pte: PhysAddr, addr: VirtAddr) -> int:
            return await self.vmemmap_pte_entry(pte, addr, walk)

        error = await walk_page_range_novma(self._root, start, end, MmWalkOps(pmd_entry, pte_entry))
        if error:
            return error
        if walk.remap_pte is not None:
            if walk.flags & WalkFlag.REMAP_NO_TLB_FLUSH:
                await self._flush.changed(self._site(walk), start, end)
            else:
                await self._flush_remapped(start, end, walk)
        return 0

    async def _flush_remapped(self, start: VirtAddr, end: VirtAddr, walk: VmemmapRemapWalk) -> None:
        await self._flush.flush_tlb_kernel_range(start, end, self._site(walk))

    def _site(self, walk: VmemmapRemapWalk) -> FlushSite:
        """Where a walk that remaps changes page tables, and flushes or leaves that for later."""
        deferred = walk.flags & WalkFlag.REMAP_NO_TLB_FLUSH
        if walk.remap_pte == self.vmemmap_restore_pte:
            return FlushSite.RESTORE_OF_BATCH if deferred else FlushSite.RESTORE
        return FlushSite.REMAP_OF_BATCH if deferred else FlushSite.REMAP

    async def _set_pte_at(self, pte: PhysAddr, addr: VirtAddr, entry: Pte, walk: VmemmapRemapWalk) -> None:
        """As the flush policy has it: a CPU may forbid that it changes while it is in use."""
        change = EntryChange(direct_map(pte), entry, partial(set_pte_at, pte, entry), partial(pte_clear, pte))
        await self._flush.change(self._site(walk), addr, VirtAddr(addr + PAGE_BYTES), change)

    async def free_vmemmap_page(self, page: VirtAddr) -> None:
        """Give a page back to where it came from: PG_reserved says memblock, else the buddy allocator."""
        if await PageReserved(page):
            await Count("nr_memmap_boot_pages", -1)
            await self._pages.free_bootmem_page(page)
        else:
            await Count("nr_memmap_pages", -1)
            await self._pages.free_page(page)

    async def free_vmemmap_page_list(self, pages: VirtAddr) -> None:
        async for entry in self._lists.entries_safe(pages):
            await self.free_vmemmap_page(page_of_lru(entry))

    async def vmemmap_remap_pte(self, pte: PhysAddr, addr: VirtAddr, walk: VmemmapRemapWalk) -> None:
        # Tails become read-only, to catch whoever writes to them.
        await self._remap_pte(pte, addr, walk, PAGE_KERNEL_RO)

    async def _remap_pte(self, pte: PhysAddr, addr: VirtAddr, walk: VmemmapRemapWalk, pgprot: PteBit) -> None:
        page = pfn_to_page((await entry_get(pte)).pfn)
        if addr == walk.reuse_addr:
            pgprot = PAGE_KERNEL
            await self._lists.delete(lru(walk.reuse_page))
            # smp_wmb(): the copy of the head page before the PTE that shows it.
        entry = mk_pte(page_to_pfn(walk.reuse_page), pgprot)
        await self._lists.add(lru(page), walk.vmemmap_pages)
        await self._set_remapped(pte, addr, entry, page, walk)

    async def _set_remapped(
        self, pte: PhysAddr, addr: VirtAddr, entry: Pte, page: VirtAddr, walk: VmemmapRemapWalk
    ) -> None:
        """Map the page to reuse in the place of `page`."""
        del page
        await self._set_pte_at(pte, addr, entry, walk)

    async def reset_struct_pages(self, start: VirtAddr) -> None:
        """Overwrite the first struct pages of a restored page with ordinary tails."""
        length = NR_RESET_STRUCT_PAGE * STRUCT_PAGE_SIZE
        await Copy(start, VirtAddr(start + length), length)

    async def vmemmap_restore_pte(self, pte: PhysAddr, addr: VirtAddr, walk: VmemmapRemapWalk) -> None:
        mapped = pfn_to_page((await entry_get(pte)).pfn)
        if mapped != walk.reuse_page:
            await bug(
                "vmemmap_restore_pte", f"BUG_ON(pte_page({addr:#x}) = {mapped:#x} != {walk.reuse_page:#x})"
            )
        page = await self._next_vmemmap_page(walk)
        await self._lists.delete(lru(page))
        await self._fill_and_map(pte, addr, page, walk)

    async def _next_vmemmap_page(self, walk: VmemmapRemapWalk) -> VirtAddr:
        return page_of_lru(VirtAddr(await Load(walk.vmemmap_pages)))

    async def _fill_and_map(
        self, pte: PhysAddr, addr: VirtAddr, page: VirtAddr, walk: VmemmapRemapWalk
    ) -> None:
        await self._fill(page_to_virt(page), walk)
        # smp_wmb(): the page's contents before the PTE that shows them.
        await self._set_pte_at(pte, addr, mk_pte(page_to_pfn(page), PAGE_KERNEL), walk)

    async def _fill(self, to: VirtAddr, walk: VmemmapRemapWalk) -> None:
        await Copy(to, walk.reuse_addr, PAGE_BYTES)
        await self.reset_struct_pages(to)

    async def vmemmap_remap_split(self, start: VirtAddr, end: VirtAddr, reuse: VirtAddr) -> int:
        """Split the PMDs of [reuse, end) without remapping anything."""
        walk = VmemmapRemapWalk(remap_pte=None, flags=WalkFlag.SPLIT_NO_TLB_FLUSH)
        await self._bug_unless_adjacent("vmemmap_remap_split", start, reuse)
        return await self.vmemmap_remap_range(reuse, end, walk)

    async def vmemmap_remap_free(
        self, start: VirtAddr, end: VirtAddr, reuse: VirtAddr, vmemmap_pages: VirtAddr, flags: WalkFlag
    ) -> int:
        """Map [start, end) to the page at `reuse`; put what was mapped there on the list, for the caller."""
        walk = VmemmapRemapWalk(self.vmemmap_remap_pte, flags, 0, NO_PAGE, reuse, vmemmap_pages)
        nid = await page_to_nid(reuse)
        gfp_mask = GFP_KERNEL | Gfp.NORETRY | Gfp.NOWARN
        # A new page for the head, so that the freed block can become contiguous again. The allocation may
        # fail: then the page mapped at `reuse` stays.
        fresh = await self._pages.alloc_page("vmemmap head page", gfp_mask, nid)
        if fresh is not None:
            walk.reuse_page = fresh
            await self._fill_head(page_to_virt(fresh), walk)
            await self._lists.add(lru(fresh), vmemmap_pages)
            await Count("nr_memmap_pages", 1)
        await self._bug_unless_adjacent("vmemmap_remap_free", start, reuse)

        ret = await self.vmemmap_remap_range(reuse, end, walk)
        if ret and walk.nr_walked:
            # The pages that were taken out are on the list, and are put back, last out first in.
            end = VirtAddr(reuse + walk.nr_walked * PAGE_BYTES)
            undo = VmemmapRemapWalk(self.vmemmap_restore_pte, WalkFlag(0), 0, NO_PAGE, reuse, vmemmap_pages)
            await self.vmemmap_remap_range(reuse, end, undo)
        return ret

    async def _fill_head(self, to: VirtAddr, walk: VmemmapRemapWalk) -> None:
        await Copy(to, walk.reuse_addr, PAGE_BYTES)

    async def alloc_vmemmap_page_list(self, start: VirtAddr, end: VirtAddr, pages: VirtAddr) -> int:
        nr_pages = (end - start) >> PAGE_SHIFT
        nid = await page_to_nid(start)
        gfp_mask = GFP_KERNEL | Gfp.RETRY_MAYFAIL
        for _ in range(nr_pages):
            page = await self._pages.alloc_page("vmemmap tail page", gfp_mask, nid)
            if page is None:
                async for entry in self._lists.entries_safe(pages):
                    await self._pages.free_page(page_of_lru(entry))
                return -ENOMEM
            await self._lists.add(lru(page), pages)
        await Count("nr_memmap_pages", nr_pages)
        return 0

    async def vmemmap_remap_alloc(
        self, start: VirtAddr, end: VirtAddr, reuse: VirtAddr, flags: WalkFlag
    ) -> int:
        """Give every page of [start, end) a frame of its own again."""
        cpu = await ThisCpu()
        async with ListHead(cpu) as vmemmap_pages:
            await self._lists.init(vmemmap_pages)
            walk = VmemmapRemapWalk(self.vmemmap_restore_pte, flags, 0, NO_PAGE, reuse, vmemmap_pages)
            await self._bug_unless_adjacent("vmemmap_remap_alloc", start, reuse)
            if await self.alloc_vmemmap_page_list(start, end, vmemmap_pages):
                return -ENOMEM
            return await self.vmemmap_remap_range(reuse, end, walk)

    async def _restore_folio(self, h: Hstate, folio: VirtAddr, flags: WalkFlag) -> int:
        """__hugetlb_vmemmap_restore_folio()"""
        await self._warn_unless_frozen_hugetlb("__hugetlb_vmemmap_restore_folio", folio)
        if not await folio_test_hugetlb_vmemmap_optimized(folio):
            return 0
        if flags & WalkFlag.SYNCHRONIZE_RCU:
            await self._rcu.synchronize_rcu()

        start, end, reuse = _vmemmap_of(h, folio)
        ret = await self.vmemmap_remap_alloc(start, end, reuse, flags)
        if not ret:
            await self._end_restore(h, folio, flags)
        return ret

    async def _end_restore(self, h: Hstate, folio: VirtAddr, flags: WalkFlag) -> None:
        del h, flags
        await folio_clear_hugetlb_vmemmap_optimized(folio)
        await self._key.static_branch_dec()

    async def hugetlb_vmemmap_restore_folio(self, h: Hstate, folio: VirtAddr) -> int:
        """Restore one folio. Returns 0 or -ENOMEM."""
        begun = await Annotate(OperationBegun("hugetlb_vmemmap_restore_folio", (folio,)))
        ret = await self._restore_folio(h, folio, WalkFlag.SYNCHRONIZE_RCU)
        await Annotate(OperationReturned("hugetlb_vmemmap_restore_folio", begun, ret, (folio,)))
        return ret

    async def hugetlb_vmemmap_restore_folios(
        self, h: Hstate, folio_list: VirtAddr, non_hvo_folios: VirtAddr
    ) -> int:
        """Restore the folios of a list, moving those that have their vmemmap to the other list.

        Returns how many were restored, or the errno of the first failure, at which it stops: that folio
        and those after it stay on `folio_list`.
        """
        begun = await Annotate(OperationBegun("hugetlb_vmemmap_restore_folios", ()))
        taken_up: list[VirtAddr] = []
        restored = ret = 0
        flags = WalkFlag.REMAP_NO_TLB_FLUSH | WalkFlag.SYNCHRONIZE_RCU
        async for entry in self._lists.entries_safe(folio_list):
            folio = page_of_lru(entry)
            taken_up.append(folio)
            if await folio_test_hugetlb_vmemmap_optimized(folio):
                ret = await self._restore_folio(h, folio, flags)
                flags &= ~WalkFlag.SYNCHRONIZE_RCU  # once a batch
                if ret:
                    break
                restored += 1
            await self._lists.move(lru(folio), non_hvo_folios)
        if restored:
            await self._flush.flush_tlb_all(FlushSite.BATCH_RESTORED)
        if not ret:
            ret = restored
        await Annotate(OperationReturned("hugetlb_vmemmap_restore_folios", begun, ret, tuple(taken_up)))
        return ret

    async def vmemmap_should_optimize_folio(self, h: Hstate, folio: VirtAddr) -> bool:
        if await folio_test_hugetlb_vmemmap_optimized(folio):
            return False
        if not await Load(VMEMMAP_OPTIMIZE_ENABLED):
            return False
        return hugetlb_vmemmap_optimizable(h)

    async def _optimize_folio(
        self, h: Hstate, folio: VirtAddr, vmemmap_pages: VirtAddr, flags: WalkFlag
    ) -> int:
        """__hugetlb_vmemmap_optimize_folio()"""
        await self._warn_unless_frozen_hugetlb("__hugetlb_vmemmap_optimize_folio", folio)
        if not await self.vmemmap_should_optimize_folio(h, folio):
            return 0
        await self._begin_optimize(folio, flags)
        start, end, reuse = _vmemmap_of(h, folio)
        ret = await self.vmemmap_remap_free(start, end, reuse, vmemmap_pages, flags)
        await self._end_optimize(folio, ret)
        return ret

    async def _begin_optimize(self, folio: VirtAddr, flags: WalkFlag) -> None:
        await self._key.static_branch_inc()
        if flags & WalkFlag.SYNCHRONIZE_RCU:
            await self._rcu.synchronize_rcu()
        # Before the copy, so that the old head page and the new one agree: without an immediate flush this
        # CPU may go on using the old one.
        await folio_set_hugetlb_vmemmap_optimized(folio)

    async def _end_optimize(self, folio: VirtAddr, ret: int) -> None:
        if ret:
            await self._key.static_branch_dec()
            await folio_clear_hugetlb_vmemmap_optimized(folio)

    async def hugetlb_vmemmap_optimize_folio(self, h: Hstate, folio: VirtAddr) -> None:
        """Try to optimize one folio; its flag says whether that worked."""
        begun = await Annotate(OperationBegun("hugetlb_vmemmap_optimize_folio", (folio,)))
        cpu = await ThisCpu()
        async with ListHead(cpu) as vmemmap_pages:
            await self._lists.init(vmemmap_pages)
            await self._optimize_folio(h, folio, vmemmap_pages, WalkFlag.SYNCHRONIZE_RCU)
            await self._flush.free_flushed(vmemmap_pages, self.free_vmemmap_page_list)
        await Annotate(OperationReturned("hugetlb_vmemmap_optimize_folio", begun, None, (folio,)))

    async def hugetlb_vmemmap_split_folio(self, h: Hstate, folio: VirtAddr) -> int:
        if not await self.vmemmap_should_optimize_folio(h, folio):
            return 0
        start, end, reuse = _vmemmap_of(h, folio)
        return await self.vmemmap_remap_split(start, end, reuse)

    async def hugetlb_vmemmap_optimize_folios(self, h: Hstate, folio_list: VirtAddr) -> None:
        """Optimize the folios of a list: split all, flush once, remap all, flush once, free."""
        begun = await Annotate(OperationBegun("hugetlb_vmemmap_optimize_folios", ()))
        taken_up: list[VirtAddr] = []
        flags = WalkFlag.REMAP_NO_TLB_FLUSH | WalkFlag.SYNCHRONIZE_RCU
        async for entry in self._lists.entries(folio_list):
            # Out of memory: stop here. The remap below splits on demand, with memory freed by then.
            if await self.hugetlb_vmemmap_split_folio(h, page_of_lru(entry)) == -ENOMEM:
                break
        await self._flush.flush_tlb_all(FlushSite.BATCH_SPLIT)

        free = self.free_vmemmap_page_list
        async with ListHead(await ThisCpu()) as vmemmap_pages:
            await self._lists.init(vmemmap_pages)
            async for entry in self._lists.entries(folio_list):
                folio = page_of_lru(entry)
                taken_up.append(folio)
                ret = await self._optimize_folio(h, folio, vmemmap_pages, flags)
                flags = self._after_the_first(flags)
                # Out of memory with pages in hand: free those and try once more.
                if ret == -ENOMEM and not await self._lists.empty(vmemmap_pages):
                    await self._flush.flush_tlb_all_and_free(FlushSite.BATCH_SHORT, vmemmap_pages, free)
                    await self._lists.init(vmemmap_pages)
                    await self._optimize_folio(h, folio, vmemmap_pages, flags)
            await self._flush.flush_tlb_all_and_free(FlushSite.BATCH_REMAPPED, vmemmap_pages, free)
        await Annotate(OperationReturned("hugetlb_vmemmap_optimize_folios", begun, None, tuple(taken_up)))

    def _after_the_first(self, flags: WalkFlag) -> WalkFlag:
        """Once a batch is enough."""
        return flags & ~WalkFlag.SYNCHRONIZE_RCU

    def hugetlb_vmemmap_init(self) -> None:
        """late_initcall: the sysctl, if there is a size that can be optimized."""
        self._sysctl_registered = any(map(hugetlb_vmemmap_optimizable, self._hstates))

    async def write_sysctl(self, enabled: int) -> int:
        """vm.hugetlb_optimize_vmemmap (proc_dobool), at any time; read again for each folio.

        Returns 0, or -ENOENT where hugetlb_vmemmap_init() has not made it.
        """
        if not self._sysctl_registered:
            return -ENOENT
        await Store(VMEMMAP_OPTIMIZE_ENABLED, int(bool(enabled)))
        return 0

    # -- what the C file finds in its headers --------------------------------------------------------

    async def _pte_alloc_one_kernel(self) -> VirtAddr | None:
        """A zeroed page for a page table."""
        page = await self._pages.alloc_page("page table", GFP_PGTABLE_KERNEL)
        if page is not None:
            await Fill(page_to_virt(page), bytes(PAGE_BYTES))
        return page

    async def _bug_unless_adjacent(self, where: str, start: VirtAddr, reuse: VirtAddr) -> None:
        if start - reuse != PAGE_BYTES:
            await bug(where, f"BUG_ON({start:#x} - {reuse:#x} != PAGE_SIZE)")

    async def _warn_unless_frozen_hugetlb(self, where: str, folio: VirtAddr) -> None:
        if not self._config.debug_vm:
            return
        if not await folio_test_hugetlb(folio):
            await warn(where, "VM_WARN_ON_ONCE_FOLIO(!folio_test_hugetlb(folio))")
        if await folio_ref_count(folio):
            await warn(where, "VM_WARN_ON_ONCE_FOLIO(folio_ref_count(folio))")


def hugetlb_free_vmemmap(config: KernelConfig) -> int:
    """core_param(): the switch as the boot parameter, or what it is without one, leaves it."""
    return int(config.vmemmap_optimize_enabled)


def _vmemmap_of(h: Hstate, folio: VirtAddr) -> tuple[VirtAddr, VirtAddr, VirtAddr]:
    """(start, end, reuse) of a folio's vmemmap, in bytes."""
    return (
        VirtAddr(folio + HUGETLB_VMEMMAP_RESERVE_SIZE),
        VirtAddr(folio + hugetlb_vmemmap_size(h)),
        folio,
    )
