"""The port with one protective step taken out, and who is hurt by that: for the mutation run.

Each mutant overrides the functions it must and changes one thing in them.
"""

from __future__ import annotations

from dataclasses import dataclass

from emu.addr import VirtAddr
from emu.cpu.ops import Annotate, Store, ThisCpu
from emu.paging.models import LAZY, LAZY_SINGLE, CpuModel
from firmware.catalog import program
from hvolab.catalog.common import HUGE_PAGE, MEMORY_BYTES, optimize, optimize_list, restore, restore_list
from hvolab.catalog.races import NEIGHBOUR
from hvolab.judge.question import Asks, PageQuestion
from hvolab.judge.verdict import Verdict
from hvolab.subject.scenario import GuestActor, KernelActor, Setup, vmemmap_page
from kernel_model.boot import BootConfig, Kernel
from kernel_model.core.events import OperationBegun, OperationReturned
from kernel_model.core.stack import ListHead
from kernel_model.flush.broken import NEVER, SKIPS_LAST_CPU
from kernel_model.flush.policy import NamedPolicy
from kernel_model.flush.upstream import UPSTREAM
from kernel_model.hvo.hugetlb_vmemmap import (
    HugetlbVmemmap,
    WalkFlag,
)
from kernel_model.mm.hstate import Hstate
from kernel_model.mm.image import HugePage, VmemmapOrigin
from kernel_model.mm.page import (
    Offset,
    field,
)
from kernel_model.variants.catalog import (
    FLAG_AFTER_REMAP,
    FREE_BEFORE_FLUSH,
    FREES_WITHOUT_UNMAPPING,
    HEAD_MAPPED_BEFORE_COPY,
    KEY_AFTER_REMAP,
    NO_FLUSH_AFTER_REMAP,
    NO_RCU_WAIT,
    NO_SPLIT_PAGE,
    ONE_PAGE_TOO_FEW,
    RESTORE_MAPS_BEFORE_COPY,
    SPLIT_WITHOUT_RECHECK,
    TAILS_WRITABLE,
)
from kernel_model.variants.named import UPSTREAM_HVO, NamedVariant

TAIL_1 = vmemmap_page(HUGE_PAGE, 1)
WORD = field(TAIL_1, Offset.COMPOUND_HEAD)
PRIVATE = field(HUGE_PAGE.folio, Offset.PRIVATE)


class DoubleRelease(HugetlbVmemmap):
    """Gives the old pages back twice."""

    async def hugetlb_vmemmap_optimize_folio(self, h: Hstate, folio: VirtAddr) -> None:
        begun = await Annotate(OperationBegun("hugetlb_vmemmap_optimize_folio", (folio,)))
        cpu = await ThisCpu()
        async with ListHead(cpu) as vmemmap_pages:
            await self._lists.init(vmemmap_pages)
            await self._optimize_folio(h, folio, vmemmap_pages, WalkFlag.SYNCHRONIZE_RCU)
            await self.free_vmemmap_page_list(vmemmap_pages)
            await self.free_vmemmap_page_list(vmemmap_pages)
        await Annotate(OperationReturned("hugetlb_vmemmap_optimize_folio", begun, None, (folio,)))


async def _freeze(kernel: Kernel, huge: HugePage) -> None:
    """What the pool does before: a tail page that was in use a moment ago is frozen."""
    del kernel
    await Store(field(vmemmap_page(huge, 1), Offset.REFCOUNT), 1, 4)
    await Store(field(vmemmap_page(huge, 1), Offset.REFCOUNT), 0, 4)


async def _split(kernel: Kernel, huge: HugePage) -> None:
    await kernel.hvo.hugetlb_vmemmap_split_folio(huge.hstate, huge.folio)


async def _optimize_and_restore(kernel: Kernel, huge: HugePage) -> None:
    await kernel.hvo.hugetlb_vmemmap_optimize_folio(huge.hstate, NEIGHBOUR.folio)
    await kernel.hvo.hugetlb_vmemmap_restore_folio(huge.hstate, NEIGHBOUR.folio)


Actors = tuple[GuestActor | KernelActor, ...]


def reader(cpu: int) -> GuestActor:
    return GuestActor(cpu, program("read_twice"), (("word", int(WORD)),))


