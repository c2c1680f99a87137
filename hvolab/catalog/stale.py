"""Scenarios in which a CPU uses what its TLB remembers, or the kernel forgets who may."""

from __future__ import annotations

from emu.addr import PAGE_SHIFT, VirtAddr
from firmware.catalog import program
from hvolab.catalog.common import HUGE_PAGE, MEMORY_BYTES, flush_all, optimize
from hvolab.judge.verdict import Verdict
from hvolab.subject.pattern import BeginsFlush, CopiesFrom, Frees, Loads, SendsIpi, SetsPte
from hvolab.subject.scenario import Group, GuestActor, Scenario, Setup, vmemmap_page
from hvolab.subject.script import Interrupt, ToEnd, Until
from kernel_model.boot import BootConfig, blocks_at_the_top
from kernel_model.flush.broken import SKIPS_LAST_CPU
from kernel_model.layout import VMEMMAP_START
from kernel_model.mm.page import Offset, field
from kernel_model.variants.catalog import FREE_BEFORE_FLUSH

HEAD = vmemmap_page(HUGE_PAGE, 0)
TAIL_1 = vmemmap_page(HUGE_PAGE, 1)
# The word at +8 of the first struct page in the first tail page: compound_head of a tail, lru of a fake head.
WORD = field(TAIL_1, Offset.COMPOUND_HEAD)


def _first_frame_of(page: VirtAddr) -> int:
    """The frame that backs a page of vmemmap at boot."""
    first = blocks_at_the_top(MEMORY_BYTES)[VirtAddr(VMEMMAP_START)]
    return first + ((page - VMEMMAP_START) >> PAGE_SHIFT)


def _reader(cpu: int) -> GuestActor:
    return GuestActor(cpu, program("read_twice"), (("word", int(WORD)),))


def _stale_read(cpus: int) -> Setup:
    return Setup(
        BootConfig(MEMORY_BYTES, cpus, (HUGE_PAGE,)),
        (optimize(0), _reader(1)),
        (Until(0, SetsPte(HEAD)), Until(1, Loads(WORD)), Until(0, SetsPte(TAIL_1)), ToEnd(1), ToEnd(0)),
        (HEAD, TAIL_1),
    )


STALE_READ = Scenario(
    "stale-read",
    Group.STALE,
    "May another CPU still read the old tail page between the store of the PTE and the flush?",
    "cpu1's second load comes from the old frame, through its TLB: legal, the kernel has not freed it yet",
    "Until the flush, both frames are right answers; HVO frees the old one only after it.",
    2,
    frozenset(),
    _stale_read,
)


def _flush_begun_before(cpus: int) -> Setup:
    return Setup(
        BootConfig(MEMORY_BYTES, cpus, (HUGE_PAGE,)),
        (optimize(0), _reader(1), flush_all(2)),
        (
            Until(0, SetsPte(HEAD)),
            Until(2, BeginsFlush()),
            Until(2, SendsIpi()),
            Interrupt(1),
            Until(1, Loads(WORD)),
            Until(0, SetsPte(TAIL_1)),
            ToEnd(2),
            ToEnd(1),
            ToEnd(0),
        ),
        (HEAD, TAIL_1),
    )


FLUSH_BEGUN_BEFORE = Scenario(
    "flush-begun-before",
    Group.STALE,
    "Does somebody else's flush, begun before the store and completed after it, end the old entry's life?",
    "cpu1 took that flush before it cached the entry again: its stale load is legal, nothing was missed",
    "A flush covers a store only if it began after it; a checker that looks at completion alone cries wolf.",
    3,
    frozenset(),
    _flush_begun_before,
)


def _use_after_free(cpus: int) -> Setup:
    return Setup(
        BootConfig(MEMORY_BYTES, cpus, (HUGE_PAGE,), variant=FREE_BEFORE_FLUSH),
        (optimize(0), _reader(1)),
        (
            Until(0, SetsPte(HEAD)),
            Until(1, Loads(WORD)),
            Until(0, Frees(_first_frame_of(TAIL_1))),
            ToEnd(1),
            ToEnd(0),
        ),
        (HEAD, TAIL_1),
    )


USE_AFTER_FREE = Scenario(
    "use-after-free",
    Group.STALE,
    "What does that CPU read when the pages are freed before the flush?",
    "cpu1's second load reads the freed frame, poison and all: a violation",
    "Store the entry, flush everywhere, and only then free the frame: this variant has the last two swapped.",
    2,
    frozenset({Verdict.USE_AFTER_FREE}),
    _use_after_free,
)


def _missed_cpu(cpus: int) -> Setup:
    last = cpus - 1
    return Setup(
        BootConfig(MEMORY_BYTES, cpus, (HUGE_PAGE,), policy=SKIPS_LAST_CPU),
        (optimize(0), _reader(last)),
        (Until(0, SetsPte(HEAD)), Until(last, Loads(WORD)), ToEnd(0), ToEnd(last)),
        (HEAD, TAIL_1),
    )


MISSED_CPU = Scenario(
    "missed-cpu",
    Group.STALE,
    "What if the flush leaves one CPU out?",
    "the CPU left out goes on reading the old frame after the flush is over: a violation",
    "The kernel relied on the flush, freed the frame, and this CPU never heard of it.",
    2,
    frozenset({Verdict.MISSED_FLUSH}),
    _missed_cpu,
)

HEAD_WORD = field(HUGE_PAGE.folio, Offset.INDEX)


def _lost_update(cpus: int) -> Setup:
    return Setup(
        BootConfig(MEMORY_BYTES, cpus, (HUGE_PAGE,)),
        (optimize(0), GuestActor(1, program("write_head"), (("word", int(HEAD_WORD)), ("value", 0x1234)))),
        (Until(0, CopiesFrom(HEAD)), ToEnd(1), ToEnd(0)),
        (HEAD, TAIL_1),
    )


LOST_UPDATE = Scenario(
    "lost-update",
    Group.STALE,
    "What becomes of a store to the head struct page made after HVO copied it and before it remaps it?",
    "the store lands in the old frame and is gone when the head moves: a violation, without any stale entry",
    "The copy is the moment of truth: whoever may write a head must be kept out from then until the flush.",
    2,
    frozenset({Verdict.LOST_UPDATE}),
    _lost_update,
)
