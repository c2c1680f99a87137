"""Page-table entries as the kernel handles them: read and written through the direct map."""

from __future__ import annotations

from emu.addr import Pfn, PhysAddr, VirtAddr, frame_start
from emu.cpu.ops import Load, Store
from emu.paging.pte import Pte, PteBit
from emu.paging.walk import entry_address
from kernel_model.layout import PTRS_PER_PTE, direct_map

# arch/x86/include/asm/pgtable_types.h, as a running v6.12 shows them: A and D are set beforehand, so a CPU
# never walks again to set them; a stale kernel write is silent.
PAGE_KERNEL = (
    PteBit.PRESENT | PteBit.WRITE | PteBit.ACCESSED | PteBit.DIRTY | PteBit.GLOBAL | PteBit.NO_EXECUTE
)
PAGE_KERNEL_RO = PteBit.PRESENT | PteBit.ACCESSED | PteBit.GLOBAL | PteBit.NO_EXECUTE
PAGE_KERNEL_TEXT = PteBit.PRESENT | PteBit.ACCESSED | PteBit.GLOBAL
# _PAGE_TABLE: what pmd_populate_kernel() and its like put beside the table's frame.
KERNPG_TABLE = PteBit.PRESENT | PteBit.WRITE | PteBit.ACCESSED | PteBit.DIRTY
PAGE_TABLE = KERNPG_TABLE | PteBit.USER


def mk_pte(pfn: int, pgprot: PteBit) -> Pte:
    return Pte.make(Pfn(pfn), pgprot)


async def entry_get(pa: PhysAddr) -> Pte:
    """ptep_get() and *pmd: one read of the entry."""
    return Pte(await Load(direct_map(pa)))


async def set_pte_at(pa: PhysAddr, entry: Pte) -> None:
    await Store(direct_map(pa), entry)


async def pmd_populate_kernel(pa: PhysAddr, table: Pfn) -> None:
    await Store(direct_map(pa), pmd_of(table))


def pmd_of(table: Pfn) -> Pte:
    """An entry that leads to a page table."""
    return Pte.make(table, PAGE_TABLE)


async def pte_clear(pa: PhysAddr) -> None:
    """Not present."""
    await Store(direct_map(pa), 0)


async def pmd_clear(pa: PhysAddr) -> None:
    """Not present."""
    await Store(direct_map(pa), 0)


def pmd_leaf(entry: Pte) -> bool:
    return entry.present and entry.page_size


def pte_offset_kernel(table: Pfn, va: VirtAddr) -> PhysAddr:
    """Where the PTE for `va` lies in its page table."""
    return entry_address(table, va, 1)


def page_table(first_pfn: int, pgprot: PteBit) -> bytes:
    """The 4 KiB of a page table that maps 512 consecutive frames."""
    return b"".join(mk_pte(first_pfn + index, pgprot).to_bytes(8, "little") for index in range(PTRS_PER_PTE))


def table_start(pfn: Pfn) -> VirtAddr:
    """The direct-map address of a page table."""
    return direct_map(frame_start(pfn))
