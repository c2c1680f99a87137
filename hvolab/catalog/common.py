"""What the scenarios share: one 2 MiB huge page, and the kernel's two operations on it."""

from __future__ import annotations

from emu.addr import Pfn
from hvolab.subject.scenario import KernelActor
from kernel_model.boot import Kernel
from kernel_model.layout import FOLIO_LIST, NON_HVO_FOLIOS
from kernel_model.mm.hstate import HSTATE_2M
from kernel_model.mm.image import HugePage
from kernel_model.mm.page import nth_page

MEMORY_BYTES = 128 << 20
HUGE_PAGE = HugePage(Pfn(0x4000), HSTATE_2M)
RAW_ERROR = 100  # which page of a folio has the memory error


async def _optimize(kernel: Kernel, huge: HugePage) -> None:
    await kernel.hvo.hugetlb_vmemmap_optimize_folio(huge.hstate, huge.folio)


async def _restore(kernel: Kernel, huge: HugePage) -> None:
    await kernel.hvo.hugetlb_vmemmap_restore_folio(huge.hstate, huge.folio)


async def _optimize_list(kernel: Kernel, huge: HugePage) -> None:
    await kernel.hvo.hugetlb_vmemmap_optimize_folios(huge.hstate, FOLIO_LIST)


async def _restore_list(kernel: Kernel, huge: HugePage) -> None:
    await kernel.hvo.hugetlb_vmemmap_restore_folios(huge.hstate, FOLIO_LIST, NON_HVO_FOLIOS)


async def _add_to_pool(kernel: Kernel, huge: HugePage) -> None:
    await kernel.pool.prep_and_add_allocated_folios(huge.hstate, FOLIO_LIST)


async def _shrink(kernel: Kernel, huge: HugePage) -> None:
    await kernel.pool.set_max_huge_pages(huge.hstate, 0)


async def _dissolve(kernel: Kernel, huge: HugePage) -> None:
    await kernel.pool.dissolve_free_hugetlb_folio(huge.folio)


async def _memory_failure(kernel: Kernel, huge: HugePage) -> None:
    await kernel.raw.memory_failure(nth_page(huge.folio, RAW_ERROR))


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


def add_to_pool(cpu: int) -> KernelActor:
    """The second half of growing the pool: new folios are optimized and put on the free list."""
    return KernelActor(cpu, "add-to-pool", _add_to_pool)


def shrink(cpu: int) -> KernelActor:
    """nr_hugepages = 0"""
    return KernelActor(cpu, "shrink", _shrink)


def dissolve(cpu: int) -> KernelActor:
    """dissolve_free_hugetlb_folio(), as memory hotplug does"""
    return KernelActor(cpu, "dissolve", _dissolve)


def memory_failure(cpu: int) -> KernelActor:
    """memory_failure() of a page in the middle of the folio"""
    return KernelActor(cpu, "memory-failure", _memory_failure)


def flush_all(cpu: int) -> KernelActor:
    """flush_tlb_all() on that CPU, for reasons of its own."""
    return KernelActor(cpu, "flush", _flush_all)
