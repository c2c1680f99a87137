"""zone->free_area: free blocks by order, and how their first struct pages say so (mm/page_alloc.c).

A free block's first struct page has the type of a buddy page, the order in `private`, and is linked with the
others of its order through its `lru` words. Which block is taken is decided here: the lowest. Its list in
guest memory is in that order too. (Linux adds at one end or the other.)

What a call of the allocator does under the zone lock to the lists is written when it has decided everything,
each struct page in one step: nobody else looks at a free block's without that lock.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from functools import partial
from struct import Struct

from emu.addr import Pfn
from emu.cpu.ops import Fill, Rewrite
from kernel_model.core.lists import LIST_HEAD_BYTES, LIST_POISON1, LIST_POISON2
from kernel_model.layout import FREE_AREA, STRUCT_PAGE_SIZE, pfn_to_page
from kernel_model.mm.page import NO_MAPCOUNT, PGTY_BUDDY, Offset, lru

MAX_PAGE_ORDER = 10

_LINKS = Struct("<QQ")
_Links = dict[int, tuple[int, int]]


class FreeArea:
    """The blocks. What has changed since `write_back` is known, so that only that is written."""

    def __init__(self) -> None:
        self._blocks: list[list[int]] = [[] for _ in range(MAX_PAGE_ORDER + 1)]
        self._written: dict[int, list[int]] = {}  # an order whose list has changed: as memory has it

    def snapshot(self) -> list[list[int]]:
        return [list(blocks) for blocks in self._blocks]

    def reset(self, snapshot: list[list[int]]) -> None:
        """As it was then; memory is put back by somebody else."""
        self._blocks = [list(blocks) for blocks in snapshot]
        self._written.clear()

    def free_frames(self) -> int:
        return sum(len(blocks) << order for order, blocks in enumerate(self._blocks))

    def __contains__(self, pfn: int) -> bool:
        return any(pfn & ~((1 << order) - 1) in blocks for order, blocks in enumerate(self._blocks))

    # -- taking and giving back ----------------------------------------------------------------------

    def give(self, pfn: int, order: int) -> None:
        """Put a block on its free list, merged with its buddy while that is free too."""
        while order < MAX_PAGE_ORDER:
            blocks, buddy = self._blocks[order], pfn ^ (1 << order)
            at = bisect_left(blocks, buddy)
            if at == len(blocks) or blocks[at] != buddy:
                break
            del self._change(order)[at]
            pfn, order = pfn & ~(1 << order), order + 1
        insort(self._change(order), pfn)

    def take_singles(self, count: int) -> list[Pfn]:
        """rmqueue_bulk(): up to `count` single frames, from the smallest block there is, lowest first."""
        singles: list[Pfn] = []
        while len(singles) < count:
            pfn = self.take(0)
            if pfn is None:
                break
            singles.append(pfn)
        return singles

    def take(self, order: int) -> Pfn | None:
        """The first of the smallest blocks that will do, what is left over given back."""
        have = next((size for size in range(order, MAX_PAGE_ORDER + 1) if self._blocks[size]), None)
        if have is None:
            return None
        pfn = self._change(have).pop(0)
        for half in range(have - 1, order - 1, -1):
            insort(self._change(half), pfn + (1 << half))
        return Pfn(pfn)

    def take_run(self, order: int) -> Pfn | None:
        """alloc_contig_pages(), without migration: every frame of the run must be free."""
        blocks = self._blocks[MAX_PAGE_ORDER]
        wanted = 1 << (order - MAX_PAGE_ORDER)
        for at, first in enumerate(blocks):
            last = at + wanted - 1
            if first % (1 << order) or last >= len(blocks):
                continue
            if blocks[last] == first + ((wanted - 1) << MAX_PAGE_ORDER):
                del self._change(MAX_PAGE_ORDER)[at : last + 1]
                return Pfn(first)
        return None

    def take_range(self, pfn: int, order: int) -> bool:
        """alloc_contig_range(): just these frames, aligned. False, and nothing taken, if one is in use."""
        size = min(order, MAX_PAGE_ORDER)
        starts = range(pfn, pfn + (1 << order), 1 << size)
        around = [self._block_around(first, size) for first in starts]
        if None in around:
            return False
        for first in starts:
            self._split_out(first, size)
        return True

    def _block_around(self, pfn: int, order: int) -> tuple[int, int] | None:
        """The free block, (first frame, order), that holds the aligned block of 2**`order` from `pfn` on."""
        for size in range(order, MAX_PAGE_ORDER + 1):
            first = pfn & ~((1 << size) - 1)
            blocks = self._blocks[size]
            at = bisect_left(blocks, first)
            if at < len(blocks) and blocks[at] == first:
                return first, size
        return None

    def _split_out(self, pfn: int, order: int) -> None:
        """Take a block out of the free block around it, and leave the rest free."""
        around = self._block_around(pfn, order)
        assert around is not None
        first, size = around
        self._change(size).remove(first)
        for half in range(size - 1, order - 1, -1):
            low, high = first, first + (1 << half)
            first, other = (high, low) if pfn >= high else (low, high)
            insort(self._change(half), other)

    def _change(self, order: int) -> list[int]:
        """The list of that order, which is about to change."""
        self._written.setdefault(order, list(self._blocks[order]))
        return self._blocks[order]

    # -- in guest memory -----------------------------------------------------------------------------

    async def write_back(self) -> None:
        """What has changed, under the zone lock: blocks that have left a list first, then the others."""
        gone, there = self._changed()
        for pfn in sorted(gone):
            await Rewrite(pfn_to_page(pfn), STRUCT_PAGE_SIZE, _taken)
        for pfn, (order, following, before) in sorted(there.items()):
            change = partial(_listed, order, following, before)
            await Rewrite(pfn_to_page(pfn), STRUCT_PAGE_SIZE, change)
        if gone or there:
            await Fill(FREE_AREA, self.heads())

    def heads(self) -> bytes:
        """The list heads of all orders."""
        return b"".join(_LINKS.pack(*_links(order, of)[_HEAD]) for order, of in enumerate(self._blocks))

    def listed(self) -> Iterator[tuple[Pfn, int, int, int]]:
        """Every block: first frame, order, and its two `lru` words. Memory is taken to be written now."""
        self._written.clear()
        for order, blocks in enumerate(self._blocks):
            links = _links(order, blocks)
            yield from ((Pfn(pfn), order, *links[pfn]) for pfn in blocks)

    def _changed(self) -> tuple[set[int], dict[int, tuple[int, int, int]]]:
        """The blocks that are on no list any more, and those that memory shows elsewhere."""
        gone: set[int] = set()
        there: dict[int, tuple[int, int, int]] = {}
        for order, was in self._written.items():
            old, new = _links(order, was), _links(order, self._blocks[order])
            gone |= old.keys() - new.keys()
            there |= {pfn: (order, *links) for pfn, links in new.items() if old.get(pfn) != links}
        self._written.clear()
        there.pop(_HEAD, None)
        return gone - there.keys(), there


_HEAD = -1


def _links(order: int, blocks: list[int]) -> _Links:
    """Each block's `lru` words by its first frame, and its list head's."""
    head = FREE_AREA + LIST_HEAD_BYTES * order
    ring = [head, *(lru(pfn_to_page(pfn)) for pfn in blocks), head]
    links = {pfn: (ring[at + 2], ring[at]) for at, pfn in enumerate(blocks)}
    return {**links, _HEAD: (ring[1], ring[-2])}


def _listed(order: int, following: int, before: int, page: bytes) -> bytes:
    """set_buddy_order() and list_add()"""
    return buddy_page(page, following, before, page_type=PGTY_BUDDY, private=order)


def _taken(page: bytes) -> bytes:
    """del_page_from_free_list()"""
    return buddy_page(page, LIST_POISON1, LIST_POISON2, page_type=NO_MAPCOUNT, private=0)


def buddy_page(page: bytes, following: int, before: int, *, page_type: int, private: int) -> bytes:
    """A struct page with these words changed."""
    changed = bytearray(page)
    _LINKS.pack_into(changed, Offset.LRU_NEXT, following, before)
    changed[Offset.PRIVATE : Offset.PRIVATE + 8] = private.to_bytes(8, "little")
    changed[Offset.PAGE_TYPE : Offset.PAGE_TYPE + 4] = page_type.to_bytes(4, "little")
    return bytes(changed)
