"""walk_page_range_novma() of mm/pagewalk.c over init_mm, for callers with PMD and PTE callbacks.

PTEs of init_mm are visited without a PTE lock: two HVO operations keep out of each other's way by owning
different folios. mmap_read_lock(init_mm) is not a step: nothing in the model takes it for writing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum

from emu.addr import PAGE_BYTES, PAGE_SHIFT, Pfn, PhysAddr, VirtAddr
from emu.paging.walk import entry_address
from kernel_model.layout import PMD_SIZE, PTRS_PER_PTE
from kernel_model.mm.pgtable import entry_get, pmd_leaf, pte_offset_kernel


class Action(Enum):
    """mm_walk.action after a PMD callback."""

    SUBTREE = "descend"
    CONTINUE = "skip the PTE level"


@dataclass(frozen=True, slots=True)
class PmdResult:
    """0 or a negative errno, and what to do next."""

    error: int
    action: Action


@dataclass(frozen=True, slots=True)
class MmWalkOps:
    """Callbacks. Each is given the physical address of the entry and the virtual address it maps."""

    pmd_entry: Callable[[PhysAddr, VirtAddr], Awaitable[PmdResult]]
    pte_entry: Callable[[PhysAddr, VirtAddr], Awaitable[int]]


async def walk_page_range_novma(root: Pfn, start: VirtAddr, end: VirtAddr, ops: MmWalkOps) -> int:
    """Visit [start, end). Returns 0 or the first negative errno a callback returned."""
    va = start
    while va < end:
        following = VirtAddr(min((va & ~(PMD_SIZE - 1)) + PMD_SIZE, end))
        pmd = await _pmd_of(root, va)
        if pmd is not None:
            error = await _walk_pmd(pmd, va, following, ops)
            if error:
                return error
        va = following
    return 0


async def lookup_address(root: Pfn, va: VirtAddr) -> Pfn | None:
    """The frame that a 4 KiB page is mapped to now; None where it is to none. Without any lock.

    lookup_address() of arch/x86/mm/pat/set_memory.c, and slow_virt_to_phys() on it.
    """
    pmd = await _pmd_of(root, va)
    if pmd is None:
        return None
    entry = await entry_get(pmd)
    if pmd_leaf(entry):
        return Pfn((entry.pfn & -PTRS_PER_PTE) + (va >> PAGE_SHIFT) % PTRS_PER_PTE)
    if not entry.present:
        return None
    entry = await entry_get(pte_offset_kernel(entry.pfn, va))
    return entry.pfn if entry.present else None


async def _pmd_of(root: Pfn, va: VirtAddr) -> PhysAddr | None:
    """Where the PMD entry for `va` lies; None where no table leads there."""
    table = root
    for level in (4, 3):
        entry = await entry_get(entry_address(table, va, level))
        if not entry.present or entry.page_size:
            return None
        table = entry.pfn
    return entry_address(table, va, 2)


async def _walk_pmd(pmd: PhysAddr, va: VirtAddr, end: VirtAddr, ops: MmWalkOps) -> int:
    if not await entry_get(pmd):  # pmd_none()
        return 0
    result = await ops.pmd_entry(pmd, va)
    if result.error or result.action is Action.CONTINUE:
        return result.error
    # Read again: the callback may have split it.
    entry = await entry_get(pmd)
    if pmd_leaf(entry) or not entry.present:
        return 0
    while va < end:
        error = await ops.pte_entry(pte_offset_kernel(entry.pfn, va), va)
        if error:
            return error
        va = VirtAddr(va + PAGE_BYTES)
    return 0
