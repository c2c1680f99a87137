"""What invalidations touch: on one CPU, or carried by hardware to all.

Whether one comes before or after a change of what it is of counts, so it reads that. What it writes is what
CPUs may use no longer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from emu.addr import PAGE_BYTES, PAGE_SHIFT
from emu.events import BroadcastCompleted
from emu.kept import Kept
from emu.paging.models import CpuModel
from emu.paging.tlb import (
    FaultedAt,
    InvalidateAll,
    InvalidateNonGlobal,
    Invalidation,
    Invlpg,
    InvpcidAddress,
    InvpcidContext,
    NewRoot,
)
from hvolab.explore.footprint.tables import PAGES_OF_ALL, Tables
from hvolab.explore.footprint.windows import Windows
from hvolab.judge.sight.resource import Kind, Resource

DIRECTORIES = Resource(Kind.DIRECTORIES)
ALL_TRANSLATIONS = Resource(Kind.TRANSLATION, PAGES_OF_ALL)


class Invalidations(Kept):
    """Of one run on so many CPUs of a model. `windows`: what they may use."""

    parts = ("windows",)

    def __init__(self, cpus: int, model: CpuModel, tables: Tables) -> None:
        self.windows = Windows(cpus, model)
        self._tables = tables

    def in_range(self, start: int, end: int) -> tuple[set[int], set[int]]:
        """Of [start, end), in bytes: the pages some run changes, the first pages of large ones it splits."""
        first, last = start >> PAGE_SHIFT, (end - 1) >> PAGE_SHIFT
        pages = {page for page in self._tables.volatile if first <= page <= last}
        large = {page for page in self._tables.split if page <= last and first < page + 512}
        return pages, large

    def reads(self, what: Invalidation) -> Iterator[Resource]:
        """What it is of that some run changes."""
        covered, large = self._concerned(what)
        yield from (Resource(Kind.TRANSLATION, page) for page in covered)
        yield from (Resource(Kind.SPLIT, page) for page in large)
        if self._tables.directories_change:
            yield DIRECTORIES
        if self._tables.everything_changes:
            yield ALL_TRANSLATIONS

    def carried_out(self, cpu: int, what: Invalidation) -> Iterator[Resource]:
        """By one CPU: what it cannot use any more."""
        return self._removed(cpu, self.windows.close(cpu, what, self._pages(what)))

    def completed(self, event: BroadcastCompleted) -> Iterator[Resource]:
        """By all: what has changed since it was sent stays."""
        for begun, what in zip(event.begun, event.what, strict=True):
            for cpu, closed in enumerate(self.windows.carry_out(begun, self._pages(what))):
                yield from self._removed(cpu, closed)

    def _removed(self, cpu: int, closed: set[int]) -> Iterator[Resource]:
        yield from (Resource(Kind.TLB, cpu, page) for page in closed)
        if self._tables.directories_change or self._tables.everything_changes:
            yield Resource(Kind.TLB, cpu, PAGES_OF_ALL)

    def _pages(self, what: Invalidation) -> tuple[int, ...]:
        covered, large = self._concerned(what)
        return (*covered, *(~page for page in large))

    def _concerned(self, what: Invalidation) -> tuple[set[int], set[int]]:
        match what:
            case Invlpg(va=va, pages=pages):
                return self.in_range(va, va + pages * PAGE_BYTES)
            case InvpcidAddress(va=va) | FaultedAt(va=va):
                return self.in_range(va, va + 1)
            case InvalidateAll() | InvalidateNonGlobal() | InvpcidContext() | NewRoot():
                return self._tables.volatile, self._tables.split
            case _:
                assert_never(what)
