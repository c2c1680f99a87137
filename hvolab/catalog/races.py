"""Upstream's code against what may run beside it: scenarios for `explore`, which takes every order.

Their own order is only an example: the operation first, then who races with it.
"""

from __future__ import annotations

from emu.addr import Pfn
from emu.cpu.ops import Store
from hvolab.catalog.common import HUGE_PAGE, MEMORY_BYTES, optimize, restore
from hvolab.catalog.readers import compound_head, get_page, three_loads
from hvolab.subject.scenario import Group, GuestActor, KernelActor, Scenario, Setup, vmemmap_page
from kernel_model.boot import BootConfig, Kernel
from kernel_model.mm.hstate import HSTATE_2M
from kernel_model.mm.image import HugePage
from kernel_model.mm.page import Offset, field

HEAD = vmemmap_page(HUGE_PAGE, 0)
TAIL_1 = vmemmap_page(HUGE_PAGE, 1)
WORD = field(TAIL_1, Offset.COMPOUND_HEAD)
# The next folio: its vmemmap lies behind the same PMD.
NEIGHBOUR = HugePage(Pfn(0x4200), HSTATE_2M)


async def _optimize_neighbour(kernel: Kernel, huge: HugePage) -> None:
    await kernel.hvo.hugetlb_vmemmap_optimize_folio(huge.hstate, NEIGHBOUR.folio)


async def _restore_neighbour(kernel: Kernel, huge: HugePage) -> None:
    await kernel.hvo.hugetlb_vmemmap_restore_folio(huge.hstate, NEIGHBOUR.folio)


async def freeze(kernel: Kernel, huge: HugePage) -> None:
    """What the pool does before: a tail page that was in use a moment ago gets its count back to 0."""
    del kernel
    count = field(vmemmap_page(huge, 1), Offset.REFCOUNT)
    await Store(count, 1, 4)
    await Store(count, 0, 4)


async def _unfreeze(kernel: Kernel, huge: HugePage) -> None:
    """And after: the folio is handed out, its head counts 1."""
    del kernel
    await Store(field(huge.folio, Offset.REFCOUNT), 1, 4)


def _setup(cpus: int, *actors: GuestActor | KernelActor) -> Setup:
    return Setup(BootConfig(MEMORY_BYTES, cpus, (HUGE_PAGE, NEIGHBOUR)), actors, (), (HEAD, TAIL_1))


READER = Scenario(
    "optimize-reader",
    Group.RACE,
    "Upstream's optimize against a CPU that loads one tail word three times: is any order wrong?",
    "no order is: old frames may be read until the flush, and are freed only after it",
    "Store the entries, flush, free: in this order a reader may be late, but never wrong.",
    2,
    frozenset(),
    lambda cpus: _setup(cpus, optimize(0), three_loads(1, WORD)),
)

COMPOUND_HEAD = Scenario(
    "optimize-compound-head",
    Group.RACE,
    "Upstream's optimize against compound_head() of a tail that becomes a fake head: is it ever wrong?",
    "not in this order; `explore` finds a CPU that uses the new translation first and then the old one",
    "The key orders code, not TLBs: on a CPU that may hold both (docs/findings.md) the test can miss.",
    2,
    frozenset(),
    lambda cpus: _setup(cpus, optimize(0), compound_head(1, TAIL_1)),
)

GET_PAGE = Scenario(
    "optimize-get-page",
    Group.RACE,
    "Upstream's optimize against get_page_unless_zero() on a frozen tail: does it ever write there?",
    "no order is wrong: the count is 0, so the compare-exchange is never reached",
    "Freezing keeps writers out of read-only tails; the static key and RCU cover who looked before.",
    2,
    frozenset(),
    lambda cpus: _setup(cpus, optimize(0), get_page(1, TAIL_1)),
)

FREEZE_GET_PAGE = Scenario(
    "freeze-get-page",
    Group.RACE,
    "The same with a tail that was in use a moment ago: does the RCU wait cover who still saw its count?",
    "it does: who read the old count is waited for before the tail becomes read-only",
    "bd225530a4c7 (v6.10) put the wait between the freeze and the remap for exactly these.",
    2,
    frozenset(),
    lambda cpus: _setup(cpus, KernelActor(0, "freeze", freeze), optimize(0), get_page(1, TAIL_1)),
)

UNFREEZE_GET_PAGE = Scenario(
    "unfreeze-get-page",
    Group.RACE,
    "And when the folio is handed out right afterwards: is the fake-head test before the count early enough?",
    "in its own order nothing is wrong; `explore` finds the order in which v6.12 writes to a read-only tail",
    "A known weakness of this revision: the test and the count straddle the remap (docs/findings.md).",
    2,
    frozenset(),
    lambda cpus: _setup(
        cpus,
        KernelActor(0, "freeze", freeze),
        optimize(0),
        KernelActor(0, "unfreeze", _unfreeze),
        get_page(1, TAIL_1),
    ),
)

RESTORE_READER = Scenario(
    "restore-reader",
    Group.RACE,
    "Upstream's optimize and restore against the three-load reader: is any order wrong?",
    "no order is: restored pages hold what the tails showed",
    "Restore makes new frames and copies before it maps; what a late reader has is the shared head page.",
    2,
    frozenset(),
    lambda cpus: _setup(cpus, optimize(0), restore(0), three_loads(1, WORD)),
)

NEIGHBOURS = Scenario(
    "optimize-neighbours",
    Group.RACE,
    "Two CPUs optimize neighbouring folios behind one PMD: who splits it, and does the other notice?",
    "one splits, the other finds a table under the lock and gives its own page table back",
    "The re-check under init_mm.page_table_lock came with that lock (d8d55f5616cf): without it both split.",
    2,
    frozenset(),
    lambda cpus: _setup(cpus, optimize(0), KernelActor(1, "optimize neighbour", _optimize_neighbour)),
)

RESTORE_NEIGHBOUR = Scenario(
    "restore-neighbour",
    Group.RACE,
    "One CPU optimizes a folio, another its neighbour, which it restores: what do they share?",
    "they share the PMD, the static key and the zone lock, and nothing else",
    "HVO takes no lock across an operation: owning the folio is what keeps two of them apart.",
    2,
    frozenset(),
    lambda cpus: _setup(
        cpus,
        optimize(0),
        KernelActor(1, "optimize neighbour", _optimize_neighbour),
        KernelActor(1, "restore neighbour", _restore_neighbour),
    ),
)
