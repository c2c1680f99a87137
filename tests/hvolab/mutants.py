"""The port with one protective step taken out, and who is hurt by that: for the mutation run.

Each mutant overrides the functions it must and changes one thing in them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from emu.addr import PAGE_BYTES, PAGE_SHIFT, PhysAddr, VirtAddr
from emu.models import LAZY, LAZY_SINGLE, CpuModel
from emu.ops import Annotate, Copy, Count, Fill, Load, Store, ThisCpu
from firmware.catalog import program
from hvolab.catalog.common import HUGE_PAGE, MEMORY_BYTES, optimize, restore
from hvolab.catalog.races import NEIGHBOUR
from hvolab.question import Asks, Question
from hvolab.scenario import GuestActor, KernelActor, Setup, vmemmap_page
from hvolab.verdict import Verdict
from kernel_model.boot import BootConfig, Kernel
from kernel_model.events import OperationBegun, OperationReturned
from kernel_model.flush.broken import NO_FLUSH, SKIPS_LAST_CPU
from kernel_model.flush.policy import NamedPolicy
from kernel_model.flush.upstream import UPSTREAM
from kernel_model.hstate import Hstate, hugetlb_vmemmap_size
from kernel_model.hugetlb_vmemmap import (
    HugetlbVmemmap,
    VmemmapRemapWalk,
    WalkFlag,
)
from kernel_model.image import HugePage, VmemmapOrigin
from kernel_model.layout import PMD_SIZE, page_to_pfn, page_to_virt, pfn_to_page
from kernel_model.page import (
    Offset,
    PageReserved,
    field,
    folio_set_hugetlb_vmemmap_optimized,
    lru,
    page_of_lru,
)
from kernel_model.pgtable import (
    PAGE_KERNEL,
    entry_get,
    mk_pte,
    page_table,
    pmd_populate_kernel,
    set_pte_at,
    table_start,
)
from kernel_model.spinlock import INIT_MM_PAGE_TABLE_LOCK, spin_lock, spin_unlock
from kernel_model.variants import FREE_BEFORE_FLUSH, UPSTREAM_HVO, NamedVariant

TAIL_1 = vmemmap_page(HUGE_PAGE, 1)
WORD = field(TAIL_1, Offset.COMPOUND_HEAD)
PRIVATE = field(HUGE_PAGE.folio, Offset.PRIVATE)


class NoFlushAfterRemap(HugetlbVmemmap):
    """Does not flush after the remap (the caller was to, and does not)."""

    async def _optimize_folio(
        self, h: Hstate, folio: VirtAddr, vmemmap_pages: VirtAddr, flags: WalkFlag
    ) -> int:
        return await super()._optimize_folio(h, folio, vmemmap_pages, flags | WalkFlag.REMAP_NO_TLB_FLUSH)


class RemapBeforeCopy(HugetlbVmemmap):
    """The new head page is mapped before it has the old one's contents: the barrier's order, turned round."""

    async def vmemmap_remap_pte(self, pte: PhysAddr, addr: VirtAddr, walk: VmemmapRemapWalk) -> None:
        to = page_to_virt(walk.reuse_page)
        if addr != walk.reuse_addr:
            await super().vmemmap_remap_pte(pte, addr, walk)
            return
        old = (await entry_get(pte)).pfn
        await Fill(to, bytes(PAGE_BYTES))  # the copy made before did not count
        await super().vmemmap_remap_pte(pte, addr, walk)
        await Copy(to, page_to_virt(pfn_to_page(old)), PAGE_BYTES)


class SplitWithoutRecheck(HugetlbVmemmap):
    """Splits without looking again, under the lock, whether it still is a leaf (before 3ce2c24cb68f)."""

    async def vmemmap_split_pmd(
        self, pmd: PhysAddr, head: VirtAddr, start: VirtAddr, walk: VmemmapRemapWalk
    ) -> int:
        pgtable = await self._pte_alloc_one_kernel()
        assert pgtable is not None
        table = page_to_pfn(pgtable)
        await Fill(table_start(table), page_table(page_to_pfn(head), PAGE_KERNEL))
        await spin_lock(INIT_MM_PAGE_TABLE_LOCK)
        await pmd_populate_kernel(pmd, table)
        await self._flush.flush_tlb_kernel_range(start, VirtAddr(start + PMD_SIZE))
        await spin_unlock(INIT_MM_PAGE_TABLE_LOCK)
        return 0


class WritableTails(HugetlbVmemmap):
    """Maps tails writable: nobody is told who writes there."""

    async def vmemmap_remap_pte(self, pte: PhysAddr, addr: VirtAddr, walk: VmemmapRemapWalk) -> None:
        await super().vmemmap_remap_pte(pte, addr, walk)
        if addr != walk.reuse_addr:
            await set_pte_at(pte, mk_pte(page_to_pfn(walk.reuse_page), PAGE_KERNEL))


class FlagAfterCopy(HugetlbVmemmap):
    """Sets the folio's flag after the copy instead of before: it goes to the page that is replaced."""

    async def vmemmap_remap_range(self, start: VirtAddr, end: VirtAddr, walk: VmemmapRemapWalk) -> int:
        if walk.remap_pte == self.vmemmap_remap_pte:
            await folio_set_hugetlb_vmemmap_optimized(start)
        return await super().vmemmap_remap_range(start, end, walk)

    async def _optimize_folio(
        self, h: Hstate, folio: VirtAddr, vmemmap_pages: VirtAddr, flags: WalkFlag
    ) -> int:
        await self._key.static_branch_inc()
        await self._rcu.synchronize_rcu()
        start, end = VirtAddr(folio + PAGE_BYTES), VirtAddr(folio + hugetlb_vmemmap_size(h))
        return await self.vmemmap_remap_free(start, end, folio, vmemmap_pages, flags)


