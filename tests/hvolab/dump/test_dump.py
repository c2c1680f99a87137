"""Dumps: what the real ones say, what goes through a file unchanged, what is refused and how."""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hvolab.checked.error import InputError
from hvolab.dump import (
    COUNTERS,
    FLAG_WORDS,
    Dump,
    FolioRow,
    Leaf,
    Limits,
    Pmd,
    dump_of,
    read_dump,
    summary_of,
    with_mappings,
    write_dump,
)

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "linux-6.12"
REAL_DUMPS = ("main0_before", "main1_alloc64", "exact_optimize0_entry", "exact_optimize0_return")
BASE = 0xFFFFEA0000000000
PAGE = 0x1000
REGION = 0x200000
RW = "P W A D G NX"
RO = "P A G NX"
LARGE = "P W A D G NX PSE"
KNOWN = "P W U PWT PCD A D G s9 s10 s11 s52 s53 s54 s55 s56 s57 s58 pk0 pk1 pk2 pk3 NX PAT PSE"

Json = dict[str, Any]


def real(name: str) -> Dump:
    return read_dump(FIXTURES / f"{name}.json.gz")


def real_document(name: str) -> Json:
    document = json.loads(gzip.decompress((FIXTURES / f"{name}.json.gz").read_bytes()))
    assert isinstance(document, dict)
    return document


# --- what Linux had -------------------------------------------------------------------------------


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
    path = FIXTURES / f"{name}.json.gz"
    with pytest.raises(InputError) as error:
        read_dump(path)
    assert str(error.value) == f"{path}: not a dump: missing field 'state'"


# --- rebuilding what Linux had from its leaves ------------------------------------------------------


def rebuilt(dump: Dump) -> Dump:
    tables = {pmd.va: pmd.pfn for pmd in dump.pmds if pmd.kind == "split"}
    folios = with_mappings(dump.folios, dump.leaves or ())
    leaves = reversed(dump.leaves or ())
    built = dump_of(
        dump.kernel, dump.state, dump.ram_mb, dump.vmemmap_base, leaves, folios, dump.counters, tables
    )
    return replace(built, cmdline=dump.cmdline)


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


# --- through a file and back ------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["dump.json", "dump.json.gz"])
@pytest.mark.parametrize("name", REAL_DUMPS)
def test_real_dumps_survive_being_written(name: str, file: str, tmp_path: Path) -> None:
    write_dump(real(name), tmp_path / file)
    assert read_dump(tmp_path / file) == real(name)


@pytest.mark.parametrize("name", REAL_DUMPS)
def test_a_written_dump_has_the_fields_of_the_real_one_with_their_values(name: str, tmp_path: Path) -> None:
    write_dump(real(name), tmp_path / "dump.json")
    ours, theirs = json.loads((tmp_path / "dump.json").read_text()), real_document(name)
    assert ours.keys() - {"guest", "summary"} <= theirs.keys()
    assert all(part in theirs["guest"] for part in ours["guest"])
    for key in ours.keys() - {"guest", "summary", "pmds", "folios"}:
        assert ours[key] == theirs[key]
    for rows in ("pmds", "folios"):
        for our_row, their_row in zip(ours[rows], theirs[rows], strict=True):
            assert our_row == {key: their_row[key] for key in our_row}


def test_what_decides_between_plain_and_gzip_when_reading_is_the_content(tmp_path: Path) -> None:
    plain = gzip.decompress((FIXTURES / "main0_before.json.gz").read_bytes())
    (tmp_path / "plain.json.gz").write_bytes(plain)
    (tmp_path / "packed.json").write_bytes(gzip.compress(plain, mtime=0))
    assert (
        read_dump(tmp_path / "plain.json.gz")
        == read_dump(str(tmp_path / "packed.json"))
        == real("main0_before")
    )


