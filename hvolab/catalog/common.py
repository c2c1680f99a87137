"""What the scenarios share: one 2 MiB huge page, and the kernel's two operations on it."""

from __future__ import annotations

from emu.addr import Pfn
from hvolab.scenario import KernelActor
from kernel_model.boot import Kernel
from kernel_model.hstate import HSTATE_2M
from kernel_model.image import HugePage
from kernel_model.layout import FOLIO_LIST, NON_HVO_FOLIOS

MEMORY_BYTES = 128 << 20
HUGE_PAGE = HugePage(Pfn(0x4000), HSTATE_2M)


async def _optimize(kernel: Kernel, huge: HugePage) -> None:
    await kernel.hvo.hugetlb_vmemmap_optimize_folio(huge.hstate, huge.folio)


async def _restore(kernel: Kernel, huge: HugePage) -> None:
    await kernel.hvo.hugetlb_vmemmap_restore_folio(huge.hstate, huge.folio)


async def _optimize_list(kernel: Kernel, huge: HugePage) -> None:
    await kernel.hvo.hugetlb_vmemmap_optimize_folios(huge.hstate, FOLIO_LIST)


async def _restore_list(kernel: Kernel, huge: HugePage) -> None:
    await kernel.hvo.hugetlb_vmemmap_restore_folios(huge.hstate, FOLIO_LIST, NON_HVO_FOLIOS)


async def _flush_all(kernel: Kernel, huge: HugePage) -> None:
    del huge
    await kernel.flush.flush_tlb_all()


def optimize(cpu: int) -> KernelActor:
    """hugetlb_vmemmap_optimize_folio() on that CPU."""
    return KernelActor(cpu, "optimize", _optimize)


def restore(cpu: int) -> KernelActor:
    """hugetlb_vmemmap_restore_folio() on that CPU."""
    return KernelActor(cpu, "restore", _restore)


def optimize_list(cpu: int) -> KernelActor:
    """hugetlb_vmemmap_optimize_folios() of FOLIO_LIST on that CPU."""
    return KernelActor(cpu, "optimize-list", _optimize_list)


def restore_list(cpu: int) -> KernelActor:
    """hugetlb_vmemmap_restore_folios() of FOLIO_LIST on that CPU."""
    return KernelActor(cpu, "restore-list", _restore_list)


def flush_all(cpu: int) -> KernelActor:
    """flush_tlb_all() on that CPU, for reasons of its own."""
    return KernelActor(cpu, "flush", _flush_all)
