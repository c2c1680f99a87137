"""A run of HVO told in words, one for each thing that matters to it, for tests that compare whole runs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from hvo_lab import KEY, OPTIMIZED, PAGE, Lab

from emu.events import Annotated, Copied, Invalidated, IpiSent, MachineEvent, Stored
from emu.paging.tlb import InvalidateAll, Invlpg
from kernel_model.core.events import (
    AllocationFailed,
    FlushBegun,
    FlushCompleted,
    GracePeriodBegun,
    GracePeriodEnded,
    OperationBegun,
    OperationReturned,
    PageAllocated,
    PageFreed,
)
from kernel_model.core.smp import SyncCore

EVERYWHERE = (0, 1 << 64)


# --- a run as a list of words -----------------------------------------------------------------------------


def story(lab: Lab) -> list[str]:
    """The run since the mark in words; the same word many times in a row is told once, with its number."""
    words = [word for event in lab.recent() for word in _words(lab, event)]
    told = []
    for word, times in groupby(words):
        count = sum(1 for _ in times)
        told.append(word if count == 1 else f"{count} x {word}")
    return told


def _words(lab: Lab, event: MachineEvent) -> Iterator[str]:
    match event:
        case Annotated(payload=payload):
            yield from _announced(lab, payload)
        case IpiSent(payload=SyncCore()):
            yield "sync cores"
        case Invalidated(cpu=cpu, what=InvalidateAll()):
            yield f"cpu{cpu} drops all"
        case Invalidated(cpu=cpu, what=Invlpg(pages=pages)):
            yield f"cpu{cpu} drops {pages} pages"
        case Stored():
            yield from _stored(lab, event)
        case Copied(source_va=source) if source in {huge.folio for huge in lab.config.huge_pages}:
            yield "copy head page"


def _announced(lab: Lab, payload: object) -> Iterator[str]:
    match payload:
        case OperationBegun() | OperationReturned():
            yield "begin" if isinstance(payload, OperationBegun) else "return"
        case FlushBegun(function=function, start=start, end=end):
            pages = "" if (start, end) == EVERYWHERE else f" {(end - start) // PAGE} pages"
            yield f"{function}{pages}"
        case FlushCompleted():
            yield "flushed"
        case GracePeriodBegun():
            yield "synchronize_rcu"
        case GracePeriodEnded():
            yield "grace period over"
        case PageAllocated(purpose=purpose):
            yield f"allocate {purpose}"
        case AllocationFailed(purpose=purpose):
            yield f"no {purpose}"
        case PageFreed():
            yield "free"


def _stored(lab: Lab, event: Stored) -> Iterator[str]:
    if event.va == KEY:
        yield f"key {event.old} -> {event.value}"
    elif event.va in {huge.folio + 40 for huge in lab.config.huge_pages}:
        yield "flag set" if event.value & OPTIMIZED else "flag cleared"
    elif event.pa // PAGE in lab.tables().values():
        yield "set PTE"
    elif event.value & 0xFFF == 0x67 and event.value >> 12 in lab.tables().values():
        yield "set PMD"


SPLIT_FLUSH = ["flush_tlb_kernel_range 512 pages", "cpu0 drops all", "cpu1 drops all", "flushed"]
RANGE_FLUSH = ["flush_tlb_kernel_range 8 pages", "cpu0 drops 8 pages", "cpu1 drops 8 pages", "flushed"]
FLUSH_ALL = ["flush_tlb_all", "cpu0 drops all", "cpu1 drops all", "flushed"]
RCU = ["synchronize_rcu", "grace period over"]

HEAD = ["allocate vmemmap head page", "copy head page"]
REMAP_2M = ["flag set", *HEAD, "8 x set PTE"]
SPLIT = ["allocate page table", "set PMD"]
FIRST_KEY = ["key 0 -> 1", "sync cores"]
LAST_KEY = ["key 1 -> 0", "sync cores"]
