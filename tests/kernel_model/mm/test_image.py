"""Time zero: how memory is laid out, what the page tables map, what each kind of struct page holds."""

from __future__ import annotations

from typing import Any

import pytest
from hvo_lab import (
    DIRECT_MAP,
    FOLIO_LIST,
    KEY,
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
    huge_2m,
    lab_2m,
    lab_of_order,
    pages_of,
    pfn_of,
)

from emu.addr import Pfn, VirtAddr
from kernel_model.boot import BootConfig, LayoutError, blocks_at_the_top, boot
from kernel_model.layout import FREE_AREA, PerCpu, direct_map, page_to_pfn, page_to_virt, pfn_to_page
from kernel_model.mm.hstate import HSTATE_1G, HSTATE_2M, Hstate
from kernel_model.mm.image import HugePage, VmemmapOrigin
from kernel_model.mm.page import lru, nth_page, page_of_lru

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


@pytest.mark.parametrize(
    ("ram", "sections"), [(16 * MIB, 1), (SECTION, 1), (SECTION + 2 * MIB, 2), (1024 * MIB, 8)]
)
def test_each_begun_section_of_memory_has_2_mib_of_vmemmap_at_the_top(ram: int, sections: int) -> None:
    lab = Lab(BootConfig(ram, 1, ()))
    first = ram // PAGE - 512 * sections
    expected = {VMEMMAP + n * REGION: Leaf(2, first + 512 * n, LARGE) for n in range(sections)}
    assert lab.initial == expected
    assert blocks_at_the_top(ram) == {va: leaf.pfn for va, leaf in expected.items()}
    assert lab.counters() == {"nr_memmap_boot_pages": 512 * sections, "nr_memmap_pages": 0}
    lab.check_conservation()


def test_blocks_of_vmemmap_can_be_chosen() -> None:
    blocks = {VirtAddr(VMEMMAP): Pfn(0x2000), VirtAddr(VMEMMAP + REGION): Pfn(0x9000)}
    lab = Lab(BootConfig(2 * SECTION, 1, (huge_2m(),), vmemmap_blocks=blocks))
    assert {va: leaf.pfn for va, leaf in lab.initial.items()} == blocks
    assert not any(lab.kernel.pages.is_free(pfn) for pfn in (*range(0x2000, 0x2200), *range(0x9000, 0x9200)))
    assert lab.kernel.pages.is_free(0xFFFF)
    lab.check_conservation()


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


def test_per_cpu_pages_of_256_cpus_fit_before_the_globals() -> None:
    first, last = PerCpu(0), PerCpu(255)
    assert first.rcu_nesting == DIRECT_MAP + 4 * MIB
    assert (first.buffer, first.stack) == (first.rcu_nesting + 2048, first.rcu_nesting + PAGE)
    assert last.stack + PAGE == KEY
    lab = Lab(BootConfig(SECTION, 256, ()))
    assert {lab.word_at(PerCpu(cpu).rcu_nesting) for cpu in range(256)} == {0}


def test_addresses_of_struct_pages_and_frames() -> None:
    assert pfn_to_page(0x4000) == VMEMMAP + 0x10_0000 == huge_2m(0x4000).folio
    assert page_to_pfn(pfn_to_page(0x4321)) == 0x4321
    assert page_to_virt(pfn_to_page(0x4321)) == direct_map(0x4321000) == DIRECT_MAP + 0x4321000
    page = pfn_to_page(0x4000)
    assert page_of_lru(lru(page)) == page
    assert nth_page(page, 3) == page + 192
    assert len(pages_of(huge_2m())) == 8


def test_boot_is_the_same_every_time() -> None:
    one, other = lab_2m(0x4000, 0x4200), lab_2m(0x4000, 0x4200)
    size = one.machine.memory.size
    assert one.machine.memory.read(0, size) == other.machine.memory.read(0, size)  # type: ignore[arg-type]


