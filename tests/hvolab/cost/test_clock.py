"""When what happens on each CPU: reckoned by hand for one flush, with a table of numbers that tell apart."""

from __future__ import annotations

from dataclasses import replace

import pytest

from emu.addr import VirtAddr
from emu.cpu.ops import Load
from emu.paging.models import SKYLAKE
from emu.trace import Listener
from hvolab.catalog.common import HUGE_PAGE, MEMORY_BYTES
from hvolab.cost.clock import Clock, Reckoned
from hvolab.subject.costs import CostTable
from hvolab.subject.picker import InOrder
from hvolab.subject.run import run
from hvolab.subject.scenario import KernelActor, Setup
from kernel_model.boot import BootConfig, Kernel, System
from kernel_model.flush.broadcast import INVLPGB
from kernel_model.flush.broken import LOCAL_ONLY, NO_WAIT
from kernel_model.flush.lazy import LATR
from kernel_model.flush.policy import NamedPolicy
from kernel_model.flush.stopping import PAUSE_REMOTE, STOP_MACHINE
from kernel_model.flush.upstream import UPSTREAM
from kernel_model.layout import PAGE_OFFSET
from kernel_model.mm.image import HugePage

TABLE = CostTable(
    "by hand",
    interrupt=1_000,
    invlpg=10,
    full_flush=200,
    broadcast=30,
    walk=7,
    ipi_target=50,
    ipi_delivery=5_000,
    tlbsync=400,
)


async def _flushes_all(kernel: Kernel, huge: HugePage) -> None:
    del huge
    await kernel.flush.flush_tlb_all()


async def _flushes_three(kernel: Kernel, huge: HugePage) -> None:
    await kernel.flush.flush_tlb_kernel_range(huge.folio, huge.folio + 3 * 4096)


def reckoned(policy: NamedPolicy, cpus: int, routine=_flushes_all, table: CostTable = TABLE) -> Reckoned:
    config = BootConfig(MEMORY_BYTES, cpus, (HUGE_PAGE,), policy=policy, model=SKYLAKE)
    clocks: list[Clock] = []

    def listener(system: System) -> Listener:
        clocks.append(Clock(system.machine, table))
        return clocks[0].observe

    run(Setup(config, (KernelActor(0, "flush", routine),), (), ()), lambda _system: InOrder(), (listener,))
    return clocks[0].reckoned


@pytest.mark.parametrize("cpus", [2, 3, 16])
def test_who_flushes_sends_to_all_and_waits_for_the_last(cpus: int) -> None:
    others = cpus - 1
    sends, answers = 50 * others, 5_000 + 1_000 + 200
    assert reckoned(UPSTREAM, cpus) == Reckoned(
        flushing=sends + answers,
        interrupted=others * (1_000 + 200),
        refilling=0,
        elapsed=sends + answers,
        interrupts=others,
        invalidated=0,
        needlessly=0,
    )


def test_a_range_costs_an_invlpg_a_page_on_every_cpu() -> None:
    found = reckoned(UPSTREAM, 2, _flushes_three)
    assert (found.flushing, found.interrupted) == (50 + 5_000 + 1_000 + 30, 1_000 + 30)


def test_who_waits_for_nobody_has_done_when_it_has_sent_and_flushed_itself() -> None:
    found = reckoned(NO_WAIT, 3)
    assert (found.flushing, found.interrupted) == (2 * 50 + 200, 2 * 1_200)
    assert found.elapsed == 2 * 50 + 5_000 + 1_200, "the others take it when it comes"


def test_who_tells_nobody_flushes_itself() -> None:
    assert reckoned(LOCAL_ONLY, 3) == Reckoned(200, 0, 0, 200, 0, 0, 0)


@pytest.mark.parametrize(("routine", "sent"), [(_flushes_all, 1), (_flushes_three, 1)])
def test_a_broadcast_costs_the_same_however_many_cpus_there_are(routine, sent: int) -> None:
    expected = Reckoned(sent * 30 + 400, 0, 0, sent * 30 + 400, 0, 0, 0)
    assert [reckoned(INVLPGB, cpus, routine) for cpus in (2, 16)] == [expected] * 2


async def _optimizes(kernel: Kernel, huge: HugePage) -> None:
    await kernel.hvo.hugetlb_vmemmap_optimize_folio(huge.hstate, huge.folio)


def test_who_stands_still_loses_all_the_time_that_the_other_needs() -> None:
    """Nine entries change, and for each the other is in its handler until hardware has told its TLB."""
    table = CostTable("by hand", interrupt=1_000, broadcast=30, tlbsync=400)
    found = reckoned(PAUSE_REMOTE, 2, _optimizes, table)
    assert found.interrupts == 9
    assert found.interrupted == 9 * (1_000 + 430)
    assert found.flushing == 9 * (1_000 + 430), "from the stop on"
    # The interrupt for the static key, and nine times the way to the standstill and what is done in it.
    assert found.elapsed == 1_000 + 9 * (1_000 + 430)


@pytest.mark.parametrize("policy", [STOP_MACHINE, PAUSE_REMOTE], ids=lambda one: one.name)
def test_who_stops_the_others_pays_for_each_of_them(policy: NamedPolicy) -> None:
    """It once paid for what it does while they stand still, and for no more."""
    few, many = (reckoned(policy, cpus, _optimizes, CostTable("sends", ipi_target=1)) for cpus in (2, 9))
    assert (few.flushing, many.flushing) == (9 * 1, 9 * 8)


def test_what_a_tlb_loses_that_was_still_right_is_lost_for_nothing() -> None:
    async def loads_and_flushes(kernel: Kernel, huge: HugePage) -> None:
        await Load(VirtAddr(PAGE_OFFSET))
        await Load(huge.folio)
        await kernel.flush.flush_tlb_all()

    found = reckoned(UPSTREAM, 2, loads_and_flushes)
    assert (found.invalidated, found.needlessly) == (2, 2)
    assert found.elapsed == 2 * 7 + 50 + 5_000 + 1_200


def test_nothing_is_reckoned_with_a_table_of_nothing() -> None:
    found = reckoned(UPSTREAM, 3, table=CostTable("nothing"))
    assert replace(found, interrupts=0) == Reckoned(0, 0, 0, 0, 0, 0, 0)


def test_what_is_done_at_ticks_counts_as_interruption_and_the_tick_itself_does_not() -> None:
    """It once cost nothing at all. Walks count as walks, and not twice."""
    found = reckoned(LATR, 2)
    assert (found.flushing, found.interrupted, found.interrupts) == (200, 2 * 200, 0)