class NoRcuWait(HugetlbVmemmap):
    """Does not wait for those who looked at the static key before it was raised."""

    async def _optimize_folio(
        self, h: Hstate, folio: VirtAddr, vmemmap_pages: VirtAddr, flags: WalkFlag
    ) -> int:
        return await super()._optimize_folio(h, folio, vmemmap_pages, flags & ~WalkFlag.SYNCHRONIZE_RCU)


class KeyAfterRemap(HugetlbVmemmap):
    """Raises the key when the remap is over."""

    async def _optimize_folio(
        self, h: Hstate, folio: VirtAddr, vmemmap_pages: VirtAddr, flags: WalkFlag
    ) -> int:
        await self._rcu.synchronize_rcu()
        await folio_set_hugetlb_vmemmap_optimized(folio)
        start, end = VirtAddr(folio + PAGE_BYTES), VirtAddr(folio + hugetlb_vmemmap_size(h))
        ret = await self.vmemmap_remap_free(start, end, folio, vmemmap_pages, flags)
        await self._key.static_branch_inc()
        return ret


class RestoreMapsBeforeCopy(HugetlbVmemmap):
    """Restore maps a new page before it has its contents."""

    async def vmemmap_restore_pte(self, pte: PhysAddr, addr: VirtAddr, walk: VmemmapRemapWalk) -> None:
        page = page_of_lru(VirtAddr(await Load(walk.vmemmap_pages)))
        await self._lists.delete(lru(page))
        to = page_to_virt(page)
        await set_pte_at(pte, mk_pte(page_to_pfn(page), PAGE_KERNEL))
        await Copy(to, page_to_virt(walk.reuse_page), PAGE_BYTES)
        await self.reset_struct_pages(to)


class FreesWithoutUnmapping(HugetlbVmemmap):
    """Puts a page on the list of those to be freed, and leaves it mapped."""

    async def vmemmap_remap_pte(self, pte: PhysAddr, addr: VirtAddr, walk: VmemmapRemapWalk) -> None:
        page = pfn_to_page((await entry_get(pte)).pfn)
        if addr == walk.reuse_addr:
            await super().vmemmap_remap_pte(pte, addr, walk)
            return
        await self._lists.add(lru(page), walk.vmemmap_pages)


