"""Bugs of the kernel's own order: a test, a copy, a wait or a flag that is missing or comes late."""

from __future__ import annotations

from hvolab.catalog.bugs.bug import bug
from hvolab.catalog.bugs.bug_setups import (
    error_while_growing,
    error_while_shrinking,
    frozen_tail,
    hotplugged,
    key_optimize,
    key_restore,
    rollback,
    second_error,
    split_neighbours,
    split_writer,
    up_and_down,
)
from hvolab.judge.verdict import Verdict
from hvolab.subject.scenario import Group, Scenario
from kernel_model.flush.broken import FLUSH_ALL_NO_OP
from kernel_model.variants import catalog as variants

UP_AND_DOWN = Scenario(
    "pool-up-and-down",
    Group.KERNEL,
    "nr_hugepages goes to 1 and back to 0, on one CPU: what can go wrong without anybody else?",
    "the page is optimized, linked into the pool, restored and freed, and everything is as before",
    "The list's links lie in the memory that is remapped: a flush that does nothing corrupts them.",
    1,
    frozenset(),
    up_and_down,
    (
        bug(
            FLUSH_ALL_NO_OP,
            Verdict.KERNEL,
            "\n".join(
                ["cpu0 until an IPI is sent"]
                + ["cpu0 translates 0xffffea0000100000 to pfn 0x7f00 rw 9 times"] * 11
            ),
        ),
        bug(
            variants.FLAG_AFTER_REMAP,
            Verdict.LOST_UPDATE,
            """
            cpu0 until an IPI is sent
            cpu0 translates 0xffffea0000100000 to pfn 0x7f00 rw
            """,
        ),
        bug(variants.RESET_TOO_SMALL, Verdict.KERNEL, "cpu0 to its end"),
        bug(variants.RESTORE_WITHOUT_COPY, Verdict.KERNEL, "cpu0 to its end"),
        bug(variants.ONE_PAGE_TOO_FEW, Verdict.KERNEL, "cpu0 to its end"),
    ),
)

FROZEN_TAIL = Scenario(
    "frozen-tail",
    Group.KERNEL,
    "A walker has seen the count of a tail that is frozen right then: does it write to the read-only page?",
    "no order is wrong: HVO waits for whoever looked before, and who looks later sees a count of 0",
    "Freezing keeps new writers out; only an RCU wait keeps out those who are already past the test.",
    2,
    frozenset(),
    frozen_tail,
    (
        bug(
            variants.NO_RCU_WAIT,
            Verdict.WRITE_PROTECT,
            """
            cpu0 until Store(0xffffea0000101034)
            cpu1 until Load(0xffffea0000101034) 2 times
            cpu0 as far as it goes
            cpu1 to its end
            """,
        ),
    ),
)

SPLIT_NEIGHBOURS = Scenario(
    "split-neighbours",
    Group.KERNEL,
    "Two CPUs find one and the same PMD to be a leaf: what does the second do with its page table?",
    "it looks again under the lock, finds a table, and gives its own back",
    "Without the second look the neighbour's remapped entries are replaced by those of the leaf.",
    2,
    frozenset(),
    split_neighbours,
    (
        bug(
            variants.SPLIT_WITHOUT_RECHECK,
            Verdict.USE_AFTER_FREE,
            """
            cpu0 until Store(0xffffea00001f0034)
            cpu1 until an IPI is sent 3 times
            cpu1 makes 1 step
            cpu0 as far as it goes
            cpu1 to its end
            """,
        ),
    ),
    flush=True,
)

SPLIT_WRITER = Scenario(
    "split-writer",
    Group.KERNEL,
    "A PMD is split while another CPU writes to a neighbour's head page: does the neighbour notice?",
    "no order is wrong: the table says what the leaf said",
    "Sixty-three other huge pages live behind the same PMD; a split must change nothing for them.",
    2,
    frozenset(),
    split_writer,
    (bug(variants.SPLIT_READ_ONLY, Verdict.WRITE_PROTECT, "cpu0 to its end\ncpu1 to its end"),),
    flush=True,
)

HOTPLUGGED = Scenario(
    "hotplugged",
    Group.KERNEL,
    "Vmemmap of hotplugged memory is an order-9 block that is not compound: can its pages be freed singly?",
    "they can: the split makes single pages of the block first",
    "Only the first page of such a block has a reference count.",
    1,
    frozenset(),
    hotplugged,
    (bug(variants.NO_SPLIT_PAGE, Verdict.KERNEL, "cpu0 to its end"),),
)

