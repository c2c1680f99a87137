"""One paging-structure entry: each name against its bit number in the manual's tables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from property_settings import PROPERTY

from emu.addr import PageSize, Pfn
from emu.paging.pte import Pte, PteBit

# SDM 3A, tables 4-15 to 4-20.
BIT_NUMBERS = {
    PteBit.PRESENT: 0,
    PteBit.WRITE: 1,
    PteBit.USER: 2,
    PteBit.PWT: 3,
    PteBit.PCD: 4,
    PteBit.ACCESSED: 5,
    PteBit.DIRTY: 6,
    PteBit.PAGE_SIZE: 7,
    PteBit.GLOBAL: 8,
    PteBit.SOFT_9: 9,
    PteBit.SOFT_10: 10,
    PteBit.SOFT_11: 11,
    PteBit.PAT_LARGE: 12,
    PteBit.NO_EXECUTE: 63,
}
NAMES = {
    "present": PteBit.PRESENT,
    "writable": PteBit.WRITE,
    "user": PteBit.USER,
    "accessed": PteBit.ACCESSED,
    "dirty": PteBit.DIRTY,
    "page_size": PteBit.PAGE_SIZE,
    "is_global": PteBit.GLOBAL,
    "no_execute": PteBit.NO_EXECUTE,
}
WORDS = st.integers(0, 2**64 - 1)


def field(word: int, high: int, low: int) -> int:
    """Bits high:low, by way of the binary digits."""
    digits = f"{word:064b}"
    return int(digits[63 - high : 64 - low], 2)


def test_each_bit_has_the_number_of_the_manual() -> None:
    assert {bit: int(bit).bit_length() - 1 for bit in PteBit} == BIT_NUMBERS


@PROPERTY
@given(WORDS)
def test_each_question_asks_its_own_bit_and_no_other(word: int) -> None:
    assert {name: getattr(Pte(word), name) for name in NAMES} == {
        name: f"{word:064b}"[63 - BIT_NUMBERS[bit]] == "1" for name, bit in NAMES.items()
    }


@PROPERTY
@given(WORDS)
def test_pfn_is_bits_51_to_12(word: int) -> None:
    assert Pte(word).pfn == field(word, 51, 12)


@PROPERTY
@given(WORDS)
def test_the_frame_of_a_large_leaf_leaves_out_pat_and_the_reserved_bits(word: int) -> None:
    assert Pte(word).leaf_pfn(PageSize.KIB4) == field(word, 51, 12)
    assert Pte(word).leaf_pfn(PageSize.MIB2) == field(word, 51, 21) << 9
    assert Pte(word).leaf_pfn(PageSize.GIB1) == field(word, 51, 30) << 18


@PROPERTY
@given(st.integers(0, 2**40 - 1), st.lists(st.sampled_from(tuple(PteBit))))
def test_make_puts_frame_and_bits_together(pfn: int, chosen: list[PteBit]) -> None:
    bits = PteBit(0)
    for bit in chosen:
        bits |= bit & ~PteBit.PAT_LARGE
    entry = Pte.make(Pfn(pfn), bits)
    assert entry.pfn == pfn
    assert int(entry) == pfn * 4096 + int(bits)


@PROPERTY
@given(WORDS, st.sampled_from(tuple(PteBit)))
def test_with_bits_and_without_touch_nothing_else(word: int, bit: PteBit) -> None:
    number = BIT_NUMBERS[bit]
    one, zero = list(f"{word:064b}"), list(f"{word:064b}")
    one[63 - number], zero[63 - number] = "1", "0"
    assert int(Pte(word).with_bits(bit)) == int("".join(one), 2)
    assert int(Pte(word).without(bit)) == int("".join(zero), 2)
    assert isinstance(Pte(word).with_bits(bit), Pte)
    assert isinstance(Pte(word).without(bit), Pte)


@pytest.mark.parametrize(
    ("word", "text"),
    [
        (0, "Pte(0x0: pfn 0x0 none)"),
        (0x8000_0000_0081_21E3, "Pte(0x80000000008121e3: pfn 0x812 P W A D G NX PSE)"),
        (0x0000_0000_0080_0021, "Pte(0x800021: pfn 0x800 P A)"),
        (0x0000_0000_0000_101F, "Pte(0x101f: pfn 0x1 P W U PWT PCD)"),
    ],
)
def test_an_entry_prints_its_word_its_frame_and_its_flags(word: int, text: str) -> None:
    assert repr(Pte(word)) == text


def test_flags_leave_out_what_software_put_into_the_entry() -> None:
    soft = PteBit.SOFT_9 | PteBit.SOFT_10 | PteBit.SOFT_11
    assert Pte.make(Pfn(1), soft | PteBit.PRESENT).flags() == "P"
