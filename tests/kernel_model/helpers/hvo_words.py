"""Page-table entries and struct pages, read word by word."""

from __future__ import annotations

import struct
from functools import cache
from typing import NamedTuple

_FLAGS = (
    (0, "P"),
    (1, "W"),
    (2, "U"),
    (3, "PWT"),
    (4, "PCD"),
    (5, "A"),
    (6, "D"),
    (8, "G"),
    (63, "NX"),
    (7, "PSE"),
)


class StructPage(NamedTuple):
    """The words of a struct page (v6.12): flags, lru.next | compound_head, lru.prev, mapping, ..."""

    flags: int
    next: int
    prev: int
    mapping: int
    index: int
    private: int
    page_type: int
    refcount: int
    memcg: int

    @classmethod
    def parse(cls, data: bytes) -> StructPage:
        return cls(*struct.unpack("<6QIIQ", data))

    def pack(self) -> bytes:
        return struct.pack("<6QIIQ", *self)


def pfn_of(entry: int) -> int:
    return entry >> 12 & ((1 << 40) - 1)


def flags_of(entry: int) -> str:
    return _words_of(entry & ~(((1 << 40) - 1) << 12))


@cache
def _words_of(bits: int) -> str:
    return " ".join(word for bit, word in _FLAGS if bits >> bit & 1)
