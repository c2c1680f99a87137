"""Dump what a system has become."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from emu.addr import PAGE_BYTES, PAGE_SHIFT, PageSize, VirtAddr
from hvolab.dump import Dump, FolioRow, Leaf, dump_of, with_mappings
from hvolab.dump.flag_words import flags_text
from hvolab.dump.real.memory import list_entries, peek, signed, word
from hvolab.dump.real.struct_dump import struct_block
from kernel_model.boot import PoolAtBoot, System
from kernel_model.layout import (
    FOLIO_LIST,
    PMD_SIZE,
    SECTION_BYTES,
    VMEMMAP_START,
    HstateFields,
    page_to_pfn,
)
from kernel_model.mm.hstate import HSTATES
from kernel_model.mm.image import HugePage
from kernel_model.mm.page import PGTY_HUGETLB, HugetlbFlag, Offset, field, page_of_lru

KERNEL = "hvolab model of Linux v6.12"


def dump_system(system: System, state: str) -> Dump:
    """The vmemmap page tables, hugetlb folios and counters, and the struct pages of every folio there was.

    A folio that is to come has no row: nobody has allocated it yet. Raises InputError where nothing is
    mapped.
    """
    leaves: list[Leaf] = []
    tables: dict[int, int] = {}
    flags: dict[int, str] = {}
    for va in _regions(system):
        found = peek(system, va)
        if found.size is PageSize.MIB2:
            leaves.append(Leaf(int(va), 2, found.pfn, flags_text(found.leaf, 2)))
            continue
        pmd = found.steps[-2].entry
        tables[va], flags[va] = pmd.pfn, flags_text(pmd, 2)
        for page in range(va, va + PMD_SIZE, PAGE_BYTES):
            pte = peek(system, VirtAddr(page))
            leaves.append(Leaf(page, 1, pte.pa >> PAGE_SHIFT, flags_text(pte.leaf, 1)))
    known = _known_folios(system)
    rows = with_mappings(_rows(system, known), leaves)
    counters = {name: system.machine.count(name) for name in ("nr_memmap_pages", "nr_memmap_boot_pages")}
    ram_mb = system.config.memory_bytes >> 20
    dump = dump_of(KERNEL, state, ram_mb, VMEMMAP_START, leaves, rows, counters, tables, flags)
    blocks = (struct_block(system, huge.pfn, huge.hstate.order) for huge in known)
    return replace(dump, struct_blocks=tuple(blocks))


def _regions(system: System) -> Iterator[VirtAddr]:
    """The 2 MiB of vmemmap that describe memory."""
    for number in range(-(-system.config.memory_bytes // SECTION_BYTES)):
        yield VirtAddr(VMEMMAP_START + number * PMD_SIZE)


def _known_folios(system: System) -> tuple[HugePage, ...]:
    """Those of time zero, and those that the pool has; one that has been split up is not there twice."""
    most = system.config.memory_bytes // PMD_SIZE
    found = {huge.pfn: huge for huge in system.config.huge_pages}
    for h in HSTATES:
        of = HstateFields(h.order)
        for head in (of.freelist, of.activelist):
            for entry in list_entries(system, head, most):
                pfn = page_to_pfn(page_of_lru(entry))
                found[pfn] = HugePage(pfn, h)
    return tuple(found[pfn] for pfn in sorted(found))


def _rows(system: System, known: Iterable[HugePage]) -> Iterator[FolioRow]:
    most = system.config.memory_bytes // PMD_SIZE
    to_come: set[VirtAddr] = set()
    if system.config.pool is PoolAtBoot.TO_COME:
        to_come = {page_of_lru(entry) for entry in list_entries(system, FOLIO_LIST, most)}
    for huge in known:
        row = _folio_row(system, huge)
        if row.page_type >> 24 == PGTY_HUGETLB >> 24 and huge.folio not in to_come:
            yield row


def _folio_row(system: System, huge: HugePage) -> FolioRow:
    def read(offset: Offset, size: int) -> int:
        return word(system, field(huge.folio, offset), size)

    private = read(Offset.PRIVATE, 8)
    return FolioRow(
        int(huge.pfn),
        huge.hstate.order,
        int(huge.folio),
        bool(private & HugetlbFlag.VMEMMAP_OPTIMIZED),
        private,
        read(Offset.FLAGS, 8),
        signed(system, field(huge.folio, Offset.REFCOUNT), 4),
        read(Offset.PAGE_TYPE, 4),
    )
