"""The names of what steps can disturb each other through."""

from __future__ import annotations

from emu.cpu.condition import Word
from hvolab.judge.sight.resource import CellName, Kind, Resource, kind_of


def test_each_kind_of_name_is_known_for_what_it_is() -> None:
    names = [8, Word("hugetlb_lock"), Resource(Kind.OWNER, 8), CellName("copied", 8)]
    assert [kind_of(name) for name in names] == [Kind.MEMORY, Kind.NAMED, Kind.OWNER, Kind.CELL]


def test_names_that_read_alike_are_not_the_same() -> None:
    """A word of memory, a resource and a cell of the same number must not stand for each other in a set."""
    kinds = [Resource(kind, 8) for kind in Kind]
    assert len({8, Word("8"), CellName("8", 8), *kinds}) == 3 + len(Kind)
    assert len({kind.value for kind in Kind}) == len(Kind)
