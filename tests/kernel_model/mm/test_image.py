"""Time zero: how memory is laid out, what the page tables map, what each kind of struct page holds."""

from __future__ import annotations

import pytest
from hvo_lab import (
    DIRECT_MAP,
    FOLIO_LIST,
    LARGE,
    MIB,
    NON_HVO_FOLIOS,
    PAGE,
    REGION,
    SECTION,
    STRUCT,
    TEXT,
    VMEMMAP,
    Lab,
    Leaf,
    StructPage,
    flags_of,
    lab_2m,
    lab_of_order,
    pfn_of,
)

from kernel_model.boot import BootConfig
from kernel_model.layout import FREE_AREA
from kernel_model.mm.image import VmemmapOrigin

FLAGS = 0x000F_FFFF_C000_0000  # node 0, one zone, last-cpupid all ones: as the real kernel's
UNUSED = StructPage(FLAGS, 0, 0, 0, 0, 0, 0xFFFF_FFFF, 0, 0)
HEAD, RESERVED, PRIVATE, SELF_HOSTED = 1 << 6, 1 << 13, 1 << 14, 1 << 10


# --- page tables ------------------------------------------------------------------------------------------


def leaves_under(lab: Lab, top_index: int) -> dict[int, Leaf]:
    """Every leaf below one entry of the top-level table."""
    found = {}
    sign = 0xFFFF << 48
    top = lab.table(lab.machine.cpus[0].mmu.root)[top_index]
    for third, pud in enumerate(lab.table(pfn_of(top))):
        if not pud & 1:
            continue
        for second, pmd in enumerate(lab.table(pfn_of(pud))):
            if pmd & 1:
                assert pmd & 0x80, "at boot everything is mapped with 2 MiB leaves"
                va = sign | top_index << 39 | third << 30 | second << 21
                found[va] = Leaf(2, pfn_of(pmd), flags_of(pmd))
    return found