class SplitsNoBlock(HugetlbVmemmap):
    """Does not make single pages of a hotplugged block before it splits the PMD."""

    async def vmemmap_split_pmd(
        self, pmd: PhysAddr, head: VirtAddr, start: VirtAddr, walk: VmemmapRemapWalk
    ) -> int:
        pgtable = await self._pte_alloc_one_kernel()
        assert pgtable is not None
        table = page_to_pfn(pgtable)
        await Fill(table_start(table), page_table(page_to_pfn(head), PAGE_KERNEL))
        await spin_lock(INIT_MM_PAGE_TABLE_LOCK)
        await PageReserved(head)
        await pmd_populate_kernel(pmd, table)
        await self._flush.flush_tlb_kernel_range(start, VirtAddr(start + PMD_SIZE))
        await spin_unlock(INIT_MM_PAGE_TABLE_LOCK)
        return 0


class RestoresFromWrongTemplate(HugetlbVmemmap):
    """Restore takes whatever is mapped, without looking whether it is the page that was shared."""

    async def alloc_vmemmap_page_list(self, start: VirtAddr, end: VirtAddr, pages: VirtAddr) -> int:
        nr_pages = (end - start) >> PAGE_SHIFT
        for _ in range(nr_pages - 1):  # one too few
            page = await self._pages.alloc_page("vmemmap tail page")
            assert page is not None
            await self._lists.add(lru(page), pages)
        await Count("nr_memmap_pages", nr_pages)
        return 0


class DoubleRelease(HugetlbVmemmap):
    """Gives the old pages back twice."""

    async def hugetlb_vmemmap_optimize_folio(self, h: Hstate, folio: VirtAddr) -> None:
        begun = await Annotate(OperationBegun("hugetlb_vmemmap_optimize_folio", (folio,)))
        cpu = await ThisCpu()
        with self._stacks.list_head(cpu) as vmemmap_pages:
            await self._lists.init(vmemmap_pages)
            await self._optimize_folio(h, folio, vmemmap_pages, WalkFlag.SYNCHRONIZE_RCU)
            await self.free_vmemmap_page_list(vmemmap_pages)
            await self.free_vmemmap_page_list(vmemmap_pages)
        await Annotate(OperationReturned("hugetlb_vmemmap_optimize_folio", begun, None))


async def _freeze(kernel: Kernel, huge: HugePage) -> None:
    """What the pool does before: a tail page that was in use a moment ago is frozen."""
    del kernel
    await Store(field(vmemmap_page(huge, 1), Offset.REFCOUNT), 1, 4)
    await Store(field(vmemmap_page(huge, 1), Offset.REFCOUNT), 0, 4)


async def _split(kernel: Kernel, huge: HugePage) -> None:
    await kernel.hvo.hugetlb_vmemmap_split_folio(huge.hstate, huge.folio)


async def _optimize_and_restore(kernel: Kernel, huge: HugePage) -> None:
    await kernel.hvo.hugetlb_vmemmap_optimize_folio(huge.hstate, NEIGHBOUR.folio)
    await kernel.hvo.hugetlb_vmemmap_restore_folio(huge.hstate, NEIGHBOUR.folio)


Actors = tuple[GuestActor | KernelActor, ...]


def reader(cpu: int) -> GuestActor:
    return GuestActor(cpu, program("read_twice"), (("word", int(WORD)),))


def writer(cpu: int) -> GuestActor:
    word = field(TAIL_1, Offset.PRIVATE)
    return GuestActor(cpu, program("write_tail"), (("word", int(word)), ("value", 0x1234)))


def compound_head(cpu: int) -> GuestActor:
    asks = Asks(Question.COMPOUND_HEAD, TAIL_1, "rax")
    return GuestActor(cpu, program("compound_head"), (("page", int(TAIL_1)),), asks)


