"""What the real dumps say, and which documents are refused how."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from dump_files import changed, rebuilt, refusal_of, small_document
from dumps import BASE, LARGE, LINUX_6_12, PAGE, REGION, RO, RW, real

from hvolab.checked.error import InputError
from hvolab.dump import (
    FLAG_WORDS,
    FolioRow,
    Leaf,
    Pmd,
    read_dump,
)

KNOWN = " ".join(FLAG_WORDS)


def test_before_allocation_linux_maps_the_vmemmap_of_1_gib_with_eight_large_leaves() -> None:
    dump = real("main0_before")
    assert dump.state == "main0_before"
    assert dump.kernel.startswith("Linux version 6.12.95+deb12-amd64 ")
    assert (dump.ram_mb, dump.vmemmap_base) == (1024, BASE)
    assert "hugetlb_free_vmemmap=on" in dump.cmdline
    assert dump.leaves == tuple(Leaf(BASE + n * REGION, 2, 0x3EE00 + n * 512, LARGE) for n in range(8))
    assert [pmd.kind for pmd in dump.pmds] == ["2M leaf"] * 8
    assert dump.folios == ()
    assert dump.counters == {"nr_memmap_pages": 0, "nr_memmap_boot_pages": 4096}


def test_after_allocation_of_64_folios() -> None:
    dump = real("main1_alloc64")
    assert dump.leaves is not None
    assert len(dump.leaves) == 1541
    assert Counter((leaf.level, leaf.flags) for leaf in dump.leaves) == {
        (2, LARGE): 5,
        (1, RW): 3 * 512 - 64 * 7,
        (1, RO): 64 * 7,
    }
    assert dump.counters == {"nr_memmap_pages": 64, "nr_memmap_boot_pages": 4096 - 64 * 8}
    assert [pmd.kind for pmd in dump.pmds] == ["split", "split", *["2M leaf"] * 5, "split"]
    assert [pmd.hugetlb_folios for pmd in dump.pmds] == [23, 40, 0, 0, 0, 0, 0, 1]
    assert dump.pmds[0] == Pmd(
        va=BASE,
        kind="split",
        pfn=0x5239,
        flags="P W U A D",
        ram="0x0-0x8000000",
        hugetlb_folios=23,
        pte_flags={RW: 512 - 23 * 7, RO: 23 * 7},
        distinct_frames=512 - 23 * 7,
        frames_mapped_8x=23,
    )


def test_every_folio_has_one_writable_head_and_seven_read_only_tails_on_its_frame() -> None:
    dump = real("main1_alloc64")
    assert len(dump.folios) == 64
    for folio in dump.folios:
        assert folio == FolioRow(
            pfn=folio.pfn,
            order=9,
            vmemmap=BASE + folio.pfn * 64,
            optimized=True,
            private=0x18,
            flags=0xFFFFFC0000040,
            refcount=0,
            page_type=0xF4000000,
            mapped_by=None,
            head_frame=folio.head_frame,
            head_flags=RW,
            tail_ptes=7,
            tail_distinct_frames=1,
            tail_same_as_head=7,
            tail_flags={RO: 7},
        )
    assert len({folio.head_frame for folio in dump.folios}) == 64


def test_at_the_entry_of_optimize_folios_the_folios_are_mapped_by_large_leaves() -> None:
    dump = real("exact_optimize0_entry")
    assert dump.leaves is None
    assert dump.counters == {}
    assert [(folio.pfn, folio.optimized, folio.mapped_by) for folio in dump.folios] == [
        (0x3E00, False, "PMD leaf"),
        (0x3E800, False, "PMD leaf"),
    ]
    assert dump.folios[0].head_frame is None
    assert dump.folios[0].tail_flags is None


def test_at_the_return_of_optimize_folios_two_regions_are_split() -> None:
    dump = real("exact_optimize0_return")
    split = [pmd for pmd in dump.pmds if pmd.kind == "split"]
    assert [(pmd.va, pmd.pte_flags, pmd.frames_mapped_8x) for pmd in split] == [
        (BASE, {RW: 505, RO: 7}, 1),
        (BASE + 7 * REGION, {RW: 505, RO: 7}, 1),
    ]
    assert [(folio.optimized, folio.private) for folio in dump.folios] == [(True, 0x10)] * 2


@pytest.mark.parametrize("name", ["exact_structpages_optimize", "kprobe_trace_optimize"])
def test_the_fixtures_that_are_no_dumps_are_said_to_be_none(name: str) -> None:
    path = LINUX_6_12 / f"{name}.json.gz"
    with pytest.raises(InputError) as error:
        read_dump(path)
    assert str(error.value) == f"{path}: not a dump: missing field 'state'"


# --- what is refused ------------------------------------------------------------------------------------


def test_the_small_document_is_a_dump(tmp_path: Path) -> None:
    (tmp_path / "dump.json").write_bytes(json.dumps(small_document()).encode())
    dump = read_dump(tmp_path / "dump.json")
    assert dump.counters == {"nr_memmap_pages": 1}
    assert rebuilt(replace(dump, folios=dump.folios[::-1])) == replace(dump, folios=dump.folios[::-1])


@pytest.mark.parametrize("name", ["kernel", "state", "ram_mb", "vmemmap_base", "pmds", "folios", "columns"])
def test_a_field_of_the_dump_that_is_missing(name: str, tmp_path: Path) -> None:
    assert refusal_of(changed((name,), ...), tmp_path) == f"not a dump: missing field {name!r}"


@pytest.mark.parametrize("row", [("pmds", 0), ("pmds", 1), ("folios", 0), ("folios", 1)])
def test_a_field_of_a_row_that_is_missing(row: tuple[str, int], tmp_path: Path) -> None:
    table, index = row
    names = small_document()[table][index].keys() - {"map", "head_frame"}
    assert names
    for name in names:
        problem = refusal_of(changed((table, index, name), ...), tmp_path)
        assert problem == f"{table}[{index}]: missing field {name!r}"


@pytest.mark.parametrize("name", ["guest", "cmdline", "ptes", "summary"])
def test_a_field_that_may_be_missing(name: str, tmp_path: Path) -> None:
    document = small_document() | {"cmdline": "c", "summary": {}}
    del document[name]
    (tmp_path / "dump.json").write_bytes(json.dumps(document).encode())
    assert read_dump(tmp_path / "dump.json").ram_mb == 256


VA_0 = "va 0xffffea0000000000"


WRONG_VALUES: list[tuple[tuple[str | int, ...], object, str]] = [
    (("kernel",), 6, "kernel: expected a string, found 6"),
    (("cmdline",), None, "cmdline: expected a string, found None"),
    (("ram_mb",), "1024", "ram_mb: expected an integer, found '1024'"),
    (("ram_mb",), True, "ram_mb: expected an integer, found True"),
    (("ram_mb",), 256.0, "ram_mb: expected an integer, found 256.0"),
    (("ram_mb",), 0, "ram_mb: expected an integer from 1 to 4294967296, found 0"),
    (
        ("vmemmap_base",),
        BASE,
        f'vmemmap_base: expected a hex string like "0x1f" of at most 64 bits, found {BASE}',
    ),
    (
        ("vmemmap_base",),
        hex(BASE + PAGE),
        "vmemmap_base: va 0xffffea0000001000 not aligned to 2097152 bytes, as level 2 needs",
    ),
    (("guest",), "## vmstat", "guest: expected an array, found '## vmstat'"),
    (("guest", 1), "nr_memmap_pages many", "guest[1]: expected an integer, found 'many'"),
    (("guest", 1), "nr_memmap_pages", "guest[1]: expected an integer, found ''"),
    (("guest", 1), 3, "guest[1]: expected a string, found 3"),
    (("guest", 2), "nr_memmap_pages 1", "guest[2]: second line for 'nr_memmap_pages'"),
    (("pmds",), {}, "pmds: expected an array, found {}"),
    (("pmds", 0), [], "pmds[0]: expected an object, found []"),
    (
        ("pmds", 0, "kind"),
        "1G leaf",
        "pmds[0].kind: expected one of '2M leaf', 'split', 'absent', found '1G leaf'",
    ),
    (("pmds", 0, "kind"), 2, "pmds[0].kind: expected a string, found 2"),
    (
        ("pmds", 0, "va"),
        hex(BASE + PAGE),
        "pmds[0].va: va 0xffffea0000001000 not aligned to 2097152 bytes, as level 2 needs",
    ),
    (
        ("pmds", 0, "va"),
        hex(BASE - REGION),
        "pmds[0].va: va 0xffffe9ffffe00000 below vmemmap_base 0xffffea0000000000",
    ),
    (("pmds", 1, "va"), hex(BASE), f"pmds[1].va: duplicate {VA_0}"),
    (("pmds", 0, "pfn"), "0x201", "pmds[0].pfn: pfn 0x201 not aligned to 512 frames, as level 2 needs"),
    (
        ("pmds", 1, "pfn"),
        "0x10000000000",
        "pmds[1].pfn: pfn 0x10000000000 out of range, the last is 0xffffffffff",
    ),
    (("pmds", 0, "ram"), "all", "pmds[0].ram: expected a range of bytes like \"0x0-0x8000000\", found 'all'"),
    (
        ("pmds", 0, "hugetlb_folios"),
        -1,
        "pmds[0].hugetlb_folios: expected an integer from 0 to 9223372036854775807, found -1",
    ),
    (("pmds", 1, "pte_flags"), [], "pmds[1].pte_flags: expected an object, found []"),
    (
        ("pmds", 1, "pte_flags"),
        {"P Q": 1},
        "pmds[1].pte_flags: unknown flag word 'Q', known are " + KNOWN,
    ),
    (("pmds", 1, "pte_flags"), {"P": "1"}, "pmds[1].pte_flags.P: expected an integer, found '1'"),
    (("folios", 1, "pfn"), "0x8000", "folios[1].pfn: duplicate folio 0x8000"),
    (("folios", 1, "vmemmap"), hex(BASE + REGION), "folios[1].vmemmap: duplicate va 0xffffea0000200000"),
    (("folios", 0, "vmemmap"), "0x100000000000000", "folios[0].vmemmap: va 0x100000000000000 not canonical"),
    (("folios", 0, "order"), 41, "folios[0].order: expected an integer from 0 to 40, found 41"),
    (
        ("folios", 0, "HPG_vmemmap_optimized"),
        2,
        "folios[0].HPG_vmemmap_optimized: expected an integer from 0 to 1, found 2",
    ),
    (
        ("folios", 0, "HPG_vmemmap_optimized"),
        0,
        "folios[0].HPG_vmemmap_optimized: 0, but bit 4 of 'private' 0x10 says otherwise",
    ),
    (
        ("folios", 0, "private"),
        "10",
        "folios[0].private: expected a hex string like \"0x1f\" of at most 64 bits, found '10'",
    ),
    (
        ("folios", 0, "refcount"),
        1 << 31,
        "folios[0].refcount: expected an integer from -2147483648 to 2147483647, found 2147483648",
    ),
    (
        ("folios", 0, "head_frame"),
        70,
        'folios[0].head_frame: expected a hex string like "0x1f" of at most 64 bits, found 70',
    ),
    (("folios", 1, "map"), [], "folios[1].map: expected a string, found []"),
    (
        ("columns",),
        ["va", "pfn", "level", "flags"],
        "columns: expected the columns va, level, pfn, flags, found ['va', 'pfn', 'level', 'flags']",
    ),
    (("ptes",), None, "ptes: expected an array, found None"),
    (("ptes", 0), "row", "ptes[0]: expected an array, found 'row'"),
    (("ptes", 0), ["0x0", 1], "ptes[0]: expected 4 columns, found ['0x0', 1]"),
    (
        ("ptes", 1, 0),
        "0xffffea0000200001",
        "ptes[1].va: va 0xffffea0000200001 not aligned to 4096 bytes, as level 1 needs",
    ),
    (
        ("ptes", 0, 0),
        "0xffffea0000001000",
        "ptes[0].va: va 0xffffea0000001000 not aligned to 2097152 bytes, as level 2 needs",
    ),
    (("ptes", 1, 0), "0xfeffea0000000000", "ptes[1].va: va 0xfeffea0000000000 not canonical"),
    (("ptes", 1, 0), "0xfea000000000000", "ptes[1].va: va 0xfea000000000000 not canonical"),
    (
        ("ptes", 1, 0),
        "0x1ffffea0000000000",
        "ptes[1].va: expected a hex string like \"0x1f\" of at most 64 bits, found '0x1ffffea0000000000'",
    ),
    (
        ("ptes", 1, 0),
        "0xffffe9fffffff000",
        "ptes[1]: va 0xffffe9fffffff000 below vmemmap_base 0xffffea0000000000",
    ),
    (("ptes", 2, 0), hex(BASE + REGION), "ptes[2]: duplicate va 0xffffea0000200000"),
    (
        ("ptes", 2, 0),
        hex(BASE + PAGE),
        "ptes[2]: va 0xffffea0000001000 lies in the 2 MiB leaf at 0xffffea0000000000",
    ),
    (("ptes", 1, 1), 3, "ptes[1].level: expected an integer from 1 to 2, found 3"),
    (("ptes", 0, 2), "0x1ff", "ptes[0].pfn: pfn 0x1ff not aligned to 512 frames, as level 2 needs"),
    (
        ("ptes", 1, 2),
        "0x10000000000",
        "ptes[1].pfn: pfn 0x10000000000 out of range, the last is 0xffffffffff",
    ),
    (("ptes", 1, 3), "P W X", "ptes[1].flags: unknown flag word 'X', known are " + KNOWN),
    (("ptes", 1, 3), "P  W", "ptes[1].flags: unknown flag word '', known are " + KNOWN),
    (("ptes", 1, 3), "W P", "ptes[1].flags: flag words repeated or out of order in 'W P'"),
    (("ptes", 1, 3), "P P", "ptes[1].flags: flag words repeated or out of order in 'P P'"),
    (("ptes", 1, 3), "W", "ptes[1].flags: 'W' is no leaf of level 1, which has P and not PSE"),
    (("ptes", 1, 3), "P PSE", "ptes[1].flags: 'P PSE' is no leaf of level 1, which has P and not PSE"),
    (("ptes", 0, 3), "P", "ptes[0].flags: 'P' is no leaf of level 2, which has P and PSE"),
    (("kernel",), ["x" * 100], "kernel: expected a string, found ['" + "x" * 58 + "..."),
]


@pytest.mark.parametrize(
    ("path", "value", "problem"), WRONG_VALUES, ids=[problem for *_, problem in WRONG_VALUES]
)
def test_a_field_with_a_wrong_value(
    path: tuple[str | int, ...], value: object, problem: str, tmp_path: Path
) -> None:
    assert refusal_of(changed(path, value), tmp_path) == problem


def test_a_document_that_is_not_an_object(tmp_path: Path) -> None:
    assert refusal_of(b"[]", tmp_path) == "not a dump: expected an object, found []"
