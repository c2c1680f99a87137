"""Which generation of HVO made a dump: what the tails of its optimized folios are mapped to.

Promised: read out of the folio rows alone, so also of a dump that has no leaves. Not promised: an answer
where nothing is optimized, or where the folios disagree.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from enum import Enum
from itertools import accumulate

from hvolab.dump.model import PAGE_SIZE, STRUCT_PAGE_SIZE, Dump, FolioRow

_PAGES_PER_PAGE = PAGE_SIZE // STRUCT_PAGE_SIZE


class Generation(Enum):
    """What a tail PTE of an optimized folio leads to."""

    SECOND_PAGE = "tails on the frame of their own folio's second page"  # Linux 5.14 to 5.17
    HEAD_PAGE = "tails on the frame of their own folio's head"  # Linux 5.19 to 6.19
    COMMON_PAGE = "tails on one frame for all folios of a size"  # Linux 7.1 on


def generation_of(dump: Dump) -> Generation | None:
    """The generation that all optimized folios of a dump are of; None where there are none, or several."""
    found = {_generation(folio) for folio in dump.folios if folio.optimized}
    return found.pop() if len(found) == 1 else None


def _generation(folio: FolioRow) -> Generation | None:
    if not folio.tail_ptes or folio.tail_distinct_frames != 1:
        return None
    if folio.tail_same_as_head == folio.tail_ptes:
        return Generation.HEAD_PAGE
    # Whoever shares a frame of its own folio has one page there that may be written.
    writable = sum(times for flags, times in (folio.tail_flags or {}).items() if "W" in flags.split())
    return Generation.SECOND_PAGE if writable else Generation.COMMON_PAGE


class TailPages:
    """The pages of vmemmap, counted from its base, behind the first of each optimized folio of some dumps.

    Kept as ranges: a row can claim an order of which no list of pages could be made.
    """

    def __init__(self, *dumps: Dump) -> None:
        ranges = sorted(found for dump in dumps for found in _tail_ranges(dump))
        self._starts = [start for start, _ in ranges]
        self._ends = list(accumulate((end for _, end in ranges), max))

    def __contains__(self, page: object) -> bool:
        if not isinstance(page, int):
            return False
        before = bisect_right(self._starts, page)
        return before > 0 and page < self._ends[before - 1]


def _tail_ranges(dump: Dump) -> Iterator[tuple[int, int]]:
    for folio in dump.folios:
        if folio.optimized:
            head = (folio.vmemmap - dump.vmemmap_base) // PAGE_SIZE
            yield head + 1, head + (1 << folio.order) // _PAGES_PER_PAGE
