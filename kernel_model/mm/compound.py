"""Compound pages: making one of a block of frames, and taking it apart when it is freed (mm/page_alloc.c).

The struct pages of a block fill whole vmemmap pages. What Linux does to them one by one is done here page by
page, each in one step. (In Linux the flags of a page being freed are not changed atomically, so a memory
error that comes right then can be forgotten; that window is not modelled.)
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from emu.addr import PAGE_BYTES, VirtAddr
from emu.cpu.ops import Fill, LoadBytes, Rewrite
from kernel_model.layout import STRUCT_PAGE_SIZE
from kernel_model.mm.image import struct_page, tail_struct_pages
from kernel_model.mm.page import (
    CHECK_AT_FREE,
    FLAGS_BASE,
    NO_MAPCOUNT,
    TAIL_MAPPING,
    Offset,
    PageFlag,
    nth_page,
)

PER_PAGE = PAGE_BYTES // STRUCT_PAGE_SIZE
_WORD = struct.Struct("<Q")
_HALF = struct.Struct("<I")


async def prep_compound_page(folio: VirtAddr, order: int) -> None:
    """post_alloc_hook() and prep_compound_page(): a head with reference count 1 and its tails."""
    for first in _starts(order):
        pages = _struct_pages(folio, order, first, min(PER_PAGE, 1 << order))
        await Rewrite(nth_page(folio, first), len(pages), _PoisonKept(pages))


async def init_struct_pages(folio: VirtAddr, order: int, first: int, count: int) -> None:
    """Write `count` struct pages of a compound page from number `first` on, as boot does."""
    await Fill(nth_page(folio, first), _struct_pages(folio, order, first, count))


def _struct_pages(folio: VirtAddr, order: int, first: int, count: int) -> bytes:
    pages = tail_struct_pages(folio, order, first, count)
    if first == 0:
        pages[:STRUCT_PAGE_SIZE] = struct_page({}, refcount=1, flags=FLAGS_BASE | PageFlag.HEAD)
    return bytes(pages)


@dataclass(frozen=True, slots=True)
class _PoisonKept:
    """prep_compound_tail() leaves the flags alone: an error reported since the allocator looked stays."""

    pages: bytes

    def __call__(self, before: bytes) -> bytes:
        kept = bytearray(self.pages)
        for at in _offsets(before):
            poison = _flags(before, at) & PageFlag.HWPOISON
            if poison:
                _WORD.pack_into(kept, at + Offset.FLAGS, _flags(self.pages, at) | poison)
        return bytes(kept)


@dataclass(frozen=True, slots=True)
class _HeadKept:
    """clear_compound_head() and prep_compound_page(): whoever was a head keeps its type, count and flags."""

    page: VirtAddr
    order: int

    def __call__(self, before: bytes) -> bytes:
        head = bytearray(before[:STRUCT_PAGE_SIZE])
        _WORD.pack_into(head, Offset.FLAGS, _flags(before, 0) | PageFlag.HEAD)
        _WORD.pack_into(head, Offset.COMPOUND_HEAD, 0)
        _WORD.pack_into(head, Offset.MAPPING, 0)
        tails = tail_struct_pages(self.page, self.order, 0, min(PER_PAGE, 1 << self.order))
        return _PoisonKept(bytes(head + tails[STRUCT_PAGE_SIZE:]))(before)


async def split_compound_page(page: VirtAddr, order: int) -> None:
    """Make a folio of that order of pages that were part of a larger one, as demotion does."""
    await Rewrite(page, _length(order), _HeadKept(page, order))
    for first in _starts(order)[1:]:
        tails = bytes(tail_struct_pages(page, order, first, PER_PAGE))
        await Rewrite(nth_page(page, first), len(tails), _PoisonKept(tails))


async def poisoned(page: VirtAddr, order: int) -> bool:
    """check_new_pages(): whether a block that is to be allocated has a poisoned page in it."""
    for first in _starts(order):
        pages = await LoadBytes(nth_page(page, first), _length(order))
        if any(_flags(pages, at) & PageFlag.HWPOISON for at in _offsets(pages)):
            return True
    return False


async def take_apart(folio: VirtAddr, order: int) -> str | None:
    """free_pages_prepare(): check every struct page, and leave single pages behind.

    Returns what bad_page() would say of the first that is not as it should be.
    """
    reason: str | None = None
    for first in _starts(order):
        pages = await Rewrite(nth_page(folio, first), _length(order), _singles)
        for at in _offsets(pages):
            number = first + at // STRUCT_PAGE_SIZE
            reason = reason or (_bad_tail(pages, at, folio, number) if number else _bad(pages, at))
    return reason


def _bad_tail(pages: bytes, at: int, folio: VirtAddr, number: int) -> str | None:
    """free_tail_page_prepare(). Structs 1 and 2 have fields of their own in the place of `mapping`."""
    if number > 2 and _word(pages, at + Offset.MAPPING) != TAIL_MAPPING:
        return "corrupted mapping in tail page"
    head = _word(pages, at + Offset.COMPOUND_HEAD)
    if not head & 1:
        return "PageTail not set"
    if head - 1 != folio:
        return "compound_head not consistent"
    return None if number <= 2 else _bad(pages, at, mapping=TAIL_MAPPING)


def _bad(pages: bytes, at: int, *, mapping: int = 0) -> str | None:
    """free_page_is_bad()"""
    if _half(pages, at + Offset.MAPCOUNT) != NO_MAPCOUNT:
        return "nonzero mapcount"
    if _word(pages, at + Offset.MAPPING) != mapping:
        return "non-NULL mapping"
    if _half(pages, at + Offset.REFCOUNT):
        return "nonzero _refcount"
    if _flags(pages, at) & CHECK_AT_FREE:
        return "PAGE_FLAGS_CHECK_AT_FREE flag(s) set"
    return None


def _singles(pages: bytes) -> bytes:
    """Struct pages of single free pages. What nobody clears is kept: `lru.prev`, `index`, PG_hwpoison."""
    return b"".join(
        struct_page(
            {offset: _word(pages, at + offset) for offset in (Offset.LRU_PREV, Offset.INDEX)},
            flags=FLAGS_BASE | _flags(pages, at) & PageFlag.HWPOISON,
        )
        for at in _offsets(pages)
    )


def _starts(order: int) -> range:
    return range(0, 1 << order, PER_PAGE)


def _length(order: int) -> int:
    return min(PER_PAGE, 1 << order) * STRUCT_PAGE_SIZE


def _offsets(pages: bytes) -> Iterator[int]:
    yield from range(0, len(pages), STRUCT_PAGE_SIZE)


def _flags(pages: bytes, at: int) -> int:
    return _word(pages, at + Offset.FLAGS)


def _word(pages: bytes, at: int) -> int:
    found: int = _WORD.unpack_from(pages, at)[0]
    return found


def _half(pages: bytes, at: int) -> int:
    found: int = _HALF.unpack_from(pages, at)[0]
    return found
