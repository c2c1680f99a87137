"""Memory runs out while the pool shrinks: what cannot be restored stays; what can pays for the rest."""

from __future__ import annotations

from emu.addr import Pfn
from emu.paging.models import LAZY
from hvolab.catalog.bugs.bug import bug
from hvolab.catalog.common import HUGE_PAGE, MEMORY_BYTES, shrink
from hvolab.catalog.races import NEIGHBOUR
from hvolab.catalog.readers import compound_head
from hvolab.judge.verdict import Verdict
from hvolab.subject.scenario import Group, KernelActor, Scenario, Setup, vmemmap_page
from kernel_model.boot import BootConfig, Kernel, PoolAtBoot
from kernel_model.layout import FOLIO_LIST
from kernel_model.mm.failures import AllocationFailures, FailAt, FailUntilFreed
from kernel_model.mm.hstate import Hstate
from kernel_model.mm.image import HugePage
from kernel_model.variants import catalog as variants

# Each of the two folios needs seven pages. The first of the list's fails, then the first of either singly.
NOTHING_AT_ALL = FailAt(frozenset({0, 1, 2}))
# The first folio gets its seven; then there is nothing more until it is freed.
NOTHING_FOR_THE_SECOND = FailUntilFreed(7)


async def _shrink_again(kernel: Kernel, huge: HugePage) -> None:
    """Surplus pages are made persistent ones by whoever wants as many, and can be given up again."""
    await kernel.pool.set_max_huge_pages(huge.hstate, 2)
    await kernel.pool.set_max_huge_pages(huge.hstate, 0)


def _setup(cpus: int, failures: AllocationFailures, *actors: KernelActor) -> Setup:
    pages = (HUGE_PAGE, NEIGHBOUR)
    boot = BootConfig(MEMORY_BYTES, cpus, pages, model=LAZY, pool=PoolAtBoot.POOLED, failures=failures)
    return Setup(boot, actors, (), (vmemmap_page(HUGE_PAGE, 0), vmemmap_page(HUGE_PAGE, 1)))


def out_of_memory(cpus: int) -> Setup:
    again = KernelActor(0, "shrink-again", _shrink_again)
    return _setup(cpus, NOTHING_AT_ALL, shrink(0), again)


def bulk_retry(cpus: int) -> Setup:
    return _setup(cpus, NOTHING_FOR_THE_SECOND, shrink(0))


RESTORE_OUT_OF_MEMORY = Scenario(
    "restore-out-of-memory",
    Group.KERNEL,
    "nr_hugepages goes to 0, and there is no memory for the vmemmap of either page: what becomes of them?",
    "both stay, free and surplus, optimized as before; given up again later, they go",
    "Freeing a huge page needs memory first. Its flag is wiped on the way back, and must be set again.",
    1,
    frozenset(),
    out_of_memory,
    (bug(variants.SURPLUS_LOSES_FLAG, Verdict.WRITE_PROTECT, "cpu0 to its end"),),
)

RESTORE_BULK_RETRY = Scenario(
    "restore-bulk-retry",
    Group.KERNEL,
    "Two pages leave the pool, and memory lasts for the vmemmap of one: is the other stuck?",
    "it is not: the one that was restored is freed first, and pays for the vmemmap of the other",
    "A restored page that waits on a list for its batch is memory; freed, it must leave the list.",
    1,
    frozenset(),
    bulk_retry,
    (bug(variants.FREED_STAYS_LISTED, Verdict.KERNEL, "cpu0 to its end"),),
)

# Large enough that two entries of the page directory map the vmemmap of one, so that it can fail half-way.
_LARGE = Hstate("256M", 16)
_FIRST, _SECOND = HugePage(Pfn(0x10000), _LARGE), HugePage(Pfn(0x20000), _LARGE)
# The last page table of the second folio, first when all are split and then when it is remapped.
THE_LAST_TABLE = FailAt(frozenset({3, 6}))


async def _optimize_both(kernel: Kernel, huge: HugePage) -> None:
    await kernel.hvo.hugetlb_vmemmap_optimize_folios(huge.hstate, FOLIO_LIST)


def rollback_second(cpus: int) -> Setup:
    boot = BootConfig(1024 << 20, cpus, (_FIRST, _SECOND), model=LAZY, failures=THE_LAST_TABLE)
    tail = vmemmap_page(_FIRST, 1)
    reader = compound_head(1, tail)
    return Setup(boot, (KernelActor(0, "optimize-both", _optimize_both), reader), (), (tail,))


ROLLBACK_SECOND = Scenario(
    "rollback-second",
    Group.KERNEL,
    "Of two folios the second is rolled back half-way: whose is a tail of the first that is still cached?",
    "the first's: what was taken out last comes back first, and its old page stays on the list",
    "On the list lie the pages of both folios. Another order maps one's old page as the other's new one.",
    2,
    frozenset(),
    rollback_second,
    (
        bug(
            variants.ROLLBACK_NOT_LIFO,
            Verdict.WRONG_METADATA,
            """
            cpu0 until a flush begins 2 times
            cpu1 translates 0xffffea0000401000 to pfn 0x3f401 rw
            cpu1 to its end
            """,
        ),
    ),
)

FAILURES: tuple[Scenario, ...] = (RESTORE_OUT_OF_MEMORY, RESTORE_BULK_RETRY)
