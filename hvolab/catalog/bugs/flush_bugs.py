"""Bugs that are a flush: it comes late, leaves somebody out, or does nothing; and CPUs that ignore it."""

from __future__ import annotations

from emu.paging.models import LAZY_ALDER_LAKE, LAZY_ERRATUM_383
from hvolab.catalog.bugs.bug import bug
from hvolab.catalog.bugs.bug_setups import (
    batch_reader,
    flush_head_reader,
    flush_reader,
    flush_sleeper,
    globals_reader,
    switching_cpu,
    unfreeze_before_sweep,
)
from hvolab.judge.verdict import Verdict
from hvolab.subject.scenario import Group, Scenario
from kernel_model.flush.broken import LOCAL_ONLY, NEVER, SKIPS_IDLE, SKIPS_LAST_CPU
from kernel_model.flush.lazy import LATR
from kernel_model.flush.switching import SKIP_SWITCHING_LATE
from kernel_model.variants import catalog as variants

FLUSH_READER = Scenario(
    "flush-reader",
    Group.FLUSH,
    "A folio is optimized while another CPU reads a tail three times: which flushes can be left out?",
    "no order is wrong: old frames may be read until the flush, and are freed only after it",
    "Every flush that is late, short of a CPU, or missing lets a freed frame be read.",
    2,
    frozenset(),
    flush_reader,
    (
        bug(
            variants.FREE_BEFORE_FLUSH,
            Verdict.USE_AFTER_FREE,
            """
            cpu0 until an IPI is sent 2 times
            cpu1 takes an interrupt
            cpu1 translates 0xffffea0000101000 to pfn 0x7f01 rw 3 times
            """,
        ),
        bug(
            LOCAL_ONLY,
            Verdict.MISSED_FLUSH,
            """
            cpu0 until an IPI is sent
            cpu1 takes an interrupt
            cpu1 translates 0xffffea0000101000 to pfn 0x7f01 rw 3 times
            """,
        ),
        bug(
            SKIPS_LAST_CPU,
            Verdict.MISSED_FLUSH,
            """
            cpu0 until an IPI is sent
            cpu1 takes an interrupt
            cpu1 translates 0xffffea0000101000 to pfn 0x7f01 rw 3 times
            """,
        ),
        bug(
            NEVER,
            Verdict.MISSED_FLUSH,
            """
            cpu0 until an IPI is sent
            cpu1 takes an interrupt
            cpu1 translates 0xffffea0000101000 to pfn 0x7f01 rw 3 times
            """,
        ),
        bug(
            variants.NO_FLUSH_AFTER_REMAP,
            Verdict.MISSED_FLUSH,
            """
            cpu0 until an IPI is sent 2 times
            cpu1 takes an interrupt
            cpu1 translates 0xffffea0000101000 to pfn 0x7f01 rw 3 times
            """,
        ),
        bug(
            variants.FREES_WITHOUT_UNMAPPING,
            Verdict.USE_AFTER_FREE,
            """
            cpu0 to its end
            cpu1 to its end
            """,
        ),
        bug(variants.TAILS_WRITABLE, Verdict.KERNEL, "cpu0 to its end"),
        bug(variants.WRITE_PROTECT_TOO_SHORT, Verdict.KERNEL, "cpu0 to its end"),
    ),
)

FLUSH_HEAD_READER = Scenario(
    "flush-head-reader",
    Group.FLUSH,
    "The same with a reader of the head page, which gets a new frame as well: is it flushed too?",
    "no order is wrong: the range that is flushed begins at the head page",
    "The page that is kept is remapped like the others; its old frame is freed like theirs.",
    2,
    frozenset(),
    flush_head_reader,
    (
        bug(
            variants.FLUSH_AFTER_REUSE,
            Verdict.MISSED_FLUSH,
            """
            cpu0 until an IPI is sent 3 times
            cpu1 takes an interrupt
            cpu1 translates 0xffffea0000100000 to pfn 0x7f00 rw 3 times
            """,
        ),
    ),
)

FLUSH_SLEEPER = Scenario(
    "flush-sleeper",
    Group.FLUSH,
    "A CPU has read a tail and goes idle: must a flush wake it?",
    "no order is wrong: idle or not, every CPU is interrupted",
    "What an idle CPU has cached it uses when it wakes, unless something makes it flush then.",
    2,
    frozenset(),
    flush_sleeper,
    (
        bug(
            SKIPS_IDLE,
            Verdict.MISSED_FLUSH,
            """
            cpu0 until an IPI is sent
            cpu1 until Store(0xffff888000402008)
            cpu1 takes an interrupt
            cpu0 to its end
            cpu1 translates 0xffffea0000101000 to pfn 0x7f01 rw
            """,
        ),
    ),
)


SWITCHING_CPU = Scenario(
    "switching-cpu",
    Group.FLUSH,
    "A CPU has read a tail and switches to another address space: may a flush leave it out meanwhile?",
    "no order is wrong: switching or not, every CPU is interrupted",
    "Who is left out has to find out by itself, and to look for that after nobody leaves it out any more.",
    2,
    frozenset(),
    switching_cpu,
    (
        bug(
            SKIP_SWITCHING_LATE,
            Verdict.MISSED_FLUSH,
            """
            cpu0 until an IPI is sent
            cpu1 takes an interrupt
            cpu1 until Load(0xffff888000402018)
            cpu0 to its end
            cpu1 translates 0xffffea0000101000 to pfn 0x7f01 rw
            """,
        ),
    ),
)


UNFREEZE_BEFORE_SWEEP = Scenario(
    "unfreeze-before-sweep",
    Group.FLUSH,
    "A folio is optimized and handed out to a CPU that has its head cached: may a flush of that be put off?",
    "no order is wrong: that CPU has flushed before the folio is handed out",
    "That the old head page is not freed yet helps nobody who writes to it.",
    2,
    frozenset(),
    unfreeze_before_sweep,
    (
        bug(
            LATR,
            Verdict.LOST_UPDATE,
            """
            cpu1 until Load(0xffffea0000100034)
            cpu0 to its end
            cpu1 translates 0xffffea0000100000 to pfn 0x7f00 rw
            """,
        ),
    ),
)


INVLPG_GLOBALS = Scenario(
    "invlpg-globals",
    Group.HARDWARE,
    "What if INVLPG leaves global entries, as on Alder Lake with PCIDs?",
    "no order is wrong on a CPU that does what it is told",
    "A kernel that does everything right reads freed memory; the CPU is named, not the kernel.",
    2,
    frozenset(),
    globals_reader,
    (
        bug(
            LAZY_ALDER_LAKE,
            Verdict.MISSED_FLUSH,
            """
            cpu0 until an IPI is sent 3 times
            cpu1 takes an interrupt
            cpu1 translates 0xffffea0000101000 to pfn 0x7f01 rw 2 times
            """,
        ),
    ),
)

TWO_SIZES = Scenario(
    "two-sizes",
    Group.HARDWARE,
    "A batch splits PMDs without a flush: may a CPU have entries of two sizes for one address?",
    "it may: both say the same, and most CPUs use either",
    "On AMD family 10h (erratum 383) that is a machine check; Linux has no work-around for vmemmap.",
    2,
    frozenset(),
    batch_reader,
    (bug(LAZY_ERRATUM_383, Verdict.TLB_MULTIHIT, "cpu0 until an IPI is sent"),),
)
