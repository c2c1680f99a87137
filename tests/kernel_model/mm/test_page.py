"""Fields of struct page, read and changed through the vmemmap address."""

from __future__ import annotations

import pytest
from hvo_lab import OPTIMIZED, PAGE, VMEMMAP, Lab, lab_2m

from kernel_model.mm.page import (
    PageReserved,
    PageVmemmapSelfHosted,
    folio_clear_hugetlb_vmemmap_optimized,
    folio_ref_count,
    folio_set_hugetlb_vmemmap_optimized,
    folio_test_hugetlb,
    folio_test_hugetlb_vmemmap_optimized,
    page_to_nid,
)

RESERVED, SELF_HOSTED = 1 << 13, 1 << 10


@pytest.fixture
def lab() -> Lab:
    return lab_2m()


def test_flags_are_told_apart(lab: Lab) -> None:
    page = lab.struct_page(0x3000)
    for bits, reserved, self_hosted in (
        (0, False, False),
        (RESERVED, True, False),
        (SELF_HOSTED, False, True),
    ):
        lab.write_struct(0x3000, page._replace(flags=page.flags | bits))
        assert lab.call(lambda: PageReserved(lab.page(0x3000))) is reserved
        assert lab.call(lambda: PageVmemmapSelfHosted(lab.page(0x3000))) is self_hosted


def test_the_node_is_in_the_upper_bits_of_flags(lab: Lab) -> None:
    page = lab.struct_page(0x3000)
    for node in (0, 1, 5):
        lab.write_struct(0x3000, page._replace(flags=page.flags | node << 52))
        assert lab.call(lambda: page_to_nid(lab.page(0x3000))) == node


def test_a_folio_in_the_pool(lab: Lab) -> None:
    folio = lab.config.huge_pages[0].folio
    assert lab.call(lambda: folio_test_hugetlb(folio)) is True
    assert lab.call(lambda: folio_ref_count(folio)) == 0
    assert lab.call(lambda: folio_test_hugetlb(lab.page(0x3000))) is False


@pytest.mark.parametrize("private", [0, 0x8, 0x28, 0xFFFF_FFFF_FFFF_FFEF])
def test_the_optimized_flag_is_bit_4_of_private_and_touches_no_other(lab: Lab, private: int) -> None:
    folio = lab.config.huge_pages[0].folio
    lab.write(folio + 40, private.to_bytes(8, "little"))
    before = lab.bytes_at(folio, PAGE)
    assert lab.call(lambda: folio_test_hugetlb_vmemmap_optimized(folio)) is False
    lab.call(lambda: folio_set_hugetlb_vmemmap_optimized(folio))
    assert lab.word_at(folio + 40) == private | OPTIMIZED
    assert lab.call(lambda: folio_test_hugetlb_vmemmap_optimized(folio)) is True
    lab.call(lambda: folio_clear_hugetlb_vmemmap_optimized(folio))
    assert lab.bytes_at(folio, PAGE) == before


def test_clearing_a_page_flag_keeps_the_zone_and_last_cpupid_bits(lab: Lab) -> None:
    """An IntFlag's complement has only the bits that are named: as a mask it wipes the rest of the word."""
    boot_page = lab.initial[VMEMMAP].pfn
    lab.call(lambda: lab.kernel.pages.free_bootmem_page(lab.page(boot_page)))
    assert lab.struct_page(boot_page).flags == lab.struct_page(0x3000).flags == 0x000F_FFFF_C000_0000
