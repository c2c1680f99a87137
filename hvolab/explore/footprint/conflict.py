"""The footprint of a step, and when two of them conflict.

Two steps whose footprints do not conflict can change places without anybody seeing it: no memory, no TLB,
no verdict. So a footprint has more in it than memory words: what enables a step, and what judges ask.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from hvolab.judge.sight.resource import Touched


class Footprint(NamedTuple):
    """What one step read, wrote, and marked. Marks commute with each other, and with nothing else."""

    reads: frozenset[Touched]
    writes: frozenset[Touched]
    marks: frozenset[Touched]

    def union(self, other: Footprint) -> Footprint:
        return Footprint(self.reads | other.reads, self.writes | other.writes, self.marks | other.marks)


NOTHING = Footprint(frozenset(), frozenset(), frozenset())


def all_of(footprints: Iterable[Footprint]) -> Footprint:
    """What steps with these footprints touch together."""
    reads, writes, marks = set[Touched](), set[Touched](), set[Touched]()
    for footprint in footprints:
        reads |= footprint.reads
        writes |= footprint.writes
        marks |= footprint.marks
    return Footprint(frozenset(reads), frozenset(writes), frozenset(marks))


def conflict(a: Footprint, b: Footprint) -> bool:
    """Whether the order of two steps with these footprints can matter."""
    return not (
        a.writes.isdisjoint(b.writes)
        and a.writes.isdisjoint(b.reads)
        and a.reads.isdisjoint(b.writes)
        and a.marks.isdisjoint(b.reads)
        and a.reads.isdisjoint(b.marks)
        and a.marks.isdisjoint(b.writes)
        and a.writes.isdisjoint(b.marks)
    )


def conflicts(a: Footprint, b: Footprint) -> frozenset[Touched]:
    """What two steps with these footprints conflict over."""
    return frozenset().union(
        a.writes & b.writes,
        a.writes & b.reads,
        a.writes & b.marks,
        a.reads & b.writes,
        a.reads & b.marks,
        a.marks & b.reads,
        a.marks & b.writes,
    )
