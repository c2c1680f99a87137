"""The footprint of a step, and when two of them conflict.

Two steps whose footprints do not conflict can change places without anybody seeing it: no memory, no TLB,
no verdict. So a footprint has more in it than memory words: what enables a step, and what judges ask.
"""

from __future__ import annotations

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
