"""Conditions as text."""

from __future__ import annotations

from emu.cpu.condition import Word


def test_a_word_prints_its_name_and_its_index_unless_0() -> None:
    assert (str(Word("lock")), str(Word("lock", 2))) == ("lock", "lock[2]")
