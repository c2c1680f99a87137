"""zone->free_area: free blocks by order, and how their first struct pages say so (mm/page_alloc.c).

A free block's first struct page has the type of a buddy page, the order in `private`, and is linked with the
others of its order through its `lru` words. Which block is taken is decided here: the lowest. Its list in
guest memory is in that order too. (Linux adds at one end or the other.)

What a call of the allocator does under the zone lock to the lists is written when it has decided everything,
each struct page in one step: nobody else looks at a free block's without that lock.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from struct import Struct

from emu.addr import Pfn
from emu.cpu.ops import Fill, Rewrite
from emu.ledger import Ledger, LedgerEntry
from kernel_model.core.lists import LIST_HEAD_BYTES, LIST_POISON1, LIST_POISON2
from kernel_model.layout import FREE_AREA, STRUCT_PAGE_SIZE, pfn_to_page
from kernel_model.mm.page import NO_MAPCOUNT, PGTY_BUDDY, Offset, lru

MAX_PAGE_ORDER = 10

_LINKS = Struct("<QQ")
_Links = dict[int, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Relisted:
    """What memory must be told of a change: blocks that are on no list any more, and those with a new place.

    `there`: first frame, order, and the two `lru` words of each. `heads`: the list heads of all orders,
    where there is anything to be told.
    """

    gone: tuple[Pfn, ...]
    there: tuple[tuple[Pfn, int, int, int], ...]
    heads: bytes

    async def write_back(self) -> None:
        """Under the zone lock: blocks that have left a list first, then the others."""
        for pfn in self.gone:
            await Rewrite(pfn_to_page(pfn), STRUCT_PAGE_SIZE, _taken)
        for pfn, order, following, before in self.there:
            await Rewrite(pfn_to_page(pfn), STRUCT_PAGE_SIZE, _OnItsList(order, following, before))
        if self.gone or self.there:
            await Fill(FREE_AREA, self.heads)


_ORDERS = range(MAX_PAGE_ORDER + 1)
_FREE_BLOCKS = tuple(LedgerEntry("free_area", order) for order in _ORDERS)


def free_blocks(order: int) -> LedgerEntry:
    """The first frames of the free blocks of that order, the lowest first."""
    return _FREE_BLOCKS[order]


class FreeArea:
    """The blocks of a ledger, within one transaction. What has changed is entered by `enter`."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._changed: dict[int, list[int]] = {}

    def _blocks(self, order: int) -> Sequence[int]:
        changed = self._changed.get(order)
        return self._ledger.get(free_blocks(order), _NONE) if changed is None else changed

    def _change(self, order: int) -> list[int]:
        """The list of that order, which is about to change."""
        if order not in self._changed:
            self._changed[order] = list(self._blocks(order))
        return self._changed[order]

    def enter(self) -> Relisted:
        """Enter into the ledger what has changed. Returns what memory must be told."""
        gone: set[int] = set()
        there: dict[int, tuple[int, int, int]] = {}
        for order, blocks in self._changed.items():
            old = _links(order, self._ledger.get(free_blocks(order), _NONE))
            new = _links(order, blocks)
            gone |= old.keys() - new.keys()
            there |= {pfn: (order, *links) for pfn, links in new.items() if old.get(pfn) != links}
            self._ledger.set(free_blocks(order), tuple(blocks))
        self._changed.clear()
        there.pop(_HEAD, None)
        left = tuple(map(Pfn, sorted(gone - there.keys())))
        listed = tuple((Pfn(pfn), *how) for pfn, how in sorted(there.items()))
        return Relisted(left, listed, self.heads() if left or listed else b"")

    def free_frames(self) -> int:
        return sum(len(self._blocks(order)) << order for order in _ORDERS)

    def __contains__(self, pfn: int) -> bool:
        for order in _ORDERS:
            blocks = self._blocks(order)
            if blocks and _has(blocks, pfn & ~((1 << order) - 1)):
                return True
        return False

    # -- taking and giving back ----------------------------------------------------------------------

    def give(self, pfn: int, order: int) -> None:
        """Put a block on its free list, merged with its buddy while that is free too."""
        while order < MAX_PAGE_ORDER:
            buddy = pfn ^ (1 << order)
            if not _has(self._blocks(order), buddy):
                break
            self._change(order).remove(buddy)
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
        have = next((size for size in range(order, MAX_PAGE_ORDER + 1) if self._blocks(size)), None)
        if have is None:
            return None
        pfn = self._change(have).pop(0)
        for half in range(have - 1, order - 1, -1):
            insort(self._change(half), pfn + (1 << half))
        return Pfn(pfn)

    def take_run(self, order: int) -> Pfn | None:
        """alloc_contig_pages(), without migration: every frame of the run must be free."""
        blocks = self._blocks(MAX_PAGE_ORDER)
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
            if _has(self._blocks(size), first):
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

    # -- in guest memory -----------------------------------------------------------------------------

    def heads(self) -> bytes:
        """The list heads of all orders."""
        return b"".join(_LINKS.pack(*_links(order, self._blocks(order))[_HEAD]) for order in _ORDERS)

    def listed(self) -> Iterator[tuple[Pfn, int, int, int]]:
        """Every block: first frame, order, and its two `lru` words."""
        for order in _ORDERS:
            blocks = self._blocks(order)
            links = _links(order, blocks)
            yield from ((Pfn(pfn), order, *links[pfn]) for pfn in blocks)


_NONE: tuple[int, ...] = ()
_HEAD = -1


def _has(blocks: Sequence[int], pfn: int) -> bool:
    at = bisect_left(blocks, pfn)
    return at < len(blocks) and blocks[at] == pfn


def _links(order: int, blocks: Sequence[int]) -> _Links:
    """Each block's `lru` words by its first frame, and its list head's."""
    head = FREE_AREA + LIST_HEAD_BYTES * order
    ring = [head, *(lru(pfn_to_page(pfn)) for pfn in blocks), head]
    links = {pfn: (ring[at + 2], ring[at]) for at, pfn in enumerate(blocks)}
    return {**links, _HEAD: (ring[1], ring[-2])}


@dataclass(frozen=True, slots=True)
class _OnItsList:
    """set_buddy_order() and list_add()"""

    order: int
    following: int
    before: int

    def __call__(self, page: bytes) -> bytes:
        return buddy_page(page, self.following, self.before, page_type=PGTY_BUDDY, private=self.order)


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