def test_time_zero_is_moment_zero() -> None:
    lab = lab_2m()
    assert lab.machine.memory.journal.now == 0
    assert lab.machine.enabled() == []
    assert lab.machine.steps == 0


# --- what cannot be laid out ------------------------------------------------------------------------------


def refused(ram: int, *huge: HugePage, **options: Any) -> str:
    with pytest.raises(LayoutError) as error:
        boot(BootConfig(ram, 2, huge, **options))
    return str(error.value)


def blocks(*pfns: int) -> dict[VirtAddr, Pfn]:
    return {VirtAddr(VMEMMAP + n * REGION): Pfn(pfn) for n, pfn in enumerate(pfns)}


def test_a_huge_page_that_is_not_aligned() -> None:
    assert refused(SECTION, huge_2m(0x4001)) == "huge page 0x4001 is not aligned to its 2M"
    assert (
        refused(2176 * MIB, HugePage(Pfn(0x20000), HSTATE_1G)) == "huge page 0x20000 is not aligned to its 1G"
    )


def test_a_huge_page_beyond_the_end_of_memory() -> None:
    assert refused(SECTION, huge_2m(0x8000)) == "huge page 0x8000 ends at frame 0x8200, memory at 0x8000"
    assert "ends at frame" in refused(SECTION, HugePage(Pfn(0), HSTATE_1G))


def test_a_huge_page_over_the_kernel() -> None:
    assert refused(SECTION, huge_2m(0x600)) == "huge page 0x600 overlaps the kernel"


def test_a_huge_page_over_the_blocks_behind_vmemmap() -> None:
    message = refused(SECTION, huge_2m(0x7E00))
    assert message in (
        "huge page 0x7e00 overlaps vmemmap block 0xffffea0000000000",
        "vmemmap block 0xffffea0000000000 overlaps huge page 0x7e00",
    )


def test_two_huge_pages_at_one_place() -> None:
    assert refused(SECTION, huge_2m(0x4000), huge_2m(0x4000)) == "huge page 0x4000 overlaps huge page 0x4000"
    large = HugePage(Pfn(0x4000), Hstate("64M", 14))
    assert refused(2 * SECTION, large, huge_2m(0x4400)) == "huge page 0x4400 overlaps huge page 0x4000"


def test_a_section_without_a_block_behind_its_vmemmap() -> None:
    message = refused(2 * SECTION, vmemmap_blocks=blocks(0x2000))
    assert message == "no block backs the vmemmap of section 1"


def test_a_block_that_is_not_aligned() -> None:
    message = refused(SECTION, vmemmap_blocks=blocks(0x2001))
    assert message == "vmemmap block at frame 0x2001 is not aligned to 2 MiB"


def test_a_block_beyond_the_end_of_memory() -> None:
    message = refused(SECTION, vmemmap_blocks=blocks(0x8000))
    assert message == "vmemmap block 0xffffea0000000000 ends at frame 0x8200, memory at 0x8000"


def test_one_block_for_two_sections() -> None:
    message = refused(2 * SECTION, vmemmap_blocks=blocks(0x2000, 0x2000))
    assert "overlaps vmemmap block" in message


@pytest.mark.parametrize("ram", [0, 8 * MIB, 17 * MIB, 32770 * MIB])
def test_a_size_of_memory_that_no_machine_has(ram: int) -> None:
    with pytest.raises(ValueError, match="memory size"):
        boot(BootConfig(ram, 1, ()))


@pytest.mark.parametrize("cpus", [0, -1, 257])
def test_a_number_of_cpus_that_no_machine_has(cpus: int) -> None:
    with pytest.raises(ValueError, match="CPUs"):
        boot(BootConfig(SECTION, cpus, ()))


def test_the_names_of_the_two_sizes_linux_has() -> None:
    assert (HSTATE_2M.name, HSTATE_2M.pages_per_huge_page) == ("2M", 512)
    assert (HSTATE_1G.name, HSTATE_1G.pages_per_huge_page) == ("1G", 262144)
