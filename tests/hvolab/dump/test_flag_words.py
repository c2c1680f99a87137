"""Flags texts: a word for every bit of an entry that is no address."""

from __future__ import annotations

import pytest
from dumps import LARGE, LINUX_7_3, RO, RW, leaves_of, real
from hypothesis import given
from hypothesis import strategies as st

from hvolab.dump.flag_words import FLAG_WORDS, bits_of, flags_text

ADDRESS = 0x000F_FFFF_FFFF_F000


@pytest.mark.parametrize(
    ("entry", "level", "text"),
    [
        # By SDM 3A tables 4-17 and 4-20, bit by bit.
        (0x8000_0000_0000_0163, 1, RW),
        (0x8000_0000_0000_0121, 1, RO),
        (0x8000_0000_0000_01E3, 2, LARGE),
        (0x067, 2, "P W U A D"),
        (0, 1, ""),
        (0x019, 1, "P PWT PCD"),
        (0x0E01, 1, "P s9 s10 s11"),
        (0x07F0_0000_0000_0001, 1, "P s52 s53 s54 s55 s56 s57 s58"),
        (0x7800_0000_0000_0001, 1, "P pk0 pk1 pk2 pk3"),
        (0x081, 1, "P PAT"),
        (0x081, 2, "P PSE"),
        (0x1081, 2, "P PAT PSE"),
        (0x1001, 2, "P"),  # a table at an odd frame: bit 12 is address
        (0x1001, 1, "P"),
    ],
)
def test_an_entry_by_hand(entry: int, level: int, text: str) -> None:
    assert flags_text(entry, level) == text


def test_every_bit_outside_the_address_has_a_word() -> None:
    bits = [bit for bit in range(64) if not ADDRESS >> bit & 1]
    assert len(bits) == 24
    assert len({flags_text(1 << bit, 1) for bit in bits}) == 24
    assert len(FLAG_WORDS) == 25  # PAT and PSE are one bit in two levels


@given(entry=st.integers(0, (1 << 64) - 1), level=st.sampled_from([1, 2]))
def test_a_text_gives_the_bits_back(entry: int, level: int) -> None:
    pat = 1 << 12 if level == 2 and entry & 0x80 else 0
    flags = entry & (~ADDRESS | pat)
    assert bits_of(flags_text(entry, level), level) == flags


def test_the_words_of_real_dumps_are_those() -> None:
    found = {leaf.flags for leaf in leaves_of(real("boot0_1G_and_16x2M", LINUX_7_3))}
    assert found == {RW, RO, LARGE, "P A G s58 NX"}
    small = found - {LARGE}
    assert {flags_text(bits_of(text, 1), 1) for text in small} == small
