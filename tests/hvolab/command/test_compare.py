"""`hvolab compare`: what it prints, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from command_line import hvolab
from dumps import LINUX_6_12, LINUX_7_3

from hvolab.dump import read_dump

BEFORE, AFTER = LINUX_6_12 / "main0_before.json.gz", LINUX_6_12 / "main1_alloc64.json.gz"
SCHEMA = Path(__file__).resolve().parents[3] / "hvolab" / "schema" / "compare.json"


@pytest.mark.parametrize("suffix", [".json", ".json.gz"])
def test_a_dump_is_read_back_and_compared(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"final{suffix}"
    assert hvolab("run", "tail-write", "--json", "--dump", path).status == 1
    dump = read_dump(path)
    assert [folio.optimized for folio in dump.folios] == [True]
    assert dump.counters == {"nr_memmap_pages": 1, "nr_memmap_boot_pages": 504}
    assert dump.leaves is not None
    assert len(dump.leaves) == 512
    assert [(block.pfn, block.order) for block in dump.struct_blocks] == [(0x4000, 9)]
    same = hvolab("compare", path, path)
    assert (same.status, same.out, same.err) == (0, "no differences\n", "")


def test_what_differs_is_printed_and_the_exit_status_is_1(tmp_path: Path) -> None:
    for name, path in (("tail-write", "optimized"), ("spurious-write", "restored")):
        hvolab("run", name, "--json", "--dump", tmp_path / path)
    done = hvolab("compare", tmp_path / "optimized", tmp_path / "restored")
    assert (done.status, done.err) == (1, "")
    lines = done.out.splitlines()
    assert "counter nr_memmap_pages: pages: 1 | 8" in lines
    assert "struct 0x4000: private: 0x10 | 0x0" in lines
    assert any(line.startswith("folio 0x4000: optimized: ") for line in lines)


def test_a_dump_with_software_bits_is_compared() -> None:
    path = LINUX_7_3 / "boot0_1G_and_16x2M.json.gz"
    done = hvolab("compare", path, path)
    assert (done.status, done.out, done.err) == (0, "no differences\n", "")


def test_two_generations_are_said_in_the_first_line() -> None:
    done = hvolab("compare", AFTER, LINUX_7_3 / "main1_alloc64.json.gz")
    assert done.status == 1
    assert done.out.splitlines()[0] == (
        "dump: generation: tails on the frame of their own folio's head | "
        "tails on one frame for all folios of a size"
    )


@pytest.mark.parametrize(("right", "rows"), [(BEFORE, 0), (AFTER, 1035)])
def test_what_json_prints_is_as_its_schema_says(right: Path, rows: int) -> None:
    done = hvolab("compare", BEFORE, right, "--json")
    document = done.json()
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8"))).validate(document)
    assert (done.status, len(document["differences"])) == (int(bool(rows)), rows)


WRONG = [
    ((), "Missing argument 'LEFT'."),
    (("a.json",), "Missing argument 'RIGHT'."),
    (("{here}/missing", "{here}/x"), "{here}/missing: cannot read: No such file or directory"),
    (("{here}/object", "{here}/missing"), "{here}/object: not a dump: missing field 'kernel'"),
    (("{here}", "{here}"), "{here}: cannot read: Is a directory"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=[message[:40] for _, message in WRONG])
def test_wrong_input_is_one_line_and_status_2(
    arguments: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    (tmp_path / "object").write_text("{}", encoding="utf-8")
    done = hvolab("compare", *(argument.format(here=tmp_path) for argument in arguments))
    assert (done.status, done.out, done.err) == (2, "", f"hvolab: {message.format(here=tmp_path)}\n")