KEY_OPTIMIZE = Scenario(
    "key-optimize",
    Group.KERNEL,
    "compound_head() of a tail that becomes a fake head, one entry a page: when must the key be raised?",
    "no order is wrong on such a CPU: the key is raised, and every CPU told, before the first remap",
    "Who sees a fake head must already be looking for one.",
    2,
    frozenset(),
    key_optimize,
    (
        bug(
            variants.KEY_AFTER_REMAP,
            Verdict.WRONG_METADATA,
            """
            cpu0 until an IPI is sent 2 times
            cpu1 to its end
            """,
        ),
    ),
    flush=True,
)

KEY_RESTORE = Scenario(
    "key-restore",
    Group.KERNEL,
    "compound_head() of a fake head whose page is restored: how long must the key stay raised?",
    "no order is wrong: the key is lowered after the flush, when no CPU can see a fake head any more",
    "A cached translation shows the fake head for as long as it is not flushed.",
    2,
    frozenset(),
    key_restore,
    (
        bug(
            variants.KEY_BEFORE_FLUSH,
            Verdict.WRONG_METADATA,
            "cpu1 translates 0xffffea0000101000 to pfn 0x4201 ro",
        ),
        bug(
            variants.RESTORE_MAPS_BEFORE_COPY,
            Verdict.WRONG_METADATA,
            "cpu1 translates 0xffffea0000101000 to pfn 0x4201 ro",
        ),
    ),
    flush=True,
)

ERROR_WHILE_GROWING = Scenario(
    "error-while-growing",
    Group.KERNEL,
    "A memory error is reported in a folio that is on its way into the pool: who keeps it, and where?",
    "in this order the head does: the folio is hugetlb before its tails go",
    "Who takes the folio for an ordinary one writes to a tail that is read-only by then.",
    2,
    frozenset(),
    error_while_growing,
    (
        bug(
            variants.TYPE_SET_LATE,
            Verdict.WRITE_PROTECT,
            """
            cpu0 until free(pfn 0x7f00)
            cpu1 to its end
            """,
        ),
        bug(
            variants.HEAD_MAPPED_BEFORE_COPY,
            Verdict.WRITE_PROTECT,
            """
            cpu0 until set_pte_at(0xffffea0000100000)
            cpu1 until Load(0xffffea0000100030)
            """,
        ),
    ),
)

ERROR_WHILE_SHRINKING = Scenario(
    "error-while-shrinking",
    Group.KERNEL,
    "A memory error is reported in a folio that is leaving the pool, its tails missing: who keeps it?",
    "the folio stays hugetlb until they are: the error is kept with the head, then moved to its page",
    "Whoever clears the type under the lock and restores the vmemmap after it leaves a window between.",
    2,
    frozenset(),
    error_while_shrinking,
    (
        bug(
            variants.TYPE_CLEARED_EARLY,
            Verdict.WRITE_PROTECT,
            """
            cpu0 until copy_page(from 0xffff888007f060c0)
            cpu1 to its end
            """,
        ),
    ),
)

SECOND_ERROR = Scenario(
    "second-error",
    Group.KERNEL,
    "A folio with one memory error is dissolved while another is reported: is either forgotten?",
    "neither: when the errors are moved to their pages no new one can be kept with the head",
    "Moved first and type cleared after it, the second error stays with a head that is none any more.",
    2,
    frozenset(),
    second_error,
    (
        bug(
            variants.HWPOISON_BEFORE_TYPE,
            Verdict.KERNEL,
            """
            cpu0 until an IPI is sent
            cpu0 until Load(0xffffea0000100030)
            cpu1 to its end
            """,
        ),
    ),
)

ROLLBACK = Scenario(
    "rollback",
    Group.KERNEL,
    "Memory runs out when half of a folio's vmemmap is remapped: is everything as it was?",
    "the remapped half is restored, the folio joins the pool as it is, nothing is lost",
    "Rollback is the least tested code there is; in v7.1-rc it made a tail of the head page.",
    1,
    frozenset(),
    rollback,
    (bug(variants.ROLLBACK_FROM_TEMPLATE, Verdict.KERNEL, "cpu0 to its end"),),
)
