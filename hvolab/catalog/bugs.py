"""Linux's own HVO bugs, and others one step away: each with the variant that has it, and an order to see it.

Without a variant a scenario is upstream's, and nothing goes wrong in it, in its own order or (see
docs/findings.md) in any other. The scripts were found by `hvolab explore NAME --variant V` and shrunk.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from emu.addr import Pfn
from emu.models import LAZY, LAZY_SINGLE
from emu.ops import Load, Store, ThisCpu
from firmware.catalog import program
from firmware.load import load_program
from firmware.program import Program
from hvolab.catalog.common import (
    HUGE_PAGE,
    MEMORY_BYTES,
    add_to_pool,
    dissolve,
    memory_failure,
    optimize,
    optimize_list,
    restore,
    shrink,
)
from hvolab.catalog.races import NEIGHBOUR, freeze
from hvolab.question import Asks, Question
from hvolab.scenario import Bug, Group, GuestActor, KernelActor, Scenario, Setup, vmemmap_page
from hvolab.script import ordering
from hvolab.script_text import parse_script
from hvolab.verdict import Verdict
from kernel_model.boot import BootConfig, Kernel, PoolAtBoot
from kernel_model.failures import FailAt
from kernel_model.hstate import Hstate
from kernel_model.image import HugePage, VmemmapOrigin
from kernel_model.kconfig import KernelConfig
from kernel_model.layout import FOLIO_LIST, PerCpu
from kernel_model.page import Offset, field, lru
from kernel_model.variants import catalog as variants
from kernel_model.variants.named import NamedVariant

HEAD = vmemmap_page(HUGE_PAGE, 0)
TAIL_1 = vmemmap_page(HUGE_PAGE, 1)
TAIL_WORD = field(TAIL_1, Offset.COMPOUND_HEAD)
HEAD_WORD = field(HUGE_PAGE.folio, Offset.PRIVATE)


def _ordered(scenario: Scenario) -> Scenario:
    """The scenario with the order of its first bug as its own, without what that asks of TLBs."""
    order = ordering(scenario.bugs[0].script)
    return replace(scenario, build=lambda cpus: replace(scenario.build(cpus), script=order))


def _bug(variant: NamedVariant, verdict: Verdict, script: str) -> Bug:
    return Bug(variant, verdict, parse_script(script))


def _boot(cpus: int) -> BootConfig:
    return BootConfig(MEMORY_BYTES, cpus, (HUGE_PAGE,), model=LAZY)


def _setup(boot: BootConfig, *actors: GuestActor | KernelActor) -> Setup:
    return Setup(boot, actors, (), (HEAD, TAIL_1))


# -- actors ----------------------------------------------------------------------------------------------


@cache
def _three_loads() -> Program:
    source = "mov rax, [rdi]\nmov rbx, [rdi]\nmov rcx, [rdi]\nhlt\n"
    return load_program("three_loads", source, arguments=program("read_twice").arguments)


def _reader(cpu: int, word: int) -> GuestActor:
    return GuestActor(cpu, _three_loads(), (("word", word),))


def _compound_head(cpu: int) -> GuestActor:
    asks = Asks(Question.COMPOUND_HEAD, TAIL_1, "rax")
    return GuestActor(cpu, program("compound_head"), (("page", int(TAIL_1)),), asks)


def _get_page(cpu: int) -> GuestActor:
    return GuestActor(cpu, program("get_page_unless_zero"), (("page", int(TAIL_1)),))


async def _reads_before_and_after_idling(kernel: Kernel, huge: HugePage) -> None:
    """A CPU that has the tail cached, sleeps for a while, and goes on where it was."""
    del kernel, huge
    idle = PerCpu(await ThisCpu()).idle
    await Load(TAIL_WORD)
    await Store(idle, 1)
    await Store(idle, 0)
    await Load(TAIL_WORD)


async def _grow(kernel: Kernel, huge: HugePage) -> None:
    """Growing the pool by one folio that has just been allocated and frozen."""
    await kernel.pool.init_new_hugetlb_folio(huge.folio)
    await kernel.lists.init(FOLIO_LIST)
    await kernel.lists.add(lru(huge.folio), FOLIO_LIST)
    await kernel.pool.prep_and_add_allocated_folios(huge.hstate, FOLIO_LIST)


async def _split(kernel: Kernel, huge: HugePage) -> None:
    await kernel.hvo.hugetlb_vmemmap_split_folio(huge.hstate, huge.folio)


async def _neighbour_up_and_down(kernel: Kernel, huge: HugePage) -> None:
    await kernel.hvo.hugetlb_vmemmap_optimize_folio(huge.hstate, NEIGHBOUR.folio)
    await kernel.hvo.hugetlb_vmemmap_restore_folio(huge.hstate, NEIGHBOUR.folio)


async def _writes_to_neighbours_head(kernel: Kernel, huge: HugePage) -> None:
    del kernel, huge
    await Store(field(NEIGHBOUR.folio, Offset.PRIVATE), 1)


# -- setups ----------------------------------------------------------------------------------------------


def _flush_reader(cpus: int) -> Setup:
    return _setup(_boot(cpus), optimize(0), _reader(1, TAIL_WORD))


def _flush_head_reader(cpus: int) -> Setup:
    return _setup(_boot(cpus), optimize(0), _reader(1, HEAD_WORD))


def _flush_sleeper(cpus: int) -> Setup:
    sleeper = KernelActor(1, "sleeper", _reads_before_and_after_idling)
    return _setup(_boot(cpus), optimize(0), sleeper)


def _up_and_down(cpus: int) -> Setup:
    # Without poison, as on the machines that met these: what is read by mistake looks like what was there.
    kernel = KernelConfig(page_poisoning=False)
    boot = BootConfig(MEMORY_BYTES, cpus, (HUGE_PAGE,), model=LAZY, kernel=kernel)
    return _setup(boot, add_to_pool(0), shrink(0))


def _frozen_tail(cpus: int) -> Setup:
    return _setup(_boot(cpus), KernelActor(0, "freeze", freeze), optimize(0), _get_page(1))


def _two(cpus: int) -> BootConfig:
    return BootConfig(MEMORY_BYTES, cpus, (HUGE_PAGE, NEIGHBOUR), model=LAZY)


def _split_neighbours(cpus: int) -> Setup:
    down = KernelActor(1, "neighbour", _neighbour_up_and_down)
    return _setup(_two(cpus), KernelActor(0, "split", _split), down)


def _split_writer(cpus: int) -> Setup:
    return _setup(_two(cpus), optimize(0), KernelActor(1, "writer", _writes_to_neighbours_head))


def _hotplugged(cpus: int) -> Setup:
    boot = BootConfig(MEMORY_BYTES, cpus, (HUGE_PAGE,), model=LAZY, origin=VmemmapOrigin.HOTPLUG)
    return _setup(boot, optimize(0))


def _key_optimize(cpus: int) -> Setup:
    boot = BootConfig(MEMORY_BYTES, cpus, (HUGE_PAGE,), model=LAZY_SINGLE)
    return _setup(boot, optimize(0), _compound_head(1))


def _key_restore(cpus: int) -> Setup:
    boot = BootConfig(MEMORY_BYTES, cpus, (HUGE_PAGE,), model=LAZY_SINGLE, pool=PoolAtBoot.POOLED)
    return _setup(boot, restore(0), _compound_head(1))


def _error_while_growing(cpus: int) -> Setup:
    # Without CONFIG_DEBUG_VM: the warning that came with the fix would tell before anything happens.
    kernel = KernelConfig(debug_vm=False)
    boot = BootConfig(MEMORY_BYTES, cpus, (HUGE_PAGE,), model=LAZY, kernel=kernel)
    return _setup(boot, KernelActor(0, "grow", _grow), memory_failure(1))


def _pooled(cpus: int) -> BootConfig:
    return BootConfig(MEMORY_BYTES, cpus, (HUGE_PAGE,), model=LAZY, pool=PoolAtBoot.POOLED)


def _error_while_shrinking(cpus: int) -> Setup:
    kernel = KernelConfig(debug_vm=False)
    boot = BootConfig(MEMORY_BYTES, cpus, (HUGE_PAGE,), model=LAZY, kernel=kernel, pool=PoolAtBoot.POOLED)
    return _setup(boot, shrink(0), memory_failure(1))


async def _another_error(kernel: Kernel, huge: HugePage) -> None:
    await kernel.pool.memory_failure(vmemmap_page(huge, 1))  # page 64 of the folio


def _second_error(cpus: int) -> Setup:
    return _setup(
        _pooled(cpus), memory_failure(0), dissolve(0), KernelActor(1, "second error", _another_error)
    )


# 4 MiB of vmemmap behind two PMDs: the second of which cannot be split any more.
LARGE = HugePage(Pfn(0x10000), Hstate("256M", 16))


def _rollback(cpus: int) -> Setup:
    boot = BootConfig(768 << 20, cpus, (LARGE,), model=LAZY, failures=FailAt(frozenset({1, 3, 4})))
    return Setup(boot, (add_to_pool(0),), (), (vmemmap_page(LARGE, 0), vmemmap_page(LARGE, 1)))


def _batch_reader(cpus: int) -> Setup:
    return _setup(_boot(cpus), optimize_list(0), _reader(1, TAIL_WORD))


# -- scenarios -------------------------------------------------------------------------------------------

FLUSH_READER = Scenario(
    "flush-reader",
    Group.FLUSH,
    "A folio is optimized while another CPU reads a tail three times: which flushes can be left out?",
    "no order is wrong: old frames may be read until the flush, and are freed only after it",
    "Every flush that is late, short of a CPU, or missing lets a freed frame be read.",
    2,
    frozenset(),
    _flush_reader,
    (
        _bug(
            variants.FREE_BEFORE_FLUSH,
            Verdict.USE_AFTER_FREE,
            """
            cpu0 until an IPI is sent 2 times
            cpu1 takes an interrupt
            cpu1 translates 0xffffea0000101000 to pfn 0x7f01 rw 3 times
            """,
        ),
        _bug(
            variants.LOCAL_ONLY_FLUSH,
            Verdict.MISSED_FLUSH,
            """
            cpu0 until an IPI is sent
            cpu1 takes an interrupt
            cpu1 translates 0xffffea0000101000 to pfn 0x7f01 rw 3 times
            """,
        ),
        _bug(
            variants.FLUSH_SKIPS_ONE,
            Verdict.MISSED_FLUSH,
            """
            cpu0 until an IPI is sent
            cpu1 takes an interrupt
            cpu1 translates 0xffffea0000101000 to pfn 0x7f01 rw 3 times
            """,
        ),
        _bug(
            variants.NO_FLUSH_AT_ALL,
            Verdict.MISSED_FLUSH,
            """
            cpu0 until an IPI is sent
            cpu1 takes an interrupt
            cpu1 translates 0xffffea0000101000 to pfn 0x7f01 rw 3 times
            """,
        ),
        _bug(
            variants.NO_FLUSH_AFTER_REMAP,
            Verdict.MISSED_FLUSH,
            """
            cpu0 until an IPI is sent 2 times
            cpu1 takes an interrupt
            cpu1 translates 0xffffea0000101000 to pfn 0x7f01 rw 3 times
            """,
        ),
        _bug(
            variants.FREES_WITHOUT_UNMAPPING,
            Verdict.USE_AFTER_FREE,
            """
            cpu0 to its end
            cpu1 to its end
            """,
        ),
        _bug(variants.TAILS_WRITABLE, Verdict.KERNEL, "cpu0 to its end"),
        _bug(variants.WRITE_PROTECT_TOO_SHORT, Verdict.KERNEL, "cpu0 to its end"),
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
    _flush_head_reader,
    (
        _bug(
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
    _flush_sleeper,
    (
        _bug(
            variants.FLUSH_SKIPS_IDLE,
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

UP_AND_DOWN = Scenario(
    "pool-up-and-down",
    Group.KERNEL,
    "nr_hugepages goes to 1 and back to 0, on one CPU: what can go wrong without anybody else?",
    "the page is optimized, linked into the pool, restored and freed, and everything is as before",
    "The list's links lie in the memory that is remapped: a flush that does nothing corrupts them.",
    1,
    frozenset(),
    _up_and_down,
    (
        _bug(
            variants.NO_OP_FLUSH_ALL,
            Verdict.KERNEL,
            "\n".join(
                ["cpu0 until an IPI is sent"]
                + ["cpu0 translates 0xffffea0000100000 to pfn 0x7f00 rw 9 times"] * 11
            ),
        ),
        _bug(
            variants.FLAG_AFTER_REMAP,
            Verdict.LOST_UPDATE,
            """
            cpu0 until an IPI is sent
            cpu0 translates 0xffffea0000100000 to pfn 0x7f00 rw
            """,
        ),
        _bug(variants.RESET_TOO_SMALL, Verdict.KERNEL, "cpu0 to its end"),
        _bug(variants.RESTORE_WITHOUT_COPY, Verdict.KERNEL, "cpu0 to its end"),
        _bug(variants.ONE_PAGE_TOO_FEW, Verdict.KERNEL, "cpu0 to its end"),
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
    _frozen_tail,
    (
        _bug(
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
    _split_neighbours,
    (
        _bug(
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
)

SPLIT_WRITER = Scenario(
    "split-writer",
    Group.KERNEL,
    "A PMD is split while another CPU writes to a neighbour's head page, which nobody remaps",
    "no order is wrong: the table says what the leaf said",
    "Sixty-three other huge pages live behind the same PMD; a split must change nothing for them.",
    2,
    frozenset(),
    _split_writer,
    (_bug(variants.SPLIT_READ_ONLY, Verdict.WRITE_PROTECT, "cpu0 to its end\ncpu1 to its end"),),
)

HOTPLUGGED = Scenario(
    "hotplugged",
    Group.KERNEL,
    "Vmemmap of hotplugged memory is an order-9 block that is not compound: can its pages be freed singly?",
    "they can: the split makes single pages of the block first",
    "Only the first page of such a block has a reference count.",
    1,
    frozenset(),
    _hotplugged,
    (_bug(variants.NO_SPLIT_PAGE, Verdict.KERNEL, "cpu0 to its end"),),
)

KEY_OPTIMIZE = Scenario(
    "key-optimize",
    Group.KERNEL,
    "compound_head() of a tail that becomes a fake head, one entry a page: when must the key be raised?",
    "no order is wrong on such a CPU: the key is raised, and every CPU told, before the first remap",
    "Who sees a fake head must already be looking for one.",
    2,
    frozenset(),
    _key_optimize,
    (
        _bug(
            variants.KEY_AFTER_REMAP,
            Verdict.WRONG_METADATA,
            """
            cpu0 until an IPI is sent 2 times
            cpu1 to its end
            """,
        ),
    ),
)

KEY_RESTORE = Scenario(
    "key-restore",
    Group.KERNEL,
    "compound_head() of a fake head whose page is restored: how long must the key stay raised?",
    "no order is wrong: the key is lowered after the flush, when no CPU can see a fake head any more",
    "A cached translation shows the fake head for as long as it is not flushed.",
    2,
    frozenset(),
    _key_restore,
    (
        _bug(
            variants.KEY_BEFORE_FLUSH,
            Verdict.WRONG_METADATA,
            "cpu1 translates 0xffffea0000101000 to pfn 0x4201 ro",
        ),
        _bug(
            variants.RESTORE_MAPS_BEFORE_COPY,
            Verdict.WRONG_METADATA,
            "cpu1 translates 0xffffea0000101000 to pfn 0x4201 ro",
        ),
    ),
)

ERROR_WHILE_GROWING = Scenario(
    "error-while-growing",
    Group.KERNEL,
    "A memory error is reported in a folio that is on its way into the pool: who keeps it, and where?",
    "in this order the head does: the folio is hugetlb before its tails go",
    "Who takes the folio for an ordinary one writes to a tail that is read-only by then.",
    2,
    frozenset(),
    _error_while_growing,
    (
        _bug(
            variants.TYPE_SET_LATE,
            Verdict.WRITE_PROTECT,
            """
            cpu0 until free(pfn 0x7f00)
            cpu1 to its end
            """,
        ),
        _bug(
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
    "A memory error is reported in a folio that is on its way out of the pool, its tails not there yet",
    "the folio stays hugetlb until they are: the error is kept with the head, then moved to its page",
    "Whoever clears the type under the lock and restores the vmemmap after it leaves a window between.",
    2,
    frozenset(),
    _error_while_shrinking,
    (
        _bug(
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
    _second_error,
    (
        _bug(
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
    _rollback,
    (_bug(variants.ROLLBACK_FROM_TEMPLATE, Verdict.KERNEL, "cpu0 to its end"),),
)

INVLPG_GLOBALS = Scenario(
    "invlpg-globals",
    Group.HARDWARE,
    "What if INVLPG leaves global entries, as on Alder Lake with PCIDs?",
    "no order is wrong on a CPU that does what it is told",
    "A kernel that does everything right reads freed memory; the CPU is named, not the kernel.",
    2,
    frozenset(),
    _flush_reader,
    (
        _bug(
            variants.INVLPG_SPARES_GLOBALS,
            Verdict.MODEL_ERROR,
            """
            cpu0 until an IPI is sent 3 times
            cpu1 takes an interrupt
            cpu1 translates 0xffffea0000101000 to pfn 0x7f01 rw 3 times
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
    _batch_reader,
    (_bug(variants.ERRATUM_383, Verdict.TLB_MULTIHIT, "cpu0 until an IPI is sent"),),
)

BUGS: tuple[Scenario, ...] = tuple(
    _ordered(scenario)
    for scenario in (
        FLUSH_READER,
        FLUSH_HEAD_READER,
        FLUSH_SLEEPER,
        UP_AND_DOWN,
        FROZEN_TAIL,
        SPLIT_NEIGHBOURS,
        SPLIT_WRITER,
        HOTPLUGGED,
        KEY_OPTIMIZE,
        KEY_RESTORE,
        ERROR_WHILE_GROWING,
        ERROR_WHILE_SHRINKING,
        SECOND_ERROR,
        ROLLBACK,
        INVLPG_GLOBALS,
        TWO_SIZES,
    )
)
