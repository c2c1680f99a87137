"""Struct pages out of a document: what is read, and what is refused."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from dump_files import refusal_of, small_document
from dumps import real

from hvolab.dump import StructBlock, StructRun, read_dump, write_dump

COLUMNS = [
    "number",
    "count",
    "flags",
    "lru.next",
    "lru.prev",
    "mapping",
    "index",
    "private",
    "page_type",
    "refcount",
    "memcg_data",
]
HEAD = [0, 1, "0x40", "0x1", "self+0x8", "0x0", "0x0", "0x18", "0xf4000000", -1, "0x7"]
TAILS = [1, 511, "0x0", "0x1", "page0+0x8", "0x0", "0x0", "0x0", "0xffffffff", 0, "0x0"]
BLOCK = {"pfn": "0x200", "order": 9, "rows": [HEAD, TAILS]}
GOOD = {"struct_columns": COLUMNS, "struct_pages": [BLOCK]}


def document(**changes: Any) -> bytes:
    return json.dumps(small_document() | deepcopy(GOOD) | changes).encode()


def with_row(number: int, at: int, value: object) -> bytes:
    rows: list[list[Any]] = deepcopy([HEAD, TAILS])
    rows[number][at] = value
    return document(struct_pages=[BLOCK | {"rows": rows}])


def test_a_block_as_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "dump").write_bytes(document())
    words = ("0x40", "0x1", "self+0x8", "0x0", "0x0", "0x18", "0xf4000000", "0x7")
    tails = ("0x0", "0x1", "page0+0x8", "0x0", "0x0", "0x0", "0xffffffff", "0x0")
    blocks = (StructBlock(0x200, 9, (StructRun(0, 1, words, -1), StructRun(1, 511, tails, 0))),)
    assert read_dump(tmp_path / "dump").struct_blocks == blocks


@pytest.mark.parametrize("name", ["optimized24", "restored24", "grown16"])
def test_real_struct_pages_survive_being_written(name: str, tmp_path: Path) -> None:
    write_dump(real(name), tmp_path / "dump.json.gz")
    assert real(name).struct_blocks
    assert read_dump(tmp_path / "dump.json.gz") == real(name)


WORD = 'expected a hex string like "0x1f" of at most 64 bits'
WRONG = [
    (document(struct_columns=COLUMNS[1:]), f"struct_columns: expected the columns {', '.join(COLUMNS)}, "),
    (document(struct_pages={}), "struct_pages: expected an array, found {}"),
    (document(struct_pages=[BLOCK, BLOCK]), "struct_pages[1].pfn: duplicate block 0x200"),
    (
        document(struct_pages=[BLOCK | {"order": 19}]),
        "struct_pages[0].order: expected an integer from 0 to 18, found 19",
    ),
    (
        document(struct_pages=[BLOCK | {"order": 8}]),
        "struct_pages[0].rows[1]: ends at struct page 512, the block at 256",
    ),
    (
        document(struct_pages=[BLOCK | {"rows": [TAILS, HEAD]}]),
        "struct_pages[0].rows[1]: struct page 0 again, or out of order",
    ),
    (with_row(1, 0, 0), "struct_pages[0].rows[1]: struct page 0 again, or out of order"),
    (
        with_row(1, 1, 0),
        "struct_pages[0].rows[1].count: expected an integer from 1 to 262144, found 0",
    ),
    (with_row(0, 2, 64), "struct_pages[0].rows[0].flags: expected a string, found 64"),
    (with_row(0, 3, "own+0x8"), f"struct_pages[0].rows[0].lru.next: {WORD}, found 'own+0x8'"),
    (with_row(0, 3, "self+8"), f"struct_pages[0].rows[0].lru.next: {WORD}, found 'self+8'"),
    (
        with_row(0, 4, "self+0x40"),
        "struct_pages[0].rows[0].lru.prev: 'self+0x40': a struct page has 64 bytes",
    ),
    (
        with_row(0, 8, "0x1f4000000"),
        "struct_pages[0].rows[0].page_type: expected a word of 32 bits, found '0x1f4000000'",
    ),
    (
        with_row(0, 8, "self+0x8"),
        "struct_pages[0].rows[0].page_type: expected a word of 32 bits, found 'self+0x8'",
    ),
    (
        with_row(0, 9, 1 << 31),
        "struct_pages[0].rows[0].refcount: expected an integer from -2147483648 to 2147483647, ",
    ),
    (
        document(struct_pages=[BLOCK | {"rows": [HEAD[:-1]]}]),
        "struct_pages[0].rows[0]: expected 11 columns, found [0, 1, ",
    ),
]


@pytest.mark.parametrize(("data", "problem"), WRONG, ids=[problem[:70] for _, problem in WRONG])
def test_struct_pages_that_are_none(data: bytes, problem: str, tmp_path: Path) -> None:
    assert refusal_of(data, tmp_path).startswith(problem)


def test_struct_pages_without_columns(tmp_path: Path) -> None:
    data = json.dumps(small_document() | {"struct_pages": [BLOCK]}).encode()
    assert refusal_of(data, tmp_path) == "not a dump: missing field 'struct_columns'"
