"""The hugetlb pool that drives HVO: a port of the parts of Linux mm/hugetlb.c (v6.12) that do.

Growing and shrinking (`nr_hugepages`), freeing one (also where nobody may sleep), dissolving, demoting, and
the gigantic pages of boot. Functions have the original's names and order of effects; the words are ours. The
counts and list heads of each hstate are words of guest memory, and the pool's lists go through the `lru`
words of the head struct pages, so through the very mappings that HVO changes.

Not modelled: reservations, overcommit, cgroups, nodes, CMA, migration; `mapping` and friends of pages in use.
"""

from __future__ import annotations

from emu.addr import PhysAddr, VirtAddr
from emu.cpu.condition import AllOf, MemoryIs
from emu.cpu.ops import Annotate, Await, CmpXchg, FetchAdd, FetchAndNot, FetchOr, Load, Store, ThisCpu
from kernel_model.core.bug import bug, warn
from kernel_model.core.events import OperationBegun, OperationReturned
from kernel_model.core.spinlock import (
    HUGETLB_LOCK,
    mutex_lock,
    mutex_unlock,
    resize_lock,
    spin_lock_irq,
    spin_unlock_irq,
)
from kernel_model.core.stack import ListHead
from kernel_model.layout import (
    FREE_HPAGE_WORK_PENDING,
    FREE_HPAGE_WORK_RUNNING,
    HPAGE_FREELIST,
    PAGE_OFFSET,
    HstateFields,
)
from kernel_model.mm.compound import PER_PAGE, init_struct_pages, split_compound_page
from kernel_model.mm.hstate import HUGETLB_VMEMMAP_RESERVE_PAGES, Hstate
from kernel_model.mm.page import (
    HugetlbFlag,
    Offset,
    PageFlag,
    field,
    folio_clear_hugetlb,
    folio_order,
    folio_ref_count,
    folio_set_hugetlb,
    folio_test_hugetlb,
    folio_test_hugetlb_vmemmap_optimized,
    lru,
    nth_page,
    page_of_lru,
)
from kernel_model.pool.hugetlb_pool import PoolLists
from kernel_model.pool.hwpoison import EBUSY


