"""A machine whose kernel has done something before time zero."""

from __future__ import annotations

import pytest
from hvo_lab import PAGE, SECTION, STRUCT, VMEMMAP, Lab

from emu.addr import Pfn, VirtAddr
from emu.paging.pte import Pte
from kernel_model.boot import BootConfig, LayoutError
from kernel_model.mm.hstate import HSTATE_2M
from kernel_model.mm.image import HugePage
from kernel_model.mm.inherited import Inherited, SplitPmd
from kernel_model.mm.pgtable import PAGE_KERNEL, PAGE_KERNEL_RO, PAGE_TABLE

TABLE, HEAD = Pfn(0x6001), Pfn(0x6002)
BLOCK = 0x7E00
FOLIO = HugePage(Pfn(0x4000), HSTATE_2M)
FIRST = 0x4000 * STRUCT // PAGE  # the page of vmemmap with the folio's head


def split(ptes: dict[int, Pte]) -> SplitPmd:
    plain = {page: Pte.make(Pfn(BLOCK + page), PAGE_KERNEL) for page in range(512)}
    return SplitPmd(Pte.make(TABLE, PAGE_TABLE), tuple((plain | ptes).values()))


def optimized() -> Inherited:
    """One folio, its eight pages on one frame."""
    flags = [PAGE_KERNEL, *[PAGE_KERNEL_RO] * 7]
    tails = {FIRST + n: Pte.make(HEAD, flags[n]) for n in range(8)}
    frames = frozenset(Pfn(BLOCK + page) for page in range(512) if not FIRST <= page < FIRST + 8)
    return Inherited({VirtAddr(VMEMMAP): split(tails)}, frames, (FOLIO,), frozenset({FOLIO.pfn}), {})


def lab(inherited: Inherited) -> Lab:
    return Lab(BootConfig(SECTION, 1, (FOLIO,), inherited=inherited))


def test_the_counters_tell_what_came_from_where() -> None:
    counts = lab(optimized()).system.machine
    assert (counts.count("nr_memmap_boot_pages"), counts.count("nr_memmap_pages")) == (504, 1)


def test_counters_that_are_known_are_not_counted() -> None:
    base = optimized()
    known = Inherited(base.tables, base.boot_frames, base.pooled, base.optimized, {"nr_memmap_pages": 77})
    counts = lab(known).system.machine
    assert (counts.count("nr_memmap_boot_pages"), counts.count("nr_memmap_pages")) == (504, 77)


def test_frames_that_are_mapped_are_taken_and_those_given_back_are_free() -> None:
    pages = lab(optimized()).system.kernel.pages
    assert not any(pages.is_free(pfn) for pfn in (TABLE, HEAD, BLOCK, BLOCK + FIRST - 1, BLOCK + FIRST + 8))
    assert all(pages.is_free(BLOCK + FIRST + n) for n in range(8))


def test_the_folio_can_be_restored_and_given_back() -> None:
    found = lab(optimized())
    pool = found.system.kernel.pool
    found.call(lambda: pool.set_max_huge_pages(HSTATE_2M, 0))
    assert found.system.kernel.pages.is_free(FOLIO.pfn)
    assert found.system.machine.count("nr_memmap_pages") == 8


@pytest.mark.parametrize(
    ("pfn", "message"),
    [
        (0x4000, "huge page 0x4000 overlaps page table 0x4000"),
        (0x100, "page table 0x100 overlaps the kernel"),
        (0x8000, "page table 0x8000 ends at frame 0x8001, memory at 0x8000"),
        (HEAD, f"vmemmap page {HEAD:#x} overlaps page table {HEAD:#x}"),
    ],
)
def test_a_page_table_that_is_where_something_else_is(pfn: int, message: str) -> None:
    base = optimized()
    (table,) = base.tables.values()
    wrong = {VirtAddr(VMEMMAP): SplitPmd(Pte.make(Pfn(pfn), PAGE_TABLE), table.ptes)}
    with pytest.raises(LayoutError) as caught:
        lab(Inherited(wrong, base.boot_frames, base.pooled, base.optimized, {}))
    assert str(caught.value) == message


def test_a_system_goes_back_to_what_it_inherited() -> None:
    found = lab(optimized())
    system = found.system
    before = system.machine.memory.read(found.system.machine.cpus[0].mmu.peek(FOLIO.folio).pa, STRUCT)  # type: ignore[union-attr]
    found.call(lambda: system.kernel.pool.set_max_huge_pages(HSTATE_2M, 0))
    system.reset()
    assert system.machine.memory.read(system.machine.cpus[0].mmu.peek(FOLIO.folio).pa, STRUCT) == before  # type: ignore[union-attr]
    assert not system.kernel.pages.is_free(FOLIO.pfn)
    assert system.machine.count("nr_memmap_pages") == 1