@pytest.mark.parametrize("file", ["dump.json", "dump.json.gz"])
def test_equal_dumps_give_the_same_bytes(file: str, tmp_path: Path) -> None:
    one, other = tmp_path / "a" / file, tmp_path / "b" / file
    for path in (one, other):
        path.parent.mkdir()
    dump = real("main1_alloc64")
    pmds = tuple(
        replace(pmd, pte_flags=pmd.pte_flags and dict(reversed(pmd.pte_flags.items()))) for pmd in dump.pmds
    )
    turned = replace(dump, pmds=pmds, counters=dict(reversed(dump.counters.items())))
    write_dump(dump, one)
    write_dump(turned, other)
    assert one.read_bytes() == other.read_bytes()


def flags_texts(level: int) -> st.SearchStrategy[str]:
    free = [word for word in FLAG_WORDS if word not in ("P", "PSE")]
    fixed = {"P", "PSE"} if level == 2 else {"P"}
    return st.sets(st.sampled_from(free)).map(
        lambda words: " ".join(word for word in FLAG_WORDS if word in words | fixed)
    )


def large_leaf(va: int) -> st.SearchStrategy[list[Leaf]]:
    pfns = st.integers(0, (1 << 31) - 1).map(lambda block: block * 512)
    return st.builds(lambda pfn, flags: [Leaf(va, 2, pfn, flags)], pfns, flags_texts(2))


def small_leaves(va: int) -> st.SearchStrategy[list[Leaf]]:
    entries = st.dictionaries(
        st.integers(0, 511), st.tuples(st.integers(0, (1 << 40) - 1), flags_texts(1)), max_size=6
    )
    return entries.map(lambda found: [Leaf(va + index * PAGE, 1, *entry) for index, entry in found.items()])


counts = st.integers(0, 600)
words = st.integers(0, (1 << 64) - 1)


@st.composite
def folio_rows(draw: st.DrawFn, pfn: int) -> FolioRow:
    private = draw(words)
    row = FolioRow(
        pfn=pfn,
        order=draw(st.integers(0, 18)),
        vmemmap=BASE + pfn * 64,
        optimized=bool(private & 16),
        private=private,
        flags=draw(words),
        refcount=draw(st.integers(-(1 << 31), (1 << 31) - 1)),
        page_type=draw(words),
        mapped_by=draw(st.none() | st.text()),
    )
    if draw(st.booleans()):
        return row
    return replace(
        row,
        head_frame=draw(st.integers(0, (1 << 40) - 1)),
        head_flags=draw(flags_texts(1)),
        tail_ptes=draw(counts),
        tail_distinct_frames=draw(counts),
        tail_same_as_head=draw(counts),
        tail_flags=draw(st.dictionaries(flags_texts(1), counts, max_size=3)),
    )


@st.composite
def dumps(draw: st.DrawFn) -> Dump:
    regions = [BASE + number * REGION for number in range(3)]
    found = {va: draw(st.just([]) | large_leaf(va) | small_leaves(va)) for va in regions}
    tables = {
        va: draw(st.integers(0, 1 << 30))
        for va, leaves in found.items()
        if not any(x.level == 2 for x in leaves)
    }
    pfns = draw(st.sets(st.integers(0, 3 << 15), max_size=3))
    dump = dump_of(
        draw(st.text()),
        draw(st.text()),
        draw(st.integers(1, 1 << 12)) % 512 + 1,
        BASE,
        [leaf for leaves in found.values() for leaf in leaves],
        [draw(folio_rows(pfn)) for pfn in sorted(pfns)],
        draw(st.dictionaries(st.sampled_from(COUNTERS), st.integers(0, (1 << 63) - 1))),
        tables,
    )
    cut = replace(dump, cmdline=draw(st.text()))
    return draw(st.sampled_from([cut, replace(cut, leaves=None)]))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(dump=dumps(), file=st.sampled_from(["dump.json", "dump.json.gz"]))
def test_any_dump_survives_being_written(dump: Dump, file: str, tmp_path: Path) -> None:
    write_dump(dump, tmp_path / file)
    assert read_dump(tmp_path / file) == dump


