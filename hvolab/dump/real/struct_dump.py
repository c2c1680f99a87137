"""The struct pages of a block of frames, out of a running system."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from emu.addr import PAGE_BYTES, VirtAddr
from hvolab.dump import StructBlock, StructRun
from hvolab.dump.real.memory import peek
from kernel_model.boot import System
from kernel_model.layout import STRUCT_PAGE_SIZE, pfn_to_page

_PER_PAGE = PAGE_BYTES // STRUCT_PAGE_SIZE
# flags, lru.next, lru.prev, mapping, index, private, page_type, refcount, memcg_data
_STRUCT_PAGE = struct.Struct("<6QIiQ")


def struct_block(system: System, pfn: int, order: int) -> StructBlock:
    """Those of 2**`order` frames from `pfn` on, as docs/dump-format.md has them."""
    rows: list[StructRun] = []
    for run in _structs(system, pfn, 1 << order):
        if rows and _follows(rows[-1], run):
            rows[-1] = StructRun(rows[-1].number, rows[-1].count + 1, run.words, run.refcount)
        else:
            rows.append(run)
    return StructBlock(pfn, order, tuple(rows))


def _follows(last: StructRun, run: StructRun) -> bool:
    same = (last.words, last.refcount) == (run.words, run.refcount)
    return same and last.number + last.count == run.number


def _structs(system: System, pfn: int, count: int) -> Iterator[StructRun]:
    """One by one, without the pages of vmemmap that show the frame of an earlier one."""
    head = pfn_to_page(pfn)
    shown: set[int] = set()
    for first in range(0, count, _PER_PAGE):
        page = VirtAddr(head + first * STRUCT_PAGE_SIZE)
        pa = peek(system, page).pa
        if pa in shown:
            continue
        shown.add(pa)
        length = min(_PER_PAGE, count) * STRUCT_PAGE_SIZE
        content = system.machine.memory.read(pa, length)
        for number, fields in enumerate(_STRUCT_PAGE.iter_unpack(content), start=first):
            yield _run(head, number, fields)


def _run(head: VirtAddr, number: int, fields: tuple[int, ...]) -> StructRun:
    own = head + number * STRUCT_PAGE_SIZE
    same_place = head + number % _PER_PAGE * STRUCT_PAGE_SIZE
    *words, refcount, memcg_data = fields
    return StructRun(
        number, 1, tuple(_word(value, head, own, same_place) for value in (*words, memcg_data)), refcount
    )


def _word(value: int, head: int, own: int, same_place: int) -> str:
    if own <= value < own + STRUCT_PAGE_SIZE:
        return f"self+{value - own:#x}"
    # Not of struct page 0, the head: every tail names it, and all of them are one run.
    if head != same_place <= value < same_place + STRUCT_PAGE_SIZE:
        return f"page0+{value - same_place:#x}"
    return hex(value)