class Hugetlb(PoolLists):
    """The pool, resized and freed from."""

    # -- nr_hugepages --------------------------------------------------------------------------------

    async def set_max_huge_pages(self, h: Hstate, count: int) -> None:
        """Make the pool hold `count` persistent pages, as far as that can be done."""
        begun = await Annotate(OperationBegun("set_max_huge_pages", ()))
        of = HstateFields(h.order)
        cpu = await ThisCpu()
        await mutex_lock(resize_lock(h.order))
        await self.flush_free_hpage_work()
        async with ListHead(cpu) as page_list:
            await self._lists.init(page_list)
            await spin_lock_irq(HUGETLB_LOCK)
            # A surplus page that is wanted again is one no longer.
            while await Load(of.surplus_huge_pages) and count > await self.persistent_huge_pages(of):
                if not await self.adjust_pool_surplus(of, -1):
                    break
            if await self._grow(h, of, count, page_list):
                await self._shrink(h, of, count, page_list)
            await Store(of.max_huge_pages, await self.persistent_huge_pages(of))
            await spin_unlock_irq(HUGETLB_LOCK)
        await mutex_unlock(resize_lock(h.order))
        await Annotate(OperationReturned("set_max_huge_pages", begun, None, ()))

    async def _grow(self, h: Hstate, of: HstateFields, count: int, page_list: VirtAddr) -> bool:
        """Under the lock, which is let go meanwhile. False when memory ran out, which ends the resizing."""
        allocated = 0
        while count > await self.persistent_huge_pages(of) + allocated:
            await spin_unlock_irq(HUGETLB_LOCK)
            folio = await self.only_alloc_fresh_hugetlb_folio(h)
            if folio is None:
                await self.prep_and_add_allocated_folios(h, page_list)
                await spin_lock_irq(HUGETLB_LOCK)
                return False
            await self._lists.add(lru(folio), page_list)
            allocated += 1
            await spin_lock_irq(HUGETLB_LOCK)
        if allocated:
            await spin_unlock_irq(HUGETLB_LOCK)
            await self.prep_and_add_allocated_folios(h, page_list)
            await self._lists.init(page_list)
            await spin_lock_irq(HUGETLB_LOCK)
        return True

    async def _shrink(self, h: Hstate, of: HstateFields, count: int, page_list: VirtAddr) -> None:
        """Under the lock, which is let go meanwhile. What cannot be freed is surplus afterwards."""
        in_use = await Load(of.nr_huge_pages) - await Load(of.free_huge_pages)
        least = max(count, in_use)
        while least < await self.persistent_huge_pages(of):
            folio = await self.remove_pool_hugetlb_folio(h, of)
            if folio is None:
                break
            await self._lists.add(lru(folio), page_list)
        await spin_unlock_irq(HUGETLB_LOCK)
        await self.update_and_free_pages_bulk(h, page_list)
        await self.flush_free_hpage_work()
        await spin_lock_irq(HUGETLB_LOCK)
        while count < await self.persistent_huge_pages(of):
            if not await self.adjust_pool_surplus(of, 1):
                break

    async def only_alloc_fresh_hugetlb_folio(self, h: Hstate) -> VirtAddr | None:
        """A frozen hugetlb folio that nobody has accounted for. None when out of memory, or out of luck."""
        for _ in range(2):
            folio = await self._pages.alloc_pages(h.order, "huge page")
            if folio is None:
                return None
            # Somebody may hold a speculative reference: give it back, and try once more.
            if await CmpXchg(field(folio, Offset.REFCOUNT), 1, 0, 4) == 1:
                await self.init_new_hugetlb_folio(folio)
                return folio
            await self._pages.free_pages(folio, h.order)
        await warn("alloc_buddy_hugetlb_folio", "HugeTLB unexpected inflated folio ref count")
        return None

    async def init_new_hugetlb_folio(self, folio: VirtAddr) -> None:
        """The type comes first: HVO and memory_failure() must know what this is (d8f5f7e445f0)."""
        await self._set_type(folio)
        await self._lists.init(lru(folio))
        for offset in (Offset.LRU_PREV, Offset.MAPPING, Offset.INDEX):  # subpool, cgroup, cgroup_rsvd
            await Store(field(nth_page(folio, 2), offset), 0)

    async def _set_type(self, folio: VirtAddr) -> None:
        await folio_set_hugetlb(folio)

    async def prep_and_add_allocated_folios(self, h: Hstate, folio_list: VirtAddr) -> None:
        """Optimize a list of new folios without locks, then put them into the pool in one lock cycle."""
        of = HstateFields(h.order)
        await self._hvo.hugetlb_vmemmap_optimize_folios(h, folio_list)
        await spin_lock_irq(HUGETLB_LOCK)
        async for entry in self._lists.entries_safe(folio_list):
            await FetchAdd(of.nr_huge_pages, 1)
            await self.enqueue_hugetlb_folio(of, page_of_lru(entry))
        await spin_unlock_irq(HUGETLB_LOCK)

    async def prep_and_add_bootmem_folios(self, h: Hstate, folio_list: VirtAddr) -> None:
        """The same for gigantic pages of boot, of which only the first 64 struct pages are initialised."""
        of = HstateFields(h.order)
        await self._hvo.hugetlb_vmemmap_optimize_folios(h, folio_list)
        async for entry in self._lists.entries_safe(folio_list):
            folio = page_of_lru(entry)
            if not await folio_test_hugetlb_vmemmap_optimized(folio):
                for first in range(HUGETLB_VMEMMAP_RESERVE_PAGES, h.pages_per_huge_page, PER_PAGE):
                    await init_struct_pages(folio, h.order, first, PER_PAGE)
            await spin_lock_irq(HUGETLB_LOCK)
            await FetchAdd(of.nr_huge_pages, 1)
            await self.enqueue_hugetlb_folio(of, folio)
            await spin_unlock_irq(HUGETLB_LOCK)

    # -- freeing -------------------------------------------------------------------------------------

    async def free_huge_folio(self, folio: VirtAddr) -> None:
        """The last reference is gone, perhaps where nobody may sleep: to the pool, or away if surplus."""
        h = self._hstates[await folio_order(folio)]
        of = HstateFields(h.order)
        if self._config.debug_vm and await folio_ref_count(folio):
            await bug("free_huge_folio", "VM_BUG_ON_FOLIO(folio_ref_count(folio))")
        await spin_lock_irq(HUGETLB_LOCK)
        await FetchAndNot(field(folio, Offset.PRIVATE), HugetlbFlag.MIGRATABLE)
        if await Load(field(folio, Offset.PRIVATE)) & HugetlbFlag.TEMPORARY:
            await self.remove_hugetlb_folio(h, folio, surplus=0)
        elif await Load(of.surplus_huge_pages):
            await self.remove_hugetlb_folio(h, folio, surplus=1)
        else:
            await self.enqueue_hugetlb_folio(of, folio)
            await spin_unlock_irq(HUGETLB_LOCK)
            return
        await spin_unlock_irq(HUGETLB_LOCK)
        await self.update_and_free_hugetlb_folio_atomic(h, folio)

    async def update_and_free_hugetlb_folio_atomic(self, h: Hstate, folio: VirtAddr) -> None:
        """update_and_free_hugetlb_folio(atomic): an optimized folio is left to a work item that may sleep."""
        if not await folio_test_hugetlb_vmemmap_optimized(folio):
            await self.update_and_free_hugetlb_folio(h, folio)
            return
        node = field(folio, Offset.MAPPING)
        while True:  # llist_add()
            first = await Load(HPAGE_FREELIST)
            await Store(node, first)
            if await CmpXchg(HPAGE_FREELIST, first, node) == first:
                break
        if not first:
            await FetchOr(FREE_HPAGE_WORK_PENDING, 1)  # schedule_work()

    async def free_hpage_workfn(self) -> None:
        """The work item: free what was left to it."""
        node = VirtAddr(await Load(HPAGE_FREELIST))
        while await CmpXchg(HPAGE_FREELIST, node, 0) != node:  # llist_del_all()
            node = VirtAddr(await Load(HPAGE_FREELIST))
        while node:
            folio = VirtAddr(node - Offset.MAPPING)
            node = VirtAddr(await Load(node))
            await Store(field(folio, Offset.MAPPING), 0)
            await self.update_and_free_hugetlb_folio(self._hstates[await folio_order(folio)], folio)

    async def kworker(self) -> None:
        """A worker thread for one round of the work item."""
        await Await(_memory_is(FREE_HPAGE_WORK_PENDING, 1))
        await Store(FREE_HPAGE_WORK_RUNNING, 1)
        await Store(FREE_HPAGE_WORK_PENDING, 0)
        await self.free_hpage_workfn()
        await Store(FREE_HPAGE_WORK_RUNNING, 0)

    async def flush_free_hpage_work(self) -> None:
        """flush_work(): wait until the work item is neither pending nor running."""
        await Await(AllOf((_memory_is(FREE_HPAGE_WORK_PENDING, 0), _memory_is(FREE_HPAGE_WORK_RUNNING, 0))))

    async def update_and_free_hugetlb_folio(self, h: Hstate, folio: VirtAddr) -> None:
        """__update_and_free_hugetlb_folio(): restore, forget that it was hugetlb, give it back."""
        if await Load(field(folio, Offset.PRIVATE)) & HugetlbFlag.RAW_HWP_UNRELIABLE:
            return  # leaked on purpose: nobody knows which of its pages are poisoned
        # Without missing tails it has stopped being hugetlb already, and must not be restored.
        optimized = await folio_test_hugetlb_vmemmap_optimized(folio)
        if optimized and await self._hvo.hugetlb_vmemmap_restore_folio(h, folio):
            await spin_lock_irq(HUGETLB_LOCK)
            await self.add_hugetlb_folio(h, folio, surplus=1)
            await spin_unlock_irq(HUGETLB_LOCK)
            return
        await self._forget_hugetlb(folio)
        await Store(field(folio, Offset.REFCOUNT), 1, 4)  # folio_ref_unfreeze()
        deferred = field(nth_page(folio, 2), Offset.LRU_PREV)  # &folio->_deferred_list
        await self._lists.init(deferred)
        await self._pages.free_pages(folio, h.order)

    async def _forget_hugetlb(self, folio: VirtAddr) -> None:
        """The type goes first, under the lock; then no new error can be kept with the head (5596d9e8b553)."""
        if await folio_test_hugetlb(folio):
            await spin_lock_irq(HUGETLB_LOCK)
            await folio_clear_hugetlb(folio)
            await spin_unlock_irq(HUGETLB_LOCK)
        if await Load(field(folio, Offset.FLAGS)) & PageFlag.HWPOISON:
            await self._raw.folio_clear_hugetlb_hwpoison(folio)

    async def update_and_free_pages_bulk(self, h: Hstate, folio_list: VirtAddr) -> None:
        """Restore and free a list. What fails is tried again as long as something else can be freed."""
        cpu = await ThisCpu()
        async with ListHead(cpu) as non_hvo_folios:
            await self._lists.init(non_hvo_folios)
            while True:
                ret = await self._hvo.hugetlb_vmemmap_restore_folios(h, folio_list, non_hvo_folios)
                if ret >= 0:
                    break
                await self._bulk_vmemmap_restore_error(h, folio_list, non_hvo_folios)
            if not await self._lists.empty(folio_list):
                await warn("update_and_free_pages_bulk", "VM_WARN_ON(!list_empty(folio_list))")
            if ret and not await self._lists.empty(non_hvo_folios):
                await spin_lock_irq(HUGETLB_LOCK)
                async for entry in self._lists.entries(non_hvo_folios):
                    await folio_clear_hugetlb(page_of_lru(entry))
                await spin_unlock_irq(HUGETLB_LOCK)
            async for entry in self._lists.entries_safe(non_hvo_folios):
                await self.update_and_free_hugetlb_folio(h, page_of_lru(entry))

    async def _bulk_vmemmap_restore_error(
        self, h: Hstate, folio_list: VirtAddr, non_hvo_folios: VirtAddr
    ) -> None:
        """Free what has been restored; if nothing has, free one singly, or make all of them surplus."""
        if not await self._lists.empty(non_hvo_folios):
            async for entry in self._lists.entries_safe(non_hvo_folios):
                await self._take_off(entry)
                await self._free_restored(h, page_of_lru(entry))
            return
        async for entry in self._lists.entries_safe(folio_list):
            folio = page_of_lru(entry)
            if await self._hvo.hugetlb_vmemmap_restore_folio(h, folio):
                await self._lists.delete(entry)
                await spin_lock_irq(HUGETLB_LOCK)
                await self.add_hugetlb_folio(h, folio, surplus=1)
                await spin_unlock_irq(HUGETLB_LOCK)
            else:
                await self._lists.delete(entry)
                await self._free_restored(h, folio)
                break

    async def _take_off(self, entry: VirtAddr) -> None:
        await self._lists.delete(entry)

    async def _free_restored(self, h: Hstate, folio: VirtAddr) -> None:
        await spin_lock_irq(HUGETLB_LOCK)
        await folio_clear_hugetlb(folio)
        await spin_unlock_irq(HUGETLB_LOCK)
        await self.update_and_free_hugetlb_folio(h, folio)

    # -- dissolving and demoting ---------------------------------------------------------------------

    async def dissolve_free_hugetlb_folio(self, folio: VirtAddr) -> int:
        """Free a free folio of the pool (hotplug, memory failure). Returns 0, -EBUSY or -ENOMEM."""
        while True:
            if not await folio_test_hugetlb(folio):
                return 0
            await spin_lock_irq(HUGETLB_LOCK)
            found = await self._may_dissolve(folio)
            if found is None:  # it is hugetlb, its count is 0, and it is not on the free list yet
                await spin_unlock_irq(HUGETLB_LOCK)
                continue
            if found != _DISSOLVE:
                await spin_unlock_irq(HUGETLB_LOCK)
                return found
            return await self._dissolve(folio)

    async def _may_dissolve(self, folio: VirtAddr) -> int | None:
        if not await folio_test_hugetlb(folio):
            return 0
        if await folio_ref_count(folio):
            return -EBUSY
        of = HstateFields(await folio_order(folio))
        if not await Load(of.free_huge_pages):  # available_huge_pages()
            return -EBUSY
        if not await Load(field(folio, Offset.PRIVATE)) & HugetlbFlag.FREED:
            return None
        return _DISSOLVE

    async def _dissolve(self, folio: VirtAddr) -> int:
        """With the lock held, which is let go."""
        h = self._hstates[await folio_order(folio)]
        of = HstateFields(h.order)
        surplus = int(await Load(of.surplus_huge_pages) > 0)
        await self.remove_hugetlb_folio(h, folio, surplus)
        await FetchAdd(of.max_huge_pages, -1)
        await spin_unlock_irq(HUGETLB_LOCK)
        if await folio_test_hugetlb(folio):
            ret = await self._hvo.hugetlb_vmemmap_restore_folio(h, folio)
            if ret:
                await spin_lock_irq(HUGETLB_LOCK)
                await self.add_hugetlb_folio(h, folio, surplus)
                await FetchAdd(of.max_huge_pages, 1)
                await spin_unlock_irq(HUGETLB_LOCK)
                return ret
        await self.update_and_free_hugetlb_folio(h, folio)
        return 0

    async def demote_pool_huge_page(self, source: Hstate, target: Hstate, number: int) -> int:
        """Make `number` free pages of one size into pages of a smaller. Returns how many it made."""
        of, cpu = HstateFields(source.order), await ThisCpu()
        demoted = 0
        await mutex_lock(resize_lock(source.order))
        async with ListHead(cpu) as page_list:
            await self._lists.init(page_list)
            await spin_lock_irq(HUGETLB_LOCK)
            async for entry in self._lists.entries_safe(of.freelist):
                folio = page_of_lru(entry)
                if demoted == number:
                    break
                if await Load(field(folio, Offset.FLAGS)) & PageFlag.HWPOISON:
                    continue
                await self.remove_hugetlb_folio(source, folio, surplus=0)
                await self._lists.add(lru(folio), page_list)
                demoted += 1
            await spin_unlock_irq(HUGETLB_LOCK)
            await self._demote_free_hugetlb_folios(source, target, page_list)
            await spin_lock_irq(HUGETLB_LOCK)
            async for entry in self._lists.entries_safe(page_list):  # what could not be restored
                await self._lists.delete(entry)
                await self.add_hugetlb_folio(source, page_of_lru(entry), surplus=0)
                demoted -= 1
        await FetchAdd(of.max_huge_pages, -demoted)
        await FetchAdd(HstateFields(target.order).max_huge_pages, demoted << (source.order - target.order))
        await spin_unlock_irq(HUGETLB_LOCK)
        await mutex_unlock(resize_lock(source.order))
        return demoted

    async def _demote_free_hugetlb_folios(self, source: Hstate, target: Hstate, page_list: VirtAddr) -> None:
        cpu = await ThisCpu()
        async with ListHead(cpu) as restored, ListHead(cpu) as targets:
            await self._lists.init(restored)
            await self._lists.init(targets)
            await self._hvo.hugetlb_vmemmap_restore_folios(source, page_list, restored)
            await mutex_lock(resize_lock(target.order))
            async for entry in self._lists.entries_safe(page_list):
                if not await folio_test_hugetlb_vmemmap_optimized(page_of_lru(entry)):
                    await self._lists.move(entry, restored)
            async for entry in self._lists.entries_safe(restored):
                await self._lists.delete(entry)
                for number in range(0, source.pages_per_huge_page, target.pages_per_huge_page):
                    part = nth_page(page_of_lru(entry), number)
                    await split_compound_page(part, target.order)
                    await self.init_new_hugetlb_folio(part)
                    await self._lists.add(lru(part), targets)
            await self.prep_and_add_allocated_folios(target, targets)
            await mutex_unlock(resize_lock(target.order))


_DISSOLVE = 1


def _memory_is(va: VirtAddr, value: int) -> MemoryIs:
    return MemoryIs(PhysAddr(va - PAGE_OFFSET), value)