def get_page(cpu: int) -> GuestActor:
    return GuestActor(cpu, program("get_page_unless_zero"), (("page", int(TAIL_1)),))


SPLIT_RACE: Actors = (
    KernelActor(0, "split", _split),
    KernelActor(1, "neighbour", _optimize_and_restore),
)
FROZEN: Actors = (KernelActor(0, "freeze", _freeze), optimize(0), get_page(1))


@dataclass(frozen=True, slots=True)
class Mutant:
    """A protective step taken out, who runs, and the verdicts that may refute it; none: not reached yet."""

    name: str
    actors: Actors
    refuted_by: frozenset[Verdict]
    variant: NamedVariant = UPSTREAM_HVO
    policy: NamedPolicy = UPSTREAM
    origin: VmemmapOrigin = VmemmapOrigin.BOOT
    alone: bool = True
    model: CpuModel = LAZY

    def setup(self) -> Setup:
        huge = (HUGE_PAGE,) if self.alone else (HUGE_PAGE, NEIGHBOUR)
        boot = BootConfig(
            MEMORY_BYTES, 2, huge, self.model, policy=self.policy, origin=self.origin, variant=self.variant
        )
        return Setup(boot, self.actors, (), ())


def _variant(build: Callable[..., HugetlbVmemmap]) -> NamedVariant:
    return NamedVariant(build.__name__, build.__doc__ or "", build)


_STALE = frozenset({Verdict.MISSED_FLUSH, Verdict.USE_AFTER_FREE})
_KERNEL = frozenset({Verdict.KERNEL})

MUTANTS: tuple[Mutant, ...] = (
    Mutant("flush_tlb_* does nothing", (optimize(0), reader(1)), _STALE, policy=NO_FLUSH),
    Mutant("a flush leaves out a CPU", (optimize(0), reader(1)), _STALE, policy=SKIPS_LAST_CPU),
    Mutant("no flush after the remap", (optimize(0), reader(1)), _STALE, _variant(NoFlushAfterRemap)),
    Mutant("freed before the flush", (optimize(0), reader(1)), _STALE, FREE_BEFORE_FLUSH),
    Mutant("freed and still mapped", (optimize(0), reader(1)), _STALE, _variant(FreesWithoutUnmapping)),
    Mutant(
        "no re-check under the lock",
        SPLIT_RACE,
        _KERNEL | _STALE,
        _variant(SplitWithoutRecheck),
        alone=False,
    ),
    Mutant("tails writable", (optimize(0), writer(1)), frozenset(), _variant(WritableTails)),
    Mutant(
        "flag after the copy",
        (optimize(0), restore(0)),
        frozenset({Verdict.LOST_UPDATE}),
        _variant(FlagAfterCopy),
    ),
    Mutant("no RCU wait", FROZEN, frozenset({Verdict.WRITE_PROTECT}), _variant(NoRcuWait)),
    Mutant(
        "key after the remap",
        (optimize(0), compound_head(1)),
        frozenset({Verdict.WRONG_METADATA}),
        _variant(KeyAfterRemap),
        model=LAZY_SINGLE,  # with both translations upstream is wrong too (docs/findings.md)
    ),
    Mutant(
        "head mapped before it is copied", (optimize(0), restore(0)), frozenset(), _variant(RemapBeforeCopy)
    ),
    Mutant(
        "restore maps before it copies",
        (optimize(0), restore(0), reader(1)),
        frozenset(),
        _variant(RestoreMapsBeforeCopy),
    ),
    Mutant(
        "no split_page",
        (optimize(0), reader(1)),
        _KERNEL,
        _variant(SplitsNoBlock),
        origin=VmemmapOrigin.HOTPLUG,
    ),
    Mutant(
        "one page too few in restore", (optimize(0), restore(0)), _KERNEL, _variant(RestoresFromWrongTemplate)
    ),
    Mutant("released twice", (optimize(0),), _KERNEL, _variant(DoubleRelease)),
)
