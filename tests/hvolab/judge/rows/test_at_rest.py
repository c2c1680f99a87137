"""When the invariants of a folio are asked: at the moment an operation that took it up returns."""

from __future__ import annotations

import pytest
from judge_lab import Lab, NeverCompletes, lab

from emu.addr import VirtAddr
from emu.cpu.ops import Annotate, FetchAndNot, FetchOr
from emu.events import Annotated, MachineEvent
from emu.paging.models import SKYLAKE
from hvolab.catalog.common import HUGE_PAGE, MEMORY_BYTES, optimize, optimize_list, restore_list
from hvolab.catalog.races import NEIGHBOUR
from hvolab.judge.verdict import Finding, Verdict
from hvolab.subject.picker import InOrder
from hvolab.subject.run import collect, run
from hvolab.subject.scenario import KernelActor, Setup
from kernel_model.boot import BootConfig, Kernel
from kernel_model.core.bug import bug
from kernel_model.core.events import OperationBegun, OperationReturned
from kernel_model.flush.policy import NamedPolicy, Ticket
from kernel_model.flush.upstream import UpstreamFlush
from kernel_model.hvo.hugetlb_vmemmap import HugetlbVmemmap
from kernel_model.mm.image import HugePage
from kernel_model.mm.page import HugetlbFlag, Offset, field
from kernel_model.variants.named import UPSTREAM_HVO, NamedVariant

FLAG = HugetlbFlag.VMEMMAP_OPTIMIZED
PRIVATE = field(NEIGHBOUR.folio, Offset.PRIVATE)
I5 = "I5: the folio is optimized, and its head does not say so"


class ForgetsTheSecond(HugetlbVmemmap):
    """When all is flushed and freed, it takes the flag of the second folio away again."""

    async def free_vmemmap_page_list(self, pages: VirtAddr) -> None:
        await super().free_vmemmap_page_list(pages)
        await FetchAndNot(PRIVATE, FLAG)


async def _mend(kernel: Kernel, huge: HugePage) -> None:
    del kernel, huge
    await FetchOr(PRIVATE, FLAG)


MEND = KernelActor(0, "mend", _mend)
FORGETS = NamedVariant("forgets", "", ForgetsTheSecond)


def told(variant: NamedVariant, *actors: KernelActor) -> tuple[list[Finding], list[int]]:
    """The findings of the actors one after the other, and the numbers of the returns of list functions."""
    config = BootConfig(MEMORY_BYTES, 1, (HUGE_PAGE, NEIGHBOUR), model=SKYLAKE, variant=variant)
    events: list[tuple[int, MachineEvent]] = []
    done = run(Setup(config, actors, (), ()), lambda _system: InOrder(), (collect(events),))
    returns = [
        number
        for number, event in events
        if isinstance(event, Annotated)
        and isinstance(event.payload, OperationReturned)
        and event.payload.function.endswith("folios")
    ]
    return list(done.findings), returns


def test_a_list_operation_that_leaves_a_folio_broken_is_not_told_only_at_the_end() -> None:
    findings, (returned,) = told(FORGETS, optimize_list(0), MEND)
    assert [(one.where.va, one.cause) for one in findings] == [(NEIGHBOUR.folio, I5)]
    assert [one.event for one in findings] == [returned + 1]


def test_what_a_list_operation_leaves_in_order_is_not_told() -> None:
    findings, returns = told(UPSTREAM_HVO, optimize_list(0), restore_list(0))
    assert findings == []
    assert len(returns) == 2


def test_a_folio_that_another_operation_holds_is_not_asked_for() -> None:
    async def announces(kernel: Kernel, huge: HugePage) -> None:
        """A second operation has the neighbour all the while."""
        outer = await Annotate(OperationBegun("outer", (NEIGHBOUR.folio,)))
        await kernel.hvo.hugetlb_vmemmap_optimize_folio(huge.hstate, NEIGHBOUR.folio)
        await _mend(kernel, huge)
        await Annotate(OperationReturned("outer", outer, None, (NEIGHBOUR.folio,)))

    findings, _ = told(FORGETS, KernelActor(0, "announces", announces))
    assert findings == []


@pytest.mark.parametrize("actor", [optimize, optimize_list])
def test_each_folio_taken_up_is_named_at_the_return(actor) -> None:
    events: list[tuple[int, MachineEvent]] = []
    config = BootConfig(MEMORY_BYTES, 1, (HUGE_PAGE, NEIGHBOUR), model=SKYLAKE)
    run(Setup(config, (actor(0),), (), ()), lambda _system: InOrder(), (collect(events),))
    payloads = [event.payload for _, event in events if isinstance(event, Annotated)]
    named = [one.folios for one in payloads if isinstance(one, OperationReturned)]
    both = (HUGE_PAGE.folio, NEIGHBOUR.folio)
    assert named == [both[:1] if actor is optimize else both]


def test_a_flush_that_nothing_completes_any_more_is_told_at_the_end() -> None:
    policy = NamedPolicy("never-completes", "", NeverCompletes)
    done = lab(optimize(0), policy=policy).run()
    cause = "a flush was begun that is never completed: what waits for it waits for ever"
    never = [one for one in done.findings if one.cause == cause]
    assert [one.verdict for one in never] == [Verdict.KERNEL] * 2
    assert never[0].why[0].endswith("for cpus none; not completed")


def test_where_there_is_no_operation_it_is_told_as_well() -> None:
    async def flushes(_made: Lab, kernel: Kernel) -> None:
        await kernel.flush.flush_tlb_all()

    policy = NamedPolicy("never-completes", "", NeverCompletes)
    (finding,) = lab((0, "flush", flushes), policy=policy).run().findings
    assert finding.cause.startswith("a flush was begun that is never completed")


def test_what_is_not_complete_because_its_cpu_was_killed_is_no_finding_of_its_own() -> None:
    class Dies(UpstreamFlush):
        async def rely(self, ticket: Ticket) -> None:
            del ticket
            await bug("rely", "BUG()")

    async def flushes(_made: Lab, kernel: Kernel) -> None:
        await kernel.flush.flush_tlb_all()

    policy = NamedPolicy("dies", "", Dies)
    done = lab((0, "flush", flushes), policy=policy).run()
    assert [finding.verdict for finding in done.findings] == [Verdict.KERNEL]
    assert not done.findings[0].cause.startswith("a flush was begun")
