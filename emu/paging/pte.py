"""A paging-structure entry as a value: 64 bits, each with one name (SDM 3A 4.5, tables 4-15 to 4-20).

An entry is read once from memory and then asked; asking it never reads memory again.
"""

from __future__ import annotations

from enum import IntFlag
from typing import Self

from emu.addr import PAGE_SHIFT, PageSize, Pfn


class PteBit(IntFlag):
    """Architectural bits of a paging-structure entry, the same in every level unless said otherwise."""

    PRESENT = 1 << 0  # clear: the walker ignores every other bit
    WRITE = 1 << 1  # with CR0.WP=1 it binds the supervisor too
    USER = 1 << 2
    PWT = 1 << 3
    PCD = 1 << 4
    ACCESSED = 1 << 5
    DIRTY = 1 << 6  # leaves only; ignored in an entry that points to a table
    PAGE_SIZE = 1 << 7  # PD and PDPT: a leaf. In a PT this bit is PAT; in a PML4E it is reserved
    GLOBAL = 1 << 8  # leaves only, honoured when CR4.PGE=1
    SOFT_9 = 1 << 9  # 9 to 11 and 52 to 58 are software's
    SOFT_10 = 1 << 10
    SOFT_11 = 1 << 11
    PAT_LARGE = 1 << 12  # 2 MiB and 1 GiB leaves only
    NO_EXECUTE = 1 << 63  # reserved while EFER.NXE=0


_FRAME_MASK = 0x000F_FFFF_FFFF_F000

# The order and the words of kernel page-table dumps.
_WORDS = (
    (PteBit.PRESENT, "P"),
    (PteBit.WRITE, "W"),
    (PteBit.USER, "U"),
    (PteBit.PWT, "PWT"),
    (PteBit.PCD, "PCD"),
    (PteBit.ACCESSED, "A"),
    (PteBit.DIRTY, "D"),
    (PteBit.GLOBAL, "G"),
    (PteBit.NO_EXECUTE, "NX"),
    (PteBit.PAGE_SIZE, "PSE"),
)


class Pte(int):
    """One paging-structure entry of any level."""

    __slots__ = ()

    @classmethod
    def make(cls, pfn: Pfn, bits: PteBit) -> Self:
        """An entry that points to frame `pfn` (of a page or of a table) with the given bits."""
        return cls((pfn << PAGE_SHIFT) | int(bits))

    @property
    def present(self) -> bool:
        return bool(self & PteBit.PRESENT)

    @property
    def writable(self) -> bool:
        return bool(self & PteBit.WRITE)

    @property
    def user(self) -> bool:
        return bool(self & PteBit.USER)

    @property
    def accessed(self) -> bool:
        return bool(self & PteBit.ACCESSED)

    @property
    def dirty(self) -> bool:
        return bool(self & PteBit.DIRTY)

    @property
    def page_size(self) -> bool:
        """Bit 7. In a page table (level 1) it is PAT and says nothing about the size."""
        return bool(self & PteBit.PAGE_SIZE)

    @property
    def is_global(self) -> bool:
        return bool(self & PteBit.GLOBAL)

    @property
    def no_execute(self) -> bool:
        return bool(self & PteBit.NO_EXECUTE)

    @property
    def pfn(self) -> Pfn:
        """Bits 51:12. For a large leaf, bit 12 is PAT: use `leaf_pfn`."""
        return Pfn((self & _FRAME_MASK) >> PAGE_SHIFT)

    def leaf_pfn(self, size: PageSize) -> Pfn:
        """First 4 KiB frame of the page this leaf of that size maps."""
        return Pfn((self & _FRAME_MASK & ~(size - 1)) >> PAGE_SHIFT)

    def with_bits(self, bits: PteBit) -> Pte:
        return Pte(self | int(bits))

    def without(self, bits: PteBit) -> Pte:
        return Pte(self & ~int(bits))

    def flags(self) -> str:
        """The set bits as words, for example ``P W A D G NX``."""
        return " ".join(word for bit, word in _WORDS if self & bit)

    def __repr__(self) -> str:
        return f"Pte({int(self):#x}: pfn {self.pfn:#x} {self.flags() or 'none'})"
