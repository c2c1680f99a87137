"""What goes through a file unchanged, and what is not written."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from dump_files import real_document
from dumps import BASE, LINUX_6_12, PAGE, REAL_DUMPS, REGION, real
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hvolab.checked.error import InputError
from hvolab.dump import (
    COUNTERS,
    FLAG_WORDS,
    Dump,
    FolioRow,
    Leaf,
    dump_of,
    read_dump,
    write_dump,
)

SCHEMA = Path(__file__).resolve().parents[3] / "hvolab" / "schema" / "dump.json"


@pytest.mark.parametrize("file", ["dump.json", "dump.json.gz"])
@pytest.mark.parametrize("name", REAL_DUMPS)
def test_real_dumps_survive_being_written(name: str, file: str, tmp_path: Path) -> None:
    write_dump(real(name), tmp_path / file)
    assert read_dump(tmp_path / file) == real(name)


@pytest.mark.parametrize("name", [*REAL_DUMPS, "grown16", "both_shrunk"])
def test_a_written_dump_is_as_its_schema_says(name: str, tmp_path: Path) -> None:
    write_dump(real(name), tmp_path / "dump.json")
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    document = json.loads((tmp_path / "dump.json").read_text(encoding="ascii"))
    jsonschema.Draft202012Validator(schema).validate(document)
    assert document
    for key in document:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.Draft202012Validator(schema).validate(document | {key: 77.5})


@pytest.mark.parametrize("name", REAL_DUMPS)
def test_a_written_dump_has_the_fields_of_the_real_one_with_their_values(name: str, tmp_path: Path) -> None:
    write_dump(real(name), tmp_path / "dump.json")
    ours, theirs = json.loads((tmp_path / "dump.json").read_text()), real_document(name)
    assert ours.keys() - {"guest", "summary"} <= theirs.keys()
    assert [part for part in ours["guest"] if part not in theirs["guest"]] == []
    plain = ours.keys() - {"guest", "summary", "pmds", "folios"}
    assert plain
    assert {key: ours[key] for key in plain} == {key: theirs[key] for key in plain}
    for rows in ("pmds", "folios"):
        pairs = zip(ours[rows], theirs[rows], strict=True)
        assert ours[rows] == [{key: row[key] for key in our_row} for our_row, row in pairs]


def test_what_decides_between_plain_and_gzip_when_reading_is_the_content(tmp_path: Path) -> None:
    plain = gzip.decompress((LINUX_6_12 / "main0_before.json.gz").read_bytes())
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
