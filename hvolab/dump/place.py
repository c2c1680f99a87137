"""A place in a dump: what a dump's fields may hold (docs/dump-format.md).

Not promised: that fields agree with each other; `hvolab.dump.decode` sees to that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Final

from hvolab.checked.place import Place
from hvolab.dump.flag_words import FLAG_WORDS
from hvolab.dump.model import PAGE_SIZE, PMD_SIZE, PTES_PER_TABLE, STRUCT_PAGE_SIZE

ADDRESS_BITS: Final = 64
"""Bits of a word that can hold an address."""
MAX_PFN: Final = (1 << 40) - 1
"""x86_64 physical addresses have at most 52 bits."""


_RELATIVE: Final = re.compile(r"(?:self|page0)\+0x([0-9a-f]{1,2})")


@dataclass(frozen=True, slots=True)
class DumpPlace(Place):
    """The value at `where` in the dump `file`."""

    WHOLE: ClassVar[str] = "not a dump"

    def pfn(self) -> int:
        """A page frame number."""
        pfn = self.word()
        if pfn > MAX_PFN:
            raise self.error(f"pfn {pfn:#x} out of range, the last is {MAX_PFN:#x}")
        return pfn

    def va(self, level: int) -> int:
        """A canonical address that an entry of this level (2: 2 MiB, 1: 4 KiB) can map."""
        va = self.address()
        size = PMD_SIZE if level == 2 else PAGE_SIZE
        if va % size:
            raise self.error(f"va {va:#x} not aligned to {size} bytes, as level {level} needs")
        return va

    def address(self) -> int:
        """A canonical address. With 57 address bits: vmemmap of 5-level paging lies below the 48-bit ones."""
        va = self.word()
        if va >> 56 not in (0, 0xFF):
            raise self.error(f"va {va:#x} not canonical")
        return va

    def leaf_pfn(self, level: int) -> int:
        """The first frame of a leaf; a 2 MiB leaf has no bits for one that is not 2 MiB-aligned."""
        pfn = self.pfn()
        if level == 2 and pfn % PTES_PER_TABLE:
            raise self.error(f"pfn {pfn:#x} not aligned to {PTES_PER_TABLE} frames, as level 2 needs")
        return pfn

    def flags(self) -> str:
        """A flags text: known words, in their order, one blank between them."""
        return self.checked_flags(self.text())

    def checked_flags(self, text: str) -> str:
        """`text`, when it is a flags text."""
        words = text.split(" ") if text else []
        for word in words:
            if word not in FLAG_WORDS:
                raise self.error(f"unknown flag word {word!r}, known are {' '.join(FLAG_WORDS)}")
        if words != [word for word in FLAG_WORDS if word in words]:
            raise self.error(f"flag words repeated or out of order in {text!r}")
        return text

    def struct_word(self, bits: int) -> str:
        """A word of a struct page: a hex text, or one relative to a struct page."""
        text = self.text()
        relative = _RELATIVE.fullmatch(text)
        if relative is None:
            if self.word() >> bits:
                raise self.wanted(f"a word of {bits} bits")
        elif bits < ADDRESS_BITS:
            raise self.wanted(f"a word of {bits} bits")
        elif int(relative[1], 16) >= STRUCT_PAGE_SIZE:
            raise self.error(f"{text!r}: a struct page has {STRUCT_PAGE_SIZE} bytes")
        return text

    def flag_counts(self) -> dict[str, int]:
        """How many entries have each flags text."""
        if not isinstance(self.value, dict):
            raise self.wanted("an object")
        return {self.checked_flags(text): self.field(text).count() for text in self.value}
