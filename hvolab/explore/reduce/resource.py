"""What steps can disturb each other through: resources, and the footprint of a step.

Two steps whose footprints do not conflict can change places without anybody seeing it: no memory, no TLB,
no verdict. So a footprint has more in it than memory words: what enables a step, and what a monitor looks at.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple, TypeAlias

from emu.cpu.condition import Word


class Kind(IntEnum):
    """What a resource is. A memory word (8 bytes) is a plain number, address / 8; a named word itself."""

    MEMORY = -1
    NAMED = 0
    BULK_READ = 1  # frame: read as a whole, against any store in it
    BULK_WRITE = 2  # frame: written as a whole, against any access in it
    TRANSLATION = 3  # page number: what the page tables say of a page, now and in the past; -1 = of all
    TLB = 4  # cpu, page number: since when this CPU has not invalidated the page
    SPLIT = 5  # first page: when a large page was replaced by a table, for those who invalidate it
    DIRECTORIES = 6  # entries of directories that a paging-structure cache may still hold
    IPI = 7  # cpu: what is pending there
    INTERRUPT_FLAG = 8  # cpu
    ACKNOWLEDGED = 9  # sender, target
    CONTEXT = 10  # cpu: which context runs, thread or stepwise handler
    OWNER = 11  # frame: allocated or free, and for how many times
    OWED = 12  # page number: which flushes were begun and ended for it, and which operations returned
    UPDATE = 13  # page number: stores into the struct pages there, which an operation may lose
    SECTION_ENTERED = 14  # cpu: its RCU read-side sections, against the begin of a grace period
    SECTION_LEFT = 15  # cpu: the same, against the end of a grace period that waits for it


class Resource(NamedTuple):
    kind: Kind
    a: int = 0
    b: int = 0


Touched: TypeAlias = int | Word | Resource


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


def kind_of(touched: Touched) -> Kind:
    match touched:
        case Resource(kind=kind):
            return kind
        case Word():
            return Kind.NAMED
        case _:
            return Kind.MEMORY