@pytest.mark.parametrize("ram", [16 * MIB, SECTION, 1152 * MIB])
def test_the_direct_map_shows_all_memory(ram: int) -> None:
    lab = Lab(BootConfig(ram, 1, ()))
    expected = {DIRECT_MAP + at: Leaf(2, at // PAGE, LARGE) for at in range(0, ram, REGION)}
    assert leaves_under(lab, DIRECT_MAP >> 39 & 511) == expected


def test_the_kernel_text_is_one_executable_leaf_that_nobody_writes() -> None:
    lab = lab_2m()
    assert leaves_under(lab, TEXT >> 39 & 511) == {TEXT: Leaf(2, 2 * MIB // PAGE, "P A G PSE")}


def test_nothing_else_is_mapped() -> None:
    lab = lab_2m()
    top = lab.table(lab.machine.cpus[0].mmu.root)
    used = {DIRECT_MAP >> 39 & 511, VMEMMAP >> 39 & 511, TEXT >> 39 & 511}
    assert {index for index, entry in enumerate(top) if entry} == used
    assert {flags_of(top[index]) for index in used} <= {"P W A D", "P W U A D"}


# --- struct pages -----------------------------------------------------------------------------------------


def test_the_kernels_own_frames_are_reserved() -> None:
    lab = lab_2m()
    kernel = {lab.struct_page(pfn) for pfn in range(8 * MIB // PAGE)}
    assert kernel == {UNUSED._replace(flags=FLAGS | RESERVED, refcount=1)}


def test_free_frames_are_unused() -> None:
    lab = lab_2m()
    free = [pfn for pfn in range(0x8000) if lab.kernel.pages.is_free(pfn)]
    assert len(free) == lab.kernel.pages.free_frames()
    blocks = {pfn for order in range(11) for pfn in listed(lab, order)}
    assert {lab.struct_page(pfn) for pfn in {*free} - blocks} == {UNUSED}


def listed(lab: Lab, order: int) -> list[int]:
    """The free blocks of that order, as memory has them."""
    return [(page - VMEMMAP) // STRUCT for page in lab.linked(FREE_AREA + 16 * order)]


def test_free_blocks_are_linked_by_order_and_say_so() -> None:
    lab = lab_2m()
    # [8 MiB, 64 MiB) before the huge page, then from behind it to the block behind vmemmap.
    assert listed(lab, 10) == [*range(0x800, 0x4000, 0x400), *range(0x4400, 0x7C00, 0x400)]
    assert listed(lab, 9) == [0x4200, 0x7C00]
    assert [listed(lab, order) for order in range(9)] == [[]] * 9
    for order in (9, 10):
        for pfn in listed(lab, order):
            page = lab.struct_page(pfn)
            assert page == UNUSED._replace(
                next=page.next, prev=page.prev, private=order, page_type=0xF000_0000
            )


@pytest.mark.parametrize(
    ("origin", "first", "others"),
    [
        pytest.param(
            VmemmapOrigin.BOOT,
            UNUSED._replace(flags=FLAGS | RESERVED | PRIVATE, index=12, refcount=2),
            UNUSED._replace(flags=FLAGS | RESERVED | PRIVATE, index=12, refcount=2),
            id="boot: reserved, SECTION_INFO, two references",
        ),
        pytest.param(
            VmemmapOrigin.HOTPLUG,
            UNUSED._replace(refcount=1),
            UNUSED,
            id="hotplug: the first page is counted",
        ),
        pytest.param(
            VmemmapOrigin.SELF_HOSTED,
            UNUSED._replace(flags=FLAGS | SELF_HOSTED, refcount=1),
            UNUSED._replace(flags=FLAGS | SELF_HOSTED, refcount=1),
            id="self-hosted: marked",
        ),
    ],
)
def test_the_frames_behind_vmemmap(origin: VmemmapOrigin, first: StructPage, others: StructPage) -> None:
    lab = lab_2m(origin=origin)
    block = lab.initial[VMEMMAP].pfn
    assert lab.struct_page(block) == first
    assert {lab.struct_page(block + n) for n in range(1, 512)} == {others}
    counted = "nr_memmap_boot_pages" if origin is VmemmapOrigin.BOOT else "nr_memmap_pages"
    assert lab.counters()[counted] == sum(lab.counters().values()) == 512


@pytest.mark.parametrize("order", [9, 16])
def test_a_huge_page_is_a_frozen_hugetlb_folio(order: int) -> None:
    lab = lab_of_order(order)
    huge = lab.config.huge_pages[0]
    count = 1 << order
    head, first, second, *rest = (lab.struct_page(huge.pfn + n) for n in range(count))
    links = {"next": FOLIO_LIST, "prev": FOLIO_LIST}
    assert head == UNUSED._replace(flags=FLAGS | HEAD, page_type=0xF400_0000, **links)
    tail = UNUSED._replace(next=huge.folio + 1)
    # struct 1: the order in its flags, mapcounts -1, the number of pages.
    assert first == tail._replace(flags=FLAGS | order, prev=(1 << 64) - 1, index=count)
    assert second == tail
    expected = [
        tail._replace(mapping=0xDEAD_0000_0000_0400, prev=huge.folio + n * STRUCT + 8)
        for n in range(3, count)
    ]
    assert rest == expected
    assert not any(lab.kernel.pages.is_free(huge.pfn + n) for n in (0, 1, count - 1))
    assert lab.struct_page(huge.pfn + count + 1) == UNUSED


def test_huge_pages_are_linked_on_the_folio_list_in_order() -> None:
    lab = lab_2m(0x5000, 0x4200, 0x4800)
    assert lab.linked(FOLIO_LIST) == [lab.page(pfn) for pfn in (0x5000, 0x4200, 0x4800)]
    assert lab.linked(NON_HVO_FOLIOS) == []


def test_without_huge_pages_the_list_is_empty() -> None:
    lab = Lab(BootConfig(SECTION, 1, ()))
    assert lab.linked(FOLIO_LIST) == []
    assert lab.key() == 0
