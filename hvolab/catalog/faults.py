"""Scenarios about writes to tail pages, which HVO maps read-only."""

from __future__ import annotations

from firmware.catalog import program
from hvolab.catalog.common import HUGE_PAGE, MEMORY_BYTES, optimize, restore
from hvolab.judge.verdict import Verdict
from hvolab.subject.pattern import Finishes, Loads, SetsPte
from hvolab.subject.scenario import Group, GuestActor, Scenario, Setup, vmemmap_page
from hvolab.subject.script import ToEnd, Until
from kernel_model.boot import BootConfig
from kernel_model.mm.page import Offset, field

HEAD = vmemmap_page(HUGE_PAGE, 0)
TAIL_1 = vmemmap_page(HUGE_PAGE, 1)
WORD = field(TAIL_1, Offset.PRIVATE)
VALUE = 0x1234


def _tail_write(cpus: int) -> Setup:
    return Setup(
        BootConfig(MEMORY_BYTES, cpus, (HUGE_PAGE,)),
        (optimize(0), GuestActor(1, program("write_tail"), (("word", int(WORD)), ("value", VALUE)))),
        (ToEnd(0), ToEnd(1)),
        (HEAD, TAIL_1),
    )


TAIL_WRITE = Scenario(
    "tail-write",
    Group.FAULT,
    "What happens to a write to a tail struct page of an optimized folio?",
    "a page fault with error code 3, which the handler's walk confirms: an Oops, a violation",
    "The read-only mapping is a trap: who writes to a tail would have written to the head's page.",
    2,
    frozenset({Verdict.WRITE_PROTECT}),
    _tail_write,
)


def _spurious_write(cpus: int) -> Setup:
    return Setup(
        BootConfig(MEMORY_BYTES, cpus, (HUGE_PAGE,)),
        (
            optimize(0),
            restore(0),
            GuestActor(1, program("read_then_write"), (("word", int(WORD)), ("value", VALUE))),
        ),
        (
            Until(0, Finishes("optimize")),
            Until(1, Loads(WORD)),
            Until(0, SetsPte(TAIL_1)),
            ToEnd(1),
            ToEnd(0),
        ),
        (HEAD, TAIL_1),
    )


SPURIOUS_WRITE = Scenario(
    "spurious-write",
    Group.FAULT,
    "Restore has made a tail writable: what does a CPU see that still holds the read-only entry?",
    "its write faults once, the handler's walk permits it, the retry succeeds: spurious, not a violation",
    "Read-only to writable needs no flush to be safe for writes: the fault itself drops the stale entry.",
    2,
    frozenset(),
    _spurious_write,
)
