"""Named deviations of the port: each a wrong or historic way of doing one thing.

A variant overrides the functions it deviates in and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from emu.addr import VirtAddr
from emu.ops import Annotate, ThisCpu
from kernel_model.events import OperationBegun, OperationReturned
from kernel_model.hstate import Hstate, hugetlb_vmemmap_size
from kernel_model.hugetlb import Hugetlb
from kernel_model.hugetlb_pool import PoolPrimitives
from kernel_model.hugetlb_vmemmap import HugetlbVmemmap, Primitives, WalkFlag


@dataclass(frozen=True, slots=True)
class NamedVariant:
    """A way to build the port over a set of primitives."""

    name: str
    summary: str
    build: Callable[[Primitives], HugetlbVmemmap] = HugetlbVmemmap
    build_pool: Callable[[PoolPrimitives], Hugetlb] = Hugetlb


class FreeBeforeFlush(HugetlbVmemmap):
    """Gives the old vmemmap pages back before the flush that ends their use."""

    async def hugetlb_vmemmap_optimize_folio(self, h: Hstate, folio: VirtAddr) -> None:
        begun = await Annotate(OperationBegun("hugetlb_vmemmap_optimize_folio", (folio,)))
        cpu = await ThisCpu()
        with self._stacks.list_head(cpu) as vmemmap_pages:
            await self._lists.init(vmemmap_pages)
            flags = WalkFlag.SYNCHRONIZE_RCU | WalkFlag.REMAP_NO_TLB_FLUSH
            await self._optimize_folio(h, folio, vmemmap_pages, flags)
            await self.free_vmemmap_page_list(vmemmap_pages)
            await self._flush.flush_tlb_kernel_range(folio, VirtAddr(folio + hugetlb_vmemmap_size(h)))
        await Annotate(OperationReturned("hugetlb_vmemmap_optimize_folio", begun, None))


UPSTREAM_HVO = NamedVariant("upstream", "mm/hugetlb_vmemmap.c as it is", HugetlbVmemmap)
FREE_BEFORE_FLUSH = NamedVariant(
    "free-before-flush", "vmemmap pages are freed before the flush", FreeBeforeFlush
)
