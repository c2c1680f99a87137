"""The flags text of a paging-structure entry: every bit that is no address, as a word (docs/dump-format.md).

Promised: two entries with different bits outside the address have different texts. Not promised: that a
combination of bits is one the hardware would accept.
"""

from __future__ import annotations

from typing import Final

_PAGE_SIZE_BIT: Final = 7

# SDM 3A table 4-15 to 4-20: bits 11:9 and 58:52 are software's, 62:59 the protection key.
_BIT_OF_WORD: Final = {
    "P": 0,
    "W": 1,
    "U": 2,
    "PWT": 3,
    "PCD": 4,
    "A": 5,
    "D": 6,
    "G": 8,
    "s9": 9,
    "s10": 10,
    "s11": 11,
    **{f"s{bit}": bit for bit in range(52, 59)},
    **{f"pk{bit - 59}": bit for bit in range(59, 63)},
    "NX": 63,
}
# In a PTE bit 7 is PAT; in a PMD entry it says that this is a leaf, and PAT of the leaf is bit 12.
_PAT_BIT: Final = {1: _PAGE_SIZE_BIT, 2: 12}

FLAG_WORDS: Final = (*_BIT_OF_WORD, "PAT", "PSE")
"""Every word a flags text may hold, in the order it must hold them."""


def flags_text(entry: int, level: int) -> str:
    """The set bits of a 64-bit entry of that level (2: PMD entry, 1: PTE) as words; "" when none is set."""
    words = [word for word, bit in _BIT_OF_WORD.items() if entry >> bit & 1]
    leaf = level == 2 and entry >> _PAGE_SIZE_BIT & 1
    if (level == 1 or leaf) and entry >> _PAT_BIT[level] & 1:
        words.append("PAT")
    return " ".join([*words, "PSE"] if leaf else words)


def bits_of(flags: str, level: int) -> int:
    """The entry of that level, its address left out, whose text `flags` is."""
    where = {**_BIT_OF_WORD, "PAT": _PAT_BIT[level], "PSE": _PAGE_SIZE_BIT}
    return sum(1 << where[word] for word in flags.split())
