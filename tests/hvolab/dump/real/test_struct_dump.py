"""Struct pages as a running system shows them."""

from __future__ import annotations

from real_runs import ran

from hvolab.dump import StructRun
from hvolab.dump.real.struct_dump import struct_block

HEAD = 0x5400
TAIL = "0xffffea0000150001"


def run(number: int, count: int, *words: str) -> StructRun:
    return StructRun(number, count, words, 0)


def test_the_64_struct_pages_of_an_optimized_folio_are_four_rows() -> None:
    """By hand: the head, two tails with fields of the folio, the others; all pages show these."""
    done, dump = ran("lists_before", "optimize:optimized24")
    block = struct_block(done.system, HEAD, 9)
    assert block in dump.struct_blocks
    flags, none = "0xfffffc0000000", "0xffffffff"
    assert block.rows[1:] == (
        run(1, 1, "0xfffffc0000009", TAIL, "0xffffffffffffffff", "0x0", "0x200", "0x0", none, "0x0"),
        run(2, 1, flags, TAIL, "0x0", "0x0", "0x0", "0x0", none, "0x0"),
        run(3, 61, flags, TAIL, "self+0x8", "0xdead000000000400", "0x0", "0x0", none, "0x0"),
    )
    head = block.rows[0]
    assert (head.number, head.count, head.refcount) == (0, 1, 0)
    assert (head.words[0], head.words[5], head.words[6]) == ("0xfffffc0000040", "0x18", "0xf4000000")


def test_all_512_struct_pages_are_there_where_nothing_is_optimized() -> None:
    done, _ = ran("lists_before", "sysctl=0", "optimize:optimized24")
    rows = struct_block(done.system, HEAD, 9).rows
    assert sum(row.count for row in rows) == 512
    assert [row.number for row in rows] == [0, 1, 2, 3]


def test_a_restored_page_of_tails_is_a_copy_of_the_heads_and_written_as_one() -> None:
    """reset_struct_pages() puts struct pages 3 to 5 over the first three of each page."""
    done, _ = ran("lists_before", "optimize:optimized24", "restore", "sysctl=0", "optimize:grown16")
    block = struct_block(done.system, 0x7200, 9)
    assert sum(row.count for row in block.rows) == 512


def test_a_block_smaller_than_a_page_of_vmemmap() -> None:
    done, _ = ran("lists_before", "optimize:optimized24")
    assert sum(row.count for row in struct_block(done.system, HEAD, 3).rows) == 8
