"""A place in a JSON document that knows its name, and turns into checked values.

Promised: a `DumpError` names the file, the place ("pmds[3].va") and what is wrong there, in one line.
Not promised: that fields agree with each other; `hvolab.dump.decode` sees to that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from hvolab.dump.model import FLAG_WORDS, PAGE_SIZE, PMD_SIZE, PTES_PER_TABLE, DumpError

MAX_PFN: Final = (1 << 40) - 1
"""x86_64 physical addresses have at most 52 bits."""
MAX_COUNT: Final = (1 << 63) - 1

_HEX: Final = re.compile(r"0x[0-9a-fA-F]{1,16}")
_SHOWN_CHARACTERS: Final = 60


@dataclass(frozen=True, slots=True)
class Place:
    """The value at `where` in `file`; `where` is empty for the whole document."""

    file: str
    where: str
    value: object

    def error(self, problem: str) -> DumpError:
        """The error to raise for what is wrong at this place."""
        return DumpError(f"{self.file}: {self.where or 'not a dump'}: {problem}")

    def wanted(self, what: str) -> DumpError:
        """The error for a value that is not `what`."""
        shown = repr(self.value)
        if len(shown) > _SHOWN_CHARACTERS:
            shown = shown[:_SHOWN_CHARACTERS] + "..."
        return self.error(f"expected {what}, found {shown}")

    def field(self, name: str) -> Place:
        """The member `name` of this object, which must be there."""
        member = self.optional(name)
        if member is None:
            raise self.error(f"missing field {name!r}")
        return member

    def optional(self, name: str) -> Place | None:
        """The member `name` of this object, or None."""
        if not isinstance(self.value, dict):
            raise self.wanted("an object")
        if name not in self.value:
            return None
        where = f"{self.where}.{name}" if self.where else name
        return Place(self.file, where, self.value[name])

    def items(self) -> tuple[Place, ...]:
        """The elements of this array."""
        if not isinstance(self.value, list):
            raise self.wanted("an array")
        return tuple(
            Place(self.file, f"{self.where}[{index}]", value) for index, value in enumerate(self.value)
        )

    def text(self) -> str:
        """A string."""
        if not isinstance(self.value, str):
            raise self.wanted("a string")
        return self.value

    def integer(self, low: int, high: int) -> int:
        """A JSON integer from `low` to `high`, both included."""
        # type() and not isinstance(): true and false are no numbers here.
        if type(self.value) is not int:
            raise self.wanted("an integer")
        if not low <= self.value <= high:
            raise self.wanted(f"an integer from {low} to {high}")
        return self.value

    def count(self) -> int:
        """A number of things."""
        return self.integer(0, MAX_COUNT)

    def word(self) -> int:
        """A 64-bit word, written as a hex string."""
        if not isinstance(self.value, str) or not _HEX.fullmatch(self.value):
            raise self.wanted('a hex string like "0x1f" of at most 64 bits')
        return int(self.value, 16)

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

    def flag_counts(self) -> dict[str, int]:
        """How many entries have each flags text."""
        if not isinstance(self.value, dict):
            raise self.wanted("an object")
        return {self.checked_flags(text): self.field(text).count() for text in self.value}