def writer(cpu: int) -> GuestActor:
    word = field(TAIL_1, Offset.PRIVATE)
    return GuestActor(cpu, program("write_tail"), (("word", int(word)), ("value", 0x1234)))


def compound_head(cpu: int) -> GuestActor:
    asks = Asks(PageQuestion.COMPOUND_HEAD, TAIL_1, "rax")
    return GuestActor(cpu, program("compound_head"), (("page", int(TAIL_1)),), asks)


def get_page(cpu: int) -> GuestActor:
    return GuestActor(cpu, program("get_page_unless_zero"), (("page", int(TAIL_1)),))


SPLIT_RACE: Actors = (
    KernelActor(0, "split", _split),
    KernelActor(1, "neighbour", _optimize_and_restore),
)
FROZEN: Actors = (KernelActor(0, "freeze", _freeze), optimize(0), get_page(1))


@dataclass(frozen=True, slots=True)
class Mutant:
    """A protective step taken out, who runs, and the verdicts that may refute it; none: not reached yet."""

    name: str
    actors: Actors
    refuted_by: frozenset[Verdict]
    variant: NamedVariant = UPSTREAM_HVO
    policy: NamedPolicy = UPSTREAM
    origin: VmemmapOrigin = VmemmapOrigin.BOOT
    alone: bool = True
    model: CpuModel = LAZY

    def setup(self) -> Setup:
        huge = (HUGE_PAGE,) if self.alone else (HUGE_PAGE, NEIGHBOUR)
        boot = BootConfig(
            MEMORY_BYTES, 2, huge, self.model, policy=self.policy, origin=self.origin, variant=self.variant
        )
        return Setup(boot, self.actors, (), ())


_DOUBLE_RELEASE = NamedVariant("double-release", "the old pages are given back twice", DoubleRelease)

_STALE = frozenset({Verdict.MISSED_FLUSH, Verdict.USE_AFTER_FREE})
_KERNEL = frozenset({Verdict.KERNEL})

MUTANTS: tuple[Mutant, ...] = (
    Mutant("flush_tlb_* does nothing", (optimize(0), reader(1)), _STALE, policy=NEVER),
    Mutant("a flush leaves out a CPU", (optimize(0), reader(1)), _STALE, policy=SKIPS_LAST_CPU),
    Mutant("no flush after the remap", (optimize(0), reader(1)), _STALE, NO_FLUSH_AFTER_REMAP),
    Mutant("freed before the flush", (optimize(0), reader(1)), _STALE, FREE_BEFORE_FLUSH),
    Mutant("freed and still mapped", (optimize(0), reader(1)), _STALE, FREES_WITHOUT_UNMAPPING),
    Mutant(
        "no re-check under the lock",
        SPLIT_RACE,
        _KERNEL | _STALE,
        SPLIT_WITHOUT_RECHECK,
        alone=False,
    ),
    Mutant("tails writable", (optimize(0), writer(1)), frozenset(), TAILS_WRITABLE),
    Mutant(
        "flag after the copy",
        (optimize_list(0), restore_list(0)),
        frozenset({Verdict.LOST_UPDATE}),
        FLAG_AFTER_REMAP,
    ),
    Mutant("no RCU wait", FROZEN, frozenset({Verdict.WRITE_PROTECT}), NO_RCU_WAIT),
    Mutant(
        "key after the remap",
        (optimize(0), compound_head(1)),
        frozenset({Verdict.WRONG_METADATA}),
        KEY_AFTER_REMAP,
        model=LAZY_SINGLE,  # with both translations upstream is wrong too (docs/findings.md)
    ),
    Mutant(
        "head mapped before it is copied", (optimize(0), restore(0)), frozenset(), HEAD_MAPPED_BEFORE_COPY
    ),
    Mutant(
        "restore maps before it copies",
        (optimize(0), restore(0), reader(1)),
        frozenset(),
        RESTORE_MAPS_BEFORE_COPY,
    ),
    Mutant(
        "no split_page",
        (optimize(0), reader(1)),
        _KERNEL,
        NO_SPLIT_PAGE,
        origin=VmemmapOrigin.HOTPLUG,
    ),
    Mutant("one page too few in restore", (optimize(0), restore(0)), _KERNEL, ONE_PAGE_TOO_FEW),
    Mutant("released twice", (optimize(0),), _KERNEL, _DOUBLE_RELEASE),
)
