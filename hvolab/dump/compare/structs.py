"""How the struct pages of two dumps differ, word by word. `hvolab.dump.compare` is the module to import from.

A word that holds an address is compared by what it points to, not by its value: a struct page of its own
block, by number; or anything else, which is `elsewhere`. Where a free block is linked, and how large it has
become by merging, is the page allocator's affair, and where a folio stands in the pool's lists is the
pool's.

Promised: a block is compared with itself as equal; struct pages side by side that are alike in both dumps
make one difference. Not promised: anything about a block that one dump alone has, or a page of vmemmap that
maps the frame of an earlier one there: it shows the same bytes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from hvolab.dump.compare.difference import MISSING, Difference, Placed, unequal
from hvolab.dump.model import PAGE_SIZE, STRUCT_PAGE_SIZE, WORDS, Dump, StructBlock, StructRun

PGTY_BUDDY: Final = 0xF0
"""The upper byte of `page_type` of the first page of a free block (include/linux/page-flags.h)."""

MAX_PAGE_ORDER: Final = 10
"""The largest block that the page allocator merges to (include/linux/mmzone.h)."""

_PAGE_TYPE: Final = WORDS.index("page_type")
_PRIVATE: Final = WORDS.index("private")
_PER_PAGE: Final = PAGE_SIZE // STRUCT_PAGE_SIZE
# The upper half of the canonical addresses with 57 bits, up to the end of the modules: above are the values
# that are no addresses, -1 and the masks of Linux 7's tails (Documentation/arch/x86/x86_64/mm.rst).
_KERNEL_ADDRESSES: Final = range(0xFF00_0000_0000_0000, 0xFFFF_FFFF_FF00_0000)


@dataclass(frozen=True, slots=True)
class _PlacedBlock:
    """A block and where its struct pages are, in bytes."""

    vmemmap: int
    block: StructBlock

    def run_of(self, number: int) -> StructRun | None:
        """The run that has struct page `number`."""
        at = bisect_right(self.block.rows, number, key=lambda run: run.number) - 1
        if at < 0:
            return None
        run = self.block.rows[at]
        return run if number < run.number + run.count else None

    def roles(self, number: int, run: StructRun) -> dict[str, str]:
        """What each word of struct page `number`, one of the run, is; and the reference count."""
        roles = {name: self._role(number, word) for name, word in zip(WORDS, run.words, strict=True)}
        if int(run.words[_PAGE_TYPE], 16) >> 24 == PGTY_BUDDY:
            order = self._value(number, run.words[_PRIVATE])
            if order <= MAX_PAGE_ORDER:
                roles["private"] = f"order of a free block, {min(order, self.block.order)} or more"
        return {**roles, "refcount": str(run.refcount)}

    def _role(self, number: int, word: str) -> str:
        value = self._value(number, word)
        own = value - self.vmemmap
        if 0 <= own < STRUCT_PAGE_SIZE << self.block.order:
            return _place(number, own // STRUCT_PAGE_SIZE, own % STRUCT_PAGE_SIZE)
        return "elsewhere" if value in _KERNEL_ADDRESSES else hex(value)

    def _value(self, number: int, word: str) -> int:
        base, plus, offset = word.partition("+")
        if not plus:
            return int(word, 16)
        at = number if base == "self" else number % _PER_PAGE
        return self.vmemmap + at * STRUCT_PAGE_SIZE + int(offset, 16)


def _place(number: int, target: int, offset: int) -> str:
    """A struct page of the block, as one of many alike would say it, and bytes into it."""
    if target == number:
        return f"self+{offset:#x}"
    if target == number % _PER_PAGE:
        return f"page0+{offset:#x}"
    return f"struct {target}+{offset:#x}"


def struct_differences(a: Dump, b: Dump, most: int) -> Iterator[Placed]:
    """Every difference in address order, in the first `most` struct pages of each block."""
    left = {block.pfn: block for block in a.struct_blocks}
    right = {block.pfn: block for block in b.struct_blocks}
    for pfn in sorted(left.keys() & right.keys()):
        where = f"block {pfn:#x}"
        offset = pfn * STRUCT_PAGE_SIZE
        one, other = left[pfn], right[pfn]
        if one.order != other.order:
            for difference in unequal(where, "order", one.order, other.order):
                yield offset, difference
            continue
        ours, theirs = (
            _PlacedBlock(a.vmemmap_base + offset, one),
            _PlacedBlock(b.vmemmap_base + offset, other),
        )
        for first, difference in _block(ours, theirs, min(most, 1 << one.order)):
            yield offset + first * STRUCT_PAGE_SIZE, difference


def _block(left: _PlacedBlock, right: _PlacedBlock, end: int) -> Iterator[tuple[int, Difference]]:
    """Stretches of struct pages below number `end` in which neither side changes, each after its first."""
    cuts = {0, end, *range(0, end, _PER_PAGE), *_edges(left.block), *_edges(right.block)}
    for first, past in pairwise(sorted(cut for cut in cuts if cut <= end)):
        where = _where(left.block.pfn, first, past)
        # Two texts can mean the same struct page in one place of a page of vmemmap, but not in two.
        found = tuple(_differences(where, first, left, right))
        for difference in found or _differences(where, past - 1, left, right):
            yield first, difference


def _differences(where: str, number: int, left: _PlacedBlock, right: _PlacedBlock) -> Iterator[Difference]:
    run, other = left.run_of(number), right.run_of(number)
    if run is None or other is None:
        shown = ("present" if each is not None else MISSING for each in (run, other))
        yield from unequal(where, "struct pages", *shown)
        return
    ours, theirs = left.roles(number, run), right.roles(number, other)
    for name in ours:
        yield from unequal(where, name, ours[name], theirs[name])


def _edges(block: StructBlock) -> Iterator[int]:
    """Where a run begins or ends."""
    for run in block.rows:
        yield from (run.number, run.number + run.count)


def _where(pfn: int, first: int, past: int) -> str:
    last = f" to {pfn + past - 1:#x}" if past - first > 1 else ""
    return f"struct {pfn + first:#x}{last}"