# --- what write_dump refuses ------------------------------------------------------------------------


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "no such directory" / "dump.json"
    with pytest.raises(InputError) as error:
        write_dump(real("main0_before"), path)
    assert str(error.value) == f"{path}: cannot write: No such file or directory"


def test_a_name_that_cannot_be_written_is_one_line() -> None:
    with pytest.raises(InputError) as error:
        write_dump(real("main0_before"), "a\0b")
    assert str(error.value) == "'a\\x00b': cannot write: embedded null byte"


def test_a_dump_the_reader_would_refuse_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "dump.json"
    dump = real("main0_before")
    assert dump.leaves is not None
    with pytest.raises(InputError) as error:
        write_dump(replace(dump, leaves=(*dump.leaves, dump.leaves[0])), path)
    assert str(error.value) == f"{path}: ptes[8]: duplicate va 0xffffea0000000000"
    assert not path.exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda dump: replace(dump, counters={"nr_free_pages": 3}),
        lambda dump: replace(dump, pmds=(replace(dump.pmds[0], distinct_frames=3), *dump.pmds[1:])),
        lambda dump: replace(dump, folios=(FolioRow(0, 9, BASE, False, 0, 0, 0, 0, tail_ptes=7),)),
    ],
)
def test_a_dump_with_values_the_format_has_no_field_for_is_not_written(
    change: Callable[[Dump], Dump], tmp_path: Path
) -> None:
    path = tmp_path / "dump.json"
    with pytest.raises(InputError) as error:
        write_dump(change(real("main0_before")), path)
    assert str(error.value) == f"{path}: not written: the dump holds what the format has no field for"
    assert not path.exists()


# --- what read_dump refuses: the file ---------------------------------------------------------------


def refusal(path: Path, limits: Limits | None = None) -> str:
    """The message `read_dump` refuses `path` with, the path itself taken off."""
    with pytest.raises(InputError) as error:
        read_dump(path, limits) if limits else read_dump(path)
    file, colon, problem = str(error.value).partition(": ")
    assert (file, colon) == (str(path), ": ")
    assert "\n" not in problem
    return problem


def refusal_of(data: bytes, tmp_path: Path, limits: Limits | None = None) -> str:
    path = tmp_path / "dump.json"
    path.write_bytes(data)
    return refusal(path, limits)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.json") == "cannot read: No such file or directory"


def test_a_directory(tmp_path: Path) -> None:
    assert refusal(tmp_path) == "cannot read: Is a directory"


def test_a_name_no_file_can_have() -> None:
    with pytest.raises(InputError) as error:
        read_dump("a\0b")
    assert str(error.value) == "'a\\x00b': cannot read: embedded null byte"


def test_a_name_of_two_lines_gives_one_line(tmp_path: Path) -> None:
    path = tmp_path / "two\nlines"
    with pytest.raises(InputError) as error:
        read_dump(path)
    assert str(error.value) == f"{str(path)!r}: cannot read: No such file or directory"


def test_a_file_too_large_as_it_is(tmp_path: Path) -> None:
    limits = Limits(file_bytes=10)
    assert refusal_of(b'"12345678"', tmp_path, limits) == "not a dump: expected an object, found '12345678'"
    assert refusal_of(b'"123456789"', tmp_path, limits) == "too large: more than 10 bytes"


def test_a_file_too_large_once_decompressed(tmp_path: Path) -> None:
    limits = Limits(document_bytes=10)
    fits, bomb = gzip.compress(b'"12345678"', mtime=0), gzip.compress(b" " * 1_000_000)
    assert refusal_of(fits, tmp_path, limits) == "not a dump: expected an object, found '12345678'"
    assert refusal_of(bomb, tmp_path, limits) == "too large: more than 10 bytes decompressed"
    assert refusal_of(b" " * 11, tmp_path, limits) == "too large: more than 10 bytes decompressed"


def test_the_limits_when_none_are_given() -> None:
    assert Limits() == Limits(file_bytes=64 * 2**20, document_bytes=256 * 2**20, depth=32)


