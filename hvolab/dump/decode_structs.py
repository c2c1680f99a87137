"""From a JSON document to struct pages: the checks that need more than one field of a block.

Promised: blocks that come out obey docs/dump-format.md; otherwise an `InputError` of one line. Not promised:
that what they hold agrees with the leaves or the folios.
"""

from __future__ import annotations

from typing import Final

from hvolab.dump.model import MAX_BLOCK_ORDER, WORDS, StructBlock, StructRun
from hvolab.dump.place import DumpPlace

STRUCT_COLUMNS: Final = ("number", "count", *WORDS[:-1], "refcount", WORDS[-1])
_MAX_REFCOUNT: Final = (1 << 31) - 1


def struct_blocks_from(document: DumpPlace) -> tuple[StructBlock, ...]:
    """The blocks of a dump, in the document's order; () when it has none. Raises `InputError`."""
    blocks = document.optional("struct_pages")
    if blocks is None:
        return ()
    columns = document.field("struct_columns")
    if columns.value != list(STRUCT_COLUMNS):
        raise columns.wanted(f"the columns {', '.join(STRUCT_COLUMNS)}")
    found: list[StructBlock] = []
    seen: set[int] = set()
    for place in blocks.items():
        block = _block(place)
        if block.pfn in seen:
            raise place.field("pfn").error(f"duplicate block {block.pfn:#x}")
        seen.add(block.pfn)
        found.append(block)
    return tuple(found)


def _block(place: DumpPlace) -> StructBlock:
    order = place.field("order").integer(0, MAX_BLOCK_ORDER)
    rows: list[StructRun] = []
    for row in place.field("rows").items():
        run = _run(row)
        at_least = rows[-1].number + rows[-1].count if rows else 0
        if run.number < at_least:
            raise row.error(f"struct page {run.number} again, or out of order")
        if run.number + run.count > 1 << order:
            raise row.error(f"ends at struct page {run.number + run.count}, the block at {1 << order}")
        rows.append(run)
    return StructBlock(place.field("pfn").pfn(), order, tuple(rows))


def _run(row: DumpPlace) -> StructRun:
    cells = row.items()
    if len(cells) != len(STRUCT_COLUMNS):
        raise row.wanted(f"{len(STRUCT_COLUMNS)} columns")
    at = {
        name: DumpPlace(row.file, f"{row.where}.{name}", cell.value)
        for name, cell in zip(STRUCT_COLUMNS, cells, strict=True)
    }
    words = tuple(at[name].struct_word(32 if name == "page_type" else 64) for name in WORDS)
    refcount = at["refcount"].integer(-_MAX_REFCOUNT - 1, _MAX_REFCOUNT)
    return StructRun(
        at["number"].integer(0, 1 << MAX_BLOCK_ORDER),
        at["count"].integer(1, 1 << MAX_BLOCK_ORDER),
        words,
        refcount,
    )
