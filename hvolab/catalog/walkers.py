"""Upstream's optimize against who looks at struct pages by number, or finds them in page tables.

Scenarios for `explore`, like those in `races`: their own order is only an example. The readers are guest
programs; two are of another release than the port, to set what was before and the fix beside what v6.12 does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from emu.addr import VirtAddr
from emu.cpu.ops import Store
from firmware.catalog import program
from hvolab.catalog.common import HUGE_PAGE, MEMORY_BYTES, optimize
from hvolab.catalog.races import FREEZE_GET_PAGE, UNFREEZE_GET_PAGE
from hvolab.judge.question import Asks, PageQuestion
from hvolab.subject.scenario import Group, GuestActor, KernelActor, Scenario, Setup, vmemmap_page
from kernel_model.boot import BootConfig, Kernel
from kernel_model.layout import PerCpu
from kernel_model.mm.image import HugePage
from kernel_model.mm.page import Offset, field
from kernel_model.mm.page_ref import page_ref_freeze

HEAD = vmemmap_page(HUGE_PAGE, 0)
TAIL_1 = vmemmap_page(HUGE_PAGE, 1)
# The page-table entry that maps the huge page somewhere: a word that nobody else uses.
ENTRY = VirtAddr(PerCpu(0).buffer + 0x400)


def _setup(cpus: int, *actors: GuestActor | KernelActor) -> Setup:
    return Setup(BootConfig(MEMORY_BYTES, cpus, (HUGE_PAGE,)), actors, (), (HEAD, TAIL_1))


def _read_by(scenario: Scenario, name: str) -> Callable[[int], Setup]:
    """The setups of a scenario with another program as its reader."""

    def reader(actor: GuestActor | KernelActor) -> GuestActor | KernelActor:
        return replace(actor, program=program(name)) if isinstance(actor, GuestActor) else actor

    def build(cpus: int) -> Setup:
        setup = scenario.build(cpus)
        return replace(setup, actors=tuple(reader(actor) for actor in setup.actors))

    return build


# -- actors ----------------------------------------------------------------------------------------------


def _kpageflags(cpu: int) -> GuestActor:
    """Of the first struct page in the first tail page: reported as a tail (1) or not (0)."""
    asks = Asks(PageQuestion.PAGE_TAIL, TAIL_1, "r10")
    return GuestActor(cpu, program("kpageflags"), (("first", int(TAIL_1)), ("count", 1)), asks)


def _compaction(cpu: int) -> GuestActor:
    return GuestActor(cpu, program("isolate_migratepages"), (("first", int(TAIL_1)), ("count", 1)))


def _gup_fast(cpu: int) -> GuestActor:
    return GuestActor(cpu, program("gup_fast"), (("entry", int(ENTRY)),))


async def _free_and_optimize(kernel: Kernel, huge: HugePage) -> None:
    """A tail page was in use by itself a moment ago: without its last reference there is no huge page."""
    tail = vmemmap_page(huge, 1)
    await Store(field(tail, Offset.REFCOUNT), 1, 4)
    if await page_ref_freeze(tail, 1):
        await kernel.hvo.hugetlb_vmemmap_optimize_folio(huge.hstate, huge.folio)


async def _unmap_and_optimize(kernel: Kernel, huge: HugePage) -> None:
    """The huge page is mapped and in use; it is unmapped, and pooled if nobody else has a reference."""
    await Store(field(huge.folio, Offset.REFCOUNT), 1, 4)
    await Store(ENTRY, TAIL_1)
    await Store(ENTRY, 0)
    if await page_ref_freeze(huge.folio, 1):
        await kernel.hvo.hugetlb_vmemmap_optimize_folio(huge.hstate, huge.folio)


# -- scenarios -------------------------------------------------------------------------------------------

UNFREEZE_GET_PAGE_2025 = Scenario(
    "unfreeze-get-page-2025",
    Group.RACE,
    "The same as unfreeze-get-page with the count read before the fake-head test: is any order wrong?",
    "no order is: a count that is not 0 is from before the freeze, or else the page says it is a fake head",
    "The fix of 2025 (page_count_writable()) beside what v6.12 does: two loads the other way round.",
    2,
    frozenset(),
    _read_by(UNFREEZE_GET_PAGE, "get_page_unless_zero_2025"),
)

FREEZE_GET_PAGE_V6_9 = Scenario(
    "freeze-get-page-v6-9",
    Group.RACE,
    "The same as freeze-get-page with the reader of v6.9, which is in no RCU section: who waits for it?",
    "in its own order nothing is wrong; `explore` finds the order in which it writes to a read-only tail",
    "The wait that HVO has since bd225530a4c7 helps only against readers that can be waited for.",
    2,
    frozenset(),
    _read_by(FREEZE_GET_PAGE, "get_page_unless_zero_v6_9"),
)

KPAGEFLAGS = Scenario(
    "optimize-kpageflags",
    Group.RACE,
    "Upstream's optimize against /proc/kpageflags of a tail that becomes a fake head: is it ever wrong?",
    "not in this order; `explore` finds a CPU that uses the new translation first and then the old one",
    "A reader without reference and RCU section cannot do harm, but what it says need never have been true.",
    2,
    frozenset(),
    lambda cpus: _setup(cpus, optimize(0), _kpageflags(1)),
)

COMPACTION = Scenario(
    "optimize-compaction",
    Group.RACE,
    "Compaction holds a reference on a page that is about to become a tail: can it give it back too late?",
    "no order is wrong: with the reference held the count cannot be frozen, and there is no huge page",
    "The RCU section covers taking the reference; from then on the reference itself is what protects.",
    2,
    frozenset(),
    lambda cpus: _setup(cpus, KernelActor(0, "free and optimize", _free_and_optimize), _compaction(1)),
)

GUP_FAST = Scenario(
    "optimize-gup-fast",
    Group.RACE,
    "GUP-fast found the folio in a page table just before it was unmapped and pooled: does it write late?",
    "no order is wrong: the reference comes first and the folio stays in use, or the count is frozen",
    "Interrupts that are off hold up the RCU wait, too; the freeze alone is enough, they alone would be.",
    2,
    frozenset(),
    lambda cpus: _setup(cpus, KernelActor(0, "unmap and optimize", _unmap_and_optimize), _gup_fast(1)),
)