PACKED = gzip.compress(b"{}", mtime=0)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (PACKED[:-9], "Compressed file ended before the end-of-stream marker was reached"),
        (PACKED[:-8] + bytes(8), f"CRC check failed 0x0 != {zlib.crc32(b'{}'):#x}"),
        (b"\x1f\x8b\x07" + bytes(20), "Unknown compression method"),
    ],
)
def test_gzip_data_that_is_damaged(data: bytes, problem: str, tmp_path: Path) -> None:
    assert refusal_of(data, tmp_path) == f"damaged gzip data: {problem}"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "Expecting value: line 1 column 1 (char 0)"),
        (b'{"a": 1', "Expecting ',' delimiter: line 1 column 8 (char 7)"),
        (b"\xff", "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b'{"a": -Infinity}', "-Infinity is not a JSON number"),
        (b'{"b": 1, "a": 1, "a": 2}', "the key 'a' occurs twice in one object"),
    ],
)
def test_a_file_that_is_not_json(data: bytes, problem: str, tmp_path: Path) -> None:
    assert refusal_of(data, tmp_path) == f"not JSON: {problem}"


def test_a_number_longer_than_python_converts(tmp_path: Path) -> None:
    assert refusal_of(b"9" * 5000, tmp_path).startswith("not JSON: Exceeds the limit (4300 digits)")


@pytest.mark.parametrize("depth", [33, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_a_document_nested_too_deep(opening: bytes, closing: bytes, depth: int, tmp_path: Path) -> None:
    data = opening * depth + b"1" + closing * depth
    assert refusal_of(data, tmp_path) == "nested too deep: more than 32 levels"


def test_a_document_nested_as_deep_as_allowed(tmp_path: Path) -> None:
    assert refusal_of(b"[" * 32 + b"]" * 32, tmp_path).startswith("not a dump: expected an object, found [[[")


# --- what read_dump refuses: the document -----------------------------------------------------------


def small_document() -> Json:
    """One 2 MiB leaf, one split region, one optimized and one plain folio."""
    head = {"pfn": "0x8000", "order": 9, "vmemmap": hex(BASE + REGION), "private": "0x10"}
    words = {"HPG_vmemmap_optimized": 1, "flags": "0x40", "refcount": 0, "type": "0xf4000000"}
    tails = {"tail_ptes": 1, "tail_distinct_frames": 1, "tail_same_as_head": 1, "tail_flags": {RO: 1}}
    plain = {"pfn": "0x200", "vmemmap": hex(BASE + 0x8000), "private": "0x0", "HPG_vmemmap_optimized": 0}
    leaf = {"va": hex(BASE), "ram": "0x0-0x8000000", "kind": "2M leaf", "pfn": "0x200", "flags": LARGE}
    split = {"va": hex(BASE + REGION), "ram": "0x8000000-0x10000000", "kind": "split", "pfn": "0x9"}
    counted = {"pte_flags": {RW: 1, RO: 1}, "distinct_frames": 1, "frames_mapped_8x": 0}
    return {
        "kernel": "k",
        "ram_mb": 256,
        "state": "s",
        "guest": ["## vmstat", "nr_memmap_pages 1", "## per-node", "nr_memmap_pages 77"],
        "vmemmap_base": hex(BASE),
        "pmds": [leaf | {"hugetlb_folios": 1}, split | {"flags": "P W U A D", "hugetlb_folios": 1} | counted],
        "folios": [
            head | words | {"head_frame": "0x46", "head_flags": RW} | tails,
            head | words | plain | {"map": "PMD leaf"},
        ],
        "columns": ["va", "level", "pfn", "flags"],
        "ptes": [
            [hex(BASE), 2, "0x200", LARGE],
            [hex(BASE + REGION), 1, "0x46", RW],
            [hex(BASE + REGION + PAGE), 1, "0x46", RO],
        ],
    }


def changed(path: tuple[str | int, ...], value: object) -> bytes:
    document: Any = small_document()
    place = document
    for step in path[:-1]:
        place = place[step]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return json.dumps(document).encode()


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
    for name in small_document()[table][index].keys() - {"map", "head_frame"}:
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
