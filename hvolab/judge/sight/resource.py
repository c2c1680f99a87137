"""What steps can disturb each other through, and judges can look at: resources, and a judge's own cells.

A memory word (8 bytes) is a plain number, address / 8; a named word, or a counter, is a `Word`. No name in
here depends on the order of steps: operations and CPUs are counted, events are not named.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple, TypeAlias, assert_never

from emu.cpu.condition import Word


class Kind(IntEnum):
    """What a resource is."""

    CELL = -2  # what a judge remembers
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
    OWNER = 11  # frame: allocated or free
    OWED = 12  # page number: which flush requests were begun and completed for it
    OPERATION = 13  # cpu, how many it began before: whether that operation has returned
    HELD = 14  # head struct page: which operations under way have announced it
    MAPPED = 15  # frame: which entries lead to it, as to memory or to a table
    SECTION_ENTERED = 16  # cpu: its RCU read-side sections, against the begin of a grace period
    SECTION_LEFT = 17  # cpu: the same, against the end of a grace period that waits for it
    LOST = 18  # frame: when it was last lost by who had it, which an allocation does not change


class Resource(NamedTuple):
    kind: Kind
    a: int = 0
    b: int = 0


class CellName(NamedTuple):
    """A place in a judge's memory: whose, and which one of its kind."""

    judge: str
    a: int = 0
    b: int = 0


Touched: TypeAlias = int | Word | Resource | CellName


def kind_of(touched: Touched) -> Kind:
    match touched:
        case Resource(kind=kind):
            return kind
        case CellName():
            return Kind.CELL
        case Word():
            return Kind.NAMED
        case int():
            return Kind.MEMORY
        case _:
            assert_never(touched)
