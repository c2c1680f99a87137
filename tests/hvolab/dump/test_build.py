"""What follows from leaves: PMD rows, how folios are mapped, the summary, as Linux had them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from dump_files import real_document, rebuilt
from dumps import BASE, LARGE, PAGE, REAL_DUMPS, REGION, RO, RW, real

from hvolab.checked.error import InputError
from hvolab.dump import (
    FolioRow,
    Leaf,
    Pmd,
    dump_of,
    summary_of,
    with_mappings,
)


@pytest.mark.parametrize("name", ["main0_before", "main1_alloc64"])
def test_pmd_and_folio_rows_follow_from_the_leaves_as_in_linux(name: str) -> None:
    assert rebuilt(real(name)) == real(name)


@pytest.mark.parametrize("name", REAL_DUMPS)
def test_the_summary_follows_from_the_rows_as_in_linux(name: str) -> None:
    theirs = real_document(name)["summary"]
    ours = summary_of(real(name))
    assert ours == {key: theirs[key] for key in ours}


def test_a_frame_mapped_in_two_regions_is_one_distinct_frame() -> None:
    leaves = [
        Leaf(BASE, 2, 0x200, LARGE),
        Leaf(BASE + REGION, 1, 0x205, RW),
        Leaf(BASE + REGION + PAGE, 1, 7, RW),
    ]
    dump = dump_of("k", "s", 256, BASE, leaves, (), {}, {BASE + REGION: 9})
    assert summary_of(dump)["distinct_vmemmap_frames"] == 513
    assert summary_of(dump)["vmemmap_pages"] == 514


def test_vmemmap_without_leaves_is_an_absent_row_and_an_empty_table_a_split_one() -> None:
    dump = dump_of("k", "s", 300, BASE, (), (), {}, {BASE + REGION: 9}, {BASE + REGION: "P W A"})
    assert dump.leaves == ()
    assert dump.pmds == (
        Pmd(BASE, "absent", 0, "", "0x0-0x8000000", 0),
        Pmd(BASE + REGION, "split", 9, "P W A", "0x8000000-0x10000000", 0, {}, 0, 0),
        Pmd(BASE + 2 * REGION, "absent", 0, "", "0x10000000-0x18000000", 0),
    )


def test_leaves_past_the_end_of_ram_get_a_row() -> None:
    dump = dump_of("k", "s", 128, BASE, [Leaf(BASE + 3 * REGION, 2, 0x200, LARGE)], (), {}, {})
    assert [(pmd.va, pmd.kind) for pmd in dump.pmds] == [(BASE, "absent"), (BASE + 3 * REGION, "2M leaf")]


@pytest.mark.parametrize(
    ("leaves", "tables", "message"),
    [
        (
            [Leaf(BASE, 1, 5, RW)],
            {},
            "va 0xffffea0000000000: 4 KiB leaves, but no page-table page is given for them",
        ),
        (
            [Leaf(BASE, 2, 0x200, LARGE)],
            {BASE: 9},
            "va 0xffffea0000000000: both a 2 MiB leaf and a page table",
        ),
        (
            [Leaf(BASE, 2, 0x200, LARGE), Leaf(BASE + PAGE, 1, 5, RW)],
            {BASE: 9},
            "va 0xffffea0000000000: a 2 MiB leaf overlaps other leaves",
        ),
        ([], {BASE + PAGE: 9}, "page table at va 0xffffea0000001000: not aligned to 2097152 bytes"),
    ],
)
def test_leaves_and_tables_that_contradict_each_other_make_no_dump(
    leaves: list[Leaf], tables: dict[int, int], message: str
) -> None:
    with pytest.raises(InputError) as error:
        dump_of("k", "s", 128, BASE, leaves, (), {}, tables)
    assert str(error.value) == message


def test_mappings_of_a_folio_whose_tails_are_not_all_mapped() -> None:
    folio = FolioRow(0x200, 9, BASE + 0x8000, True, 0x10, 0x40, 0, 0xF4000000, mapped_by="stale text")
    head, tail, own = (BASE + 0x8000 + n * PAGE for n in (0, 1, 3))
    leaves = [Leaf(head, 1, 70, RW), Leaf(tail, 1, 70, RO), Leaf(own, 1, 71, RW)]
    bare = replace(folio, mapped_by=None)
    assert with_mappings([folio], leaves) == (
        replace(
            bare,
            head_frame=70,
            head_flags=RW,
            tail_ptes=2,
            tail_distinct_frames=2,
            tail_same_as_head=1,
            tail_flags={RO: 1, RW: 1},
        ),
    )
    assert with_mappings([folio], leaves[1:]) == (replace(bare, mapped_by="absent"),)
    assert with_mappings([folio], [Leaf(BASE, 2, 0x200, LARGE)]) == (replace(bare, mapped_by="PMD leaf"),)


def test_the_summary_names_how_folios_are_mapped() -> None:
    folio = FolioRow(0x200, 9, BASE + 0x8000, False, 0, 0x40, 0, 0xF4000000)
    own = replace(folio, pfn=0x400, head_frame=1, tail_ptes=7, tail_same_as_head=0)
    gone = replace(folio, pfn=0x600, mapped_by="absent")
    dump = dump_of("k", "s", 128, BASE, (), [folio, own, gone], {}, {})
    assert summary_of(dump)["maps"] == {"absent": 1, "other": 2}
