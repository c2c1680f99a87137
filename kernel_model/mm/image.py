"""The contents of memory at time zero: page tables, struct pages, huge pages.

Written once, before any CPU runs. Struct pages are as a booted kernel leaves them: the values follow those
read out of one (huge pages byte for byte, but for list pointers).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from struct import Struct
from typing import assert_never

from emu.addr import PAGE_BYTES, PAGE_SHIFT, Pfn, PhysAddr, VirtAddr, frame_start
from emu.memory import PhysicalMemory
from emu.paging.pte import Pte, PteBit
from emu.paging.walk import entry_address
from kernel_model.layout import (
    MIB,
    PAGES_PER_SECTION,
    PMD_SIZE,
    PTRS_PER_PTE,
    START_KERNEL_MAP,
    STRUCT_PAGE_SIZE,
    TEXT_PA,
    VMEMMAP_START,
    direct_map,
    pfn_to_page,
)
from kernel_model.mm.hstate import Hstate
from kernel_model.mm.page import (
    FLAGS_BASE,
    NO_MAPCOUNT,
    PGTY_HUGETLB,
    SECTION_INFO,
    TAIL_MAPPING,
    Offset,
    PageFlag,
    lru,
    nth_page,
)
from kernel_model.mm.pgtable import KERNPG_TABLE, PAGE_KERNEL, PAGE_KERNEL_TEXT, PAGE_TABLE

_TABLES_START = PhysAddr(0x1000)
_TABLES_END = PhysAddr(2 * MIB)
_STRUCTS_PER_PAGE = PAGE_BYTES // STRUCT_PAGE_SIZE


class VmemmapOrigin(Enum):
    """Where the 2 MiB blocks that back vmemmap came from."""

    BOOT = "memblock: reserved pages with section info"
    HOTPLUG = "the buddy allocator: order-9 blocks that are not compound"
    SELF_HOSTED = "memmap_on_memory: the hotplugged memory itself"


@dataclass(frozen=True, slots=True)
class HugePage:
    """A folio in the pool: frozen, of type hugetlb. `pfn` is its first frame."""

    pfn: Pfn
    hstate: Hstate

    @property
    def folio(self) -> VirtAddr:
        """Its head struct page."""
        return pfn_to_page(self.pfn)


def struct_page(
    fields: Mapping[Offset, int], *, page_type: int = NO_MAPCOUNT, refcount: int = 0, flags: int = FLAGS_BASE
) -> bytes:
    """The 64 bytes of a struct page; what is not named is 0, or what an unused page has."""
    image = bytearray(STRUCT_PAGE_SIZE)
    image[Offset.FLAGS : Offset.FLAGS + 8] = flags.to_bytes(8, "little")
    image[Offset.PAGE_TYPE : Offset.PAGE_TYPE + 4] = page_type.to_bytes(4, "little")
    image[Offset.REFCOUNT : Offset.REFCOUNT + 4] = refcount.to_bytes(4, "little")
    for offset, value in fields.items():
        image[offset : offset + 8] = value.to_bytes(8, "little")
    return bytes(image)


class Image:
    """Builds the boot image in a memory. Vmemmap must be backed before struct pages are written."""

    def __init__(self, memory: PhysicalMemory) -> None:
        self._memory = memory
        self._next_table = _TABLES_START
        self._blocks: dict[int, Pfn] = {}
        # Where no block is: the frame of each vmemmap page, a shared one only once.
        self._pages: dict[int, Pfn] = {}
        self.root = self._new_table()

    def map_kernel(self) -> None:
        """The direct map of all memory and the kernel text, in 2 MiB leaves."""
        for pa in range(0, self._memory.size, PMD_SIZE):
            self._map_2m(direct_map(pa), Pfn(pa >> PAGE_SHIFT), PAGE_KERNEL)
        self._map_2m(VirtAddr(START_KERNEL_MAP), Pfn(TEXT_PA >> PAGE_SHIFT), PAGE_KERNEL_TEXT)

    def back_vmemmap(self, blocks: Mapping[VirtAddr, Pfn]) -> None:
        """One 2 MiB leaf for each 2 MiB of vmemmap: virtual address to first frame."""
        for va, pfn in blocks.items():
            self._blocks[(va - VMEMMAP_START) // PMD_SIZE] = pfn
            self._map_2m(va, pfn, PAGE_KERNEL)

    def back_by_table(self, va: VirtAddr, pmd: Pte, ptes: Sequence[Pte]) -> None:
        """2 MiB of vmemmap mapped by the page table that `pmd` points to, with these 512 entries."""
        first = (va - VMEMMAP_START) // PAGE_BYTES
        seen = set(self._pages.values())
        for page, pte in enumerate(ptes, start=first):
            if pte.pfn not in seen:
                seen.add(pte.pfn)
                self._pages[page] = pte.pfn
        table = b"".join(pte.to_bytes(8, "little") for pte in ptes)
        self._memory.load_image(frame_start(pmd.pfn), table)
        self._set_pmd(va, pmd)

    def write_struct_pages(self, first: Pfn, pages: bytes | bytearray) -> None:
        """Write consecutive struct pages from that of frame `first` on, which must lie within one section.

        A vmemmap page that shows the frame of an earlier one is left as it is.
        """
        section, number = divmod(first, PAGES_PER_SECTION)
        if section not in self._blocks:
            self._write_by_page(first, pages)
            return
        pa = frame_start(self._blocks[section]) + number * STRUCT_PAGE_SIZE
        self._memory.load_image(PhysAddr(pa), pages)

    def _write_by_page(self, first: int, pages: bytes | bytearray) -> None:
        at = 0
        while at < len(pages):
            page, number = divmod(first + at // STRUCT_PAGE_SIZE, _STRUCTS_PER_PAGE)
            length = min(len(pages) - at, (_STRUCTS_PER_PAGE - number) * STRUCT_PAGE_SIZE)
            if page in self._pages:
                pa = frame_start(self._pages[page]) + number * STRUCT_PAGE_SIZE
                self._memory.load_image(PhysAddr(pa), pages[at : at + length])
            at += length

    def all_unused(self) -> None:
        """Every frame free, or never used: reference count 0, no type, no flags."""
        section = struct_page({}) * PAGES_PER_SECTION
        tables = {page * _STRUCTS_PER_PAGE // PAGES_PER_SECTION for page in self._pages}
        for number in (*self._blocks, *tables):
            self.write_struct_pages(Pfn(number * PAGES_PER_SECTION), section)

    def reserved(self, first: int, frames: int) -> None:
        """Frames of the kernel image and its like: PG_reserved, reference count 1."""
        page = struct_page({}, refcount=1, flags=FLAGS_BASE | PageFlag.RESERVED)
        for start, count in _by_section(first, frames):
            self.write_struct_pages(start, page * count)

    def allocated(self, frame: Pfn) -> None:
        """A page out of the allocator, for vmemmap or a page table: reference count 1."""
        self.write_struct_pages(frame, struct_page({}, refcount=1))

    def boot_vmemmap_page(self, frame: Pfn) -> None:
        """One page of a block that memblock gave for vmemmap."""
        self.write_struct_pages(frame, _boot_vmemmap_page())

    def vmemmap_block(self, first: Pfn, origin: VmemmapOrigin) -> None:
        """The struct pages of 512 frames that back vmemmap."""
        match origin:
            case VmemmapOrigin.BOOT:
                pages = _boot_vmemmap_page() * PTRS_PER_PTE
            case VmemmapOrigin.HOTPLUG:
                # alloc_pages() without __GFP_COMP: only the first page of the block is counted.
                pages = struct_page({}, refcount=1) + struct_page({}) * (PTRS_PER_PTE - 1)
            case VmemmapOrigin.SELF_HOSTED:
                page = struct_page({}, refcount=1, flags=FLAGS_BASE | PageFlag.VMEMMAP_SELF_HOSTED)
                pages = page * PTRS_PER_PTE
            case _:
                assert_never(origin)
        for start, count in _by_section(first, PTRS_PER_PTE):
            skipped = start - first
            self.write_struct_pages(start, pages[skipped * 64 : (skipped + count) * 64])

    def huge_page(self, huge: HugePage, lru_next: int, lru_prev: int, count: int, private: int = 0) -> None:
        """The first `count` struct pages of a hugetlb folio, its head linked as told, with that `private`."""
        for start, number in _by_section(huge.pfn, count):
            pages = tail_struct_pages(huge.folio, huge.hstate.order, start - huge.pfn, number)
            self.write_struct_pages(start, pages)
        head = struct_page(
            {Offset.LRU_NEXT: lru_next, Offset.LRU_PREV: lru_prev, Offset.PRIVATE: private},
            page_type=PGTY_HUGETLB,
            flags=FLAGS_BASE | PageFlag.HEAD,
        )
        self.write_struct_pages(huge.pfn, head)

    def empty_lists(self, heads: Iterable[VirtAddr]) -> None:
        for head in heads:
            self.write_global(head, head)
            self.write_global(VirtAddr(head + 8), head)

    def write_global(self, va: VirtAddr, value: int) -> None:
        """A 64-bit word of kernel data, by its direct-map address."""
        self.write_globals(va, value.to_bytes(8, "little"))

    def write_globals(self, va: VirtAddr, data: bytes) -> None:
        """Kernel data, by its direct-map address."""
        self._memory.load_image(PhysAddr(va - direct_map(0)), data)

    def _new_table(self) -> Pfn:
        if self._next_table >= _TABLES_END:
            raise MemoryError("no room for boot-time page tables")
        table = Pfn(self._next_table >> PAGE_SHIFT)
        self._next_table = PhysAddr(self._next_table + PAGE_BYTES)
        return table

    def _map_2m(self, va: VirtAddr, pfn: Pfn, pgprot: PteBit) -> None:
        self._set_pmd(va, Pte.make(pfn, pgprot | PteBit.PAGE_SIZE))

    def _set_pmd(self, va: VirtAddr, pmd: Pte) -> None:
        table = self.root
        for level in (4, 3):
            pa = entry_address(table, va, level)
            entry = Pte(self._memory.read_word(pa))
            if not entry.present:
                entry = Pte.make(self._new_table(), PAGE_TABLE if va >= VMEMMAP_START else KERNPG_TABLE)
                self._memory.write_word(pa, entry)
            table = entry.pfn
        self._memory.write_word(entry_address(table, va, 2), pmd)


def _boot_vmemmap_page() -> bytes:
    """register_page_bootmem_memmap(): one reference more than a reserved page has."""
    flags = FLAGS_BASE | PageFlag.RESERVED | PageFlag.PRIVATE
    return struct_page({Offset.INDEX: SECTION_INFO}, refcount=2, flags=flags)


def tail_struct_pages(folio: VirtAddr, order: int, first: int, count: int) -> bytearray:
    """`count` struct pages of a folio from number `first` on, as tails are after prep_compound_page()."""
    compound_head = {Offset.COMPOUND_HEAD: folio + 1}
    # Words as they lie in memory, so that 262,144 of them are not written one by one.
    words = array("Q", struct_page({**compound_head, Offset.MAPPING: TAIL_MAPPING}) * count)
    own = lru(nth_page(folio, first))
    links = range(own, own + count * STRUCT_PAGE_SIZE, STRUCT_PAGE_SIZE)
    words[Offset.LRU_PREV // 8 :: STRUCT_PAGE_SIZE // 8] = array("Q", Struct(f"<{count}Q").pack(*links))
    pages = bytearray(words.tobytes())
    # folio->_flags_1 holds the order, the words behind it the mapcounts and the size.
    sizes = {Offset.LRU_PREV: (1 << 64) - 1, Offset.INDEX: 1 << order}
    special = {
        1: struct_page({**compound_head, **sizes}, flags=FLAGS_BASE | order),
        2: struct_page(compound_head),
    }
    for index in special.keys() & range(first, first + count):
        at = (index - first) * STRUCT_PAGE_SIZE
        pages[at : at + STRUCT_PAGE_SIZE] = special[index]
    return pages


def _by_section(first: int, frames: int) -> Iterable[tuple[Pfn, int]]:
    """Cut a range of frames at section boundaries: (first frame, number of frames)."""
    end = first + frames
    while first < end:
        until = min(end, (first // PAGES_PER_SECTION + 1) * PAGES_PER_SECTION)
        yield Pfn(first), until - first
        first = until
