"""Where things are: the virtual and the physical memory map, on one page.

0xffff888000000000  direct map of all memory, 2 MiB leaves          (x86_64, 4-level, no KASLR)
0xffffea0000000000  vmemmap: struct page of frame n at + 64 n
0xffffffff81000000  kernel text: guest programs

0 MiB   boot-time page tables      2 MiB   kernel text
4 MiB   per-CPU data and stacks    6 MiB   globals
8 MiB   free memory, huge pages, and the blocks that back vmemmap
"""

from __future__ import annotations

from dataclasses import dataclass

from emu.addr import PAGE_BYTES, PAGE_SHIFT, Pfn, PhysAddr, VirtAddr

PAGE_OFFSET = 0xFFFF_8880_0000_0000
VMEMMAP_START = 0xFFFF_EA00_0000_0000
VMEMMAP_END = VMEMMAP_START + (1 << 40)
START_KERNEL_MAP = 0xFFFF_FFFF_8100_0000

MIB = 1 << 20
PMD_SIZE = 2 * MIB
PTRS_PER_PTE = 512
STRUCT_PAGE_SIZE = 64
# SECTION_SIZE_BITS = 27: 128 MiB of memory, whose struct pages fill 2 MiB of vmemmap, one PMD.
SECTION_BYTES = 128 * MIB
PAGES_PER_SECTION = SECTION_BYTES >> PAGE_SHIFT

TEXT_PA = PhysAddr(2 * MIB)
PERCPU_PA = PhysAddr(4 * MIB)
GLOBALS_PA = PhysAddr(6 * MIB)
FIRST_FREE_PA = PhysAddr(8 * MIB)

_PERCPU_BYTES = 2 * PAGE_BYTES


def direct_map(pa: int) -> VirtAddr:
    """__va(): where the direct map shows a physical address."""
    return VirtAddr(PAGE_OFFSET + pa)


def page_to_virt(page: VirtAddr) -> VirtAddr:
    """The direct-map address of the frame that a struct page describes."""
    return direct_map(page_to_pfn(page) << PAGE_SHIFT)


def pfn_to_page(pfn: int) -> VirtAddr:
    return VirtAddr(VMEMMAP_START + STRUCT_PAGE_SIZE * pfn)


def page_to_pfn(page: VirtAddr) -> Pfn:
    return Pfn((page - VMEMMAP_START) // STRUCT_PAGE_SIZE)


@dataclass(frozen=True, slots=True)
class PerCpu:
    """One CPU's page of data and page of stack, as direct-map addresses."""

    cpu: int

    @property
    def rcu_nesting(self) -> VirtAddr:
        """The 64-bit word a reader adds 1 to when it enters a read-side section."""
        return direct_map(PERCPU_PA + self.cpu * _PERCPU_BYTES)

    @property
    def idle(self) -> VirtAddr:
        """The 64-bit word that is 1 while the CPU says that it is idle."""
        return VirtAddr(self.rcu_nesting + 8)

    @property
    def switching(self) -> VirtAddr:
        """The 64-bit word that is 1 while the CPU is between two address spaces."""
        return VirtAddr(self.rcu_nesting + 16)

    @property
    def tlb_gen(self) -> VirtAddr:
        """The 64-bit word that says with which generation of page tables its TLB has caught up."""
        return VirtAddr(self.rcu_nesting + 24)

    @property
    def held(self) -> VirtAddr:
        """The list head of the pages that this CPU is to free later; 0 until the first are held."""
        return VirtAddr(self.rcu_nesting + 32)

    @property
    def held_until(self) -> VirtAddr:
        """The 64-bit word: the generation that all CPUs have to catch up with before; 0: nothing is held."""
        return VirtAddr(self.rcu_nesting + 48)

    @property
    def flush_owed(self) -> VirtAddr:
        """The 64-bit word that is 1 if this CPU has changed an entry that may be cached, and not flushed."""
        return VirtAddr(self.rcu_nesting + 56)

    @property
    def buffer(self) -> VirtAddr:
        """Where a guest program may leave what it read: the upper half of the data page, 2 KiB."""
        return direct_map(PERCPU_PA + self.cpu * _PERCPU_BYTES + PAGE_BYTES // 2)

    @property
    def stack(self) -> VirtAddr:
        """The lowest address of the stack page."""
        return direct_map(PERCPU_PA + self.cpu * _PERCPU_BYTES + PAGE_BYTES)


# Globals, as direct-map addresses of 64-bit words.
HUGETLB_OPTIMIZE_VMEMMAP_KEY = direct_map(GLOBALS_PA)
FOLIO_LIST = direct_map(GLOBALS_PA + 0x40)
NON_HVO_FOLIOS = direct_map(GLOBALS_PA + 0x50)
HPAGE_FREELIST = direct_map(GLOBALS_PA + 0x60)
VMEMMAP_OPTIMIZE_ENABLED = direct_map(GLOBALS_PA + 0x68)
FREE_HPAGE_WORK_PENDING = direct_map(GLOBALS_PA + 0x70)
FREE_HPAGE_WORK_RUNNING = direct_map(GLOBALS_PA + 0x78)
TLB_GEN = direct_map(GLOBALS_PA + 0x90)
# zone->free_area: a list head for each order. In a page of its own, for it is written as a whole.
FREE_AREA = direct_map(GLOBALS_PA + 0x2000)
RAW_HWP_NODES = direct_map(GLOBALS_PA + 0x400)


@dataclass(frozen=True, slots=True)
class HstateFields:
    """Where the changing part of a struct hstate lies: 64-bit counts, and two list heads."""

    order: int

    @property
    def _base(self) -> int:
        return direct_map(GLOBALS_PA + 0x1000 + 0x40 * self.order)

    @property
    def nr_huge_pages(self) -> VirtAddr:
        return VirtAddr(self._base)

    @property
    def free_huge_pages(self) -> VirtAddr:
        return VirtAddr(self._base + 0x08)

    @property
    def surplus_huge_pages(self) -> VirtAddr:
        return VirtAddr(self._base + 0x10)

    @property
    def max_huge_pages(self) -> VirtAddr:
        return VirtAddr(self._base + 0x18)

    @property
    def freelist(self) -> VirtAddr:
        """hugepage_freelists[0]"""
        return VirtAddr(self._base + 0x20)

    @property
    def activelist(self) -> VirtAddr:
        """hugepage_activelist"""
        return VirtAddr(self._base + 0x30)
