"""Page-table entries as a running v6.12 has them, and where they lie."""

from __future__ import annotations

import pytest

from emu.addr import Pfn, PhysAddr, VirtAddr
from emu.cpu.ops import Load, Store
from emu.paging.pte import Pte
from kernel_model.layout import direct_map
from kernel_model.mm.pgtable import (
    KERNPG_TABLE,
    PAGE_KERNEL,
    PAGE_KERNEL_RO,
    PAGE_KERNEL_TEXT,
    PAGE_TABLE,
    entry_get,
    mk_pte,
    page_table,
    pmd_leaf,
    pmd_populate_kernel,
    pte_offset_kernel,
    set_pte_at,
    table_start,
)

AT = PhysAddr(0x5008)


@pytest.mark.parametrize(
    ("bits", "value"),
    [
        # arch/x86/include/asm/pgtable_types.h, __PAGE_KERNEL and its like, A and D set.
        (PAGE_KERNEL, 0x8000_0000_0000_0163),
        (PAGE_KERNEL_RO, 0x8000_0000_0000_0121),
        (PAGE_KERNEL_TEXT, 0x121),
        (KERNPG_TABLE, 0x63),
        (PAGE_TABLE, 0x67),
    ],
)
def test_protections_are_those_words(bits: int, value: int) -> None:
    assert int(bits) == value
    assert int(mk_pte(0x7F00, bits)) == value | 0x7F00 << 12  # type: ignore[arg-type]


def test_an_entry_is_read_and_written_through_the_direct_map_in_one_access() -> None:
    read = entry_get(AT)
    assert read.send(None) == Load(direct_map(AT))
    with pytest.raises(StopIteration) as ended:
        read.send(0x7F00163)
    assert ended.value.value == Pte(0x7F00163)
    assert set_pte_at(AT, Pte(5)).send(None) == Store(direct_map(AT), Pte(5))
    populated = pmd_populate_kernel(AT, Pfn(0x700)).send(None)
    assert populated == Store(direct_map(AT), mk_pte(0x700, PAGE_TABLE))


@pytest.mark.parametrize(("entry", "leaf"), [(0x0, False), (0x80, False), (0x63, False), (0xE3, True)])
def test_a_pmd_leaf_is_present_and_large(entry: int, leaf: bool) -> None:
    assert pmd_leaf(Pte(entry)) is leaf


def test_a_page_table_maps_512_frames_in_a_row() -> None:
    table = page_table(0xA00, PAGE_KERNEL)
    entries = [int.from_bytes(table[at : at + 8], "little") for at in range(0, 4096, 8)]
    assert entries == [(0xA00 + index) << 12 | PAGE_KERNEL for index in range(512)]


def test_where_the_pte_of_an_address_lies() -> None:
    assert pte_offset_kernel(Pfn(0x700), VirtAddr(0xFFFF_EA00_0010_1028)) == 0x70_0000 + 8 * 0x101
    assert table_start(Pfn(0x700)) == direct_map(0x70_0000)
