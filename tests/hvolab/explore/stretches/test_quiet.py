"""What a step has done, put down so that it can be left out the next time."""

from __future__ import annotations

from collections.abc import Callable

from small_setups import WORD, X, config_of

from emu.addr import PhysAddr
from emu.choice import Defaults, Step
from emu.cpu.cpu import KernelThread, RoutineContext
from emu.cpu.ops import Count, Fill, Load, StackRoom, Store, ThisCpu
from emu.cpu.recall import Recall, Recalled
from emu.cpu.repeat import Put, Repeated, Through
from emu.cpu.routine import Code
from emu.paging.models import LAZY_SINGLE, CpuModel
from emu.paging.walk import Access
from hvolab.explore.footprint.conflict import NOTHING
from hvolab.explore.footprint.tables import Tables
from hvolab.explore.stretches.quiet import StepsSeen
from hvolab.judge.sight.sight import Sight
from kernel_model.boot import boot
from kernel_model.layout import PAGE_OFFSET, direct_map

AT = PhysAddr(X - PAGE_OFFSET)


def made(routine: Callable[[], Code], model: CpuModel | None = None) -> tuple[StepsSeen, Repeated | None]:
    """What the first step of a routine has done."""
    system = boot(config_of() if model is None else config_of(model))
    machine = system.machine
    machine.routines = Recall()
    sight = Sight(machine)
    tables = Tables(machine.memory, machine.cpus[0].mmu.model)
    for walk in sight.judged_walks():
        tables.learn(walk)
    seen = StepsSeen(machine, sight, tables)
    machine.start(0, KernelThread("t", routine))
    context = machine.cpus[0].top
    assert isinstance(context, RoutineContext)
    assert isinstance(context.routine, Recalled)
    node = context.routine.node
    seen.before()
    machine.perform(Step(0), Defaults())
    return seen, seen.made(context, node, NOTHING)


async def stores() -> None:
    await Store(X, 0x1234)
    await Count("counted", 3)
    await StackRoom(32)
    await ThisCpu()
    await Load(X)


def test_a_store_is_what_memory_holds_then_and_what_was_added_beside() -> None:
    seen, found = made(stores)
    assert found is not None
    through, put = found.done
    assert isinstance(through, Through)
    assert isinstance(put, Put)
    assert (through.before, through.va, through.access) == (0, X, Access.WRITE)
    assert (put.before, put.pa, put.data) == (0, AT, 0x1234.to_bytes(8, "little"))
    assert (found.steps, found.events, found.counters, found.stack) == (1, 1, (("counted", 3),), 32)
    assert {step.level for step in seen.directories()} == {2, 3, 4}


def test_a_store_to_a_page_table_is_always_made() -> None:
    walk = Sight(boot(config_of()).machine).walk(WORD)
    assert walk is not None
    entry = direct_map(walk.steps[-1].pa)

    async def stores_there() -> None:
        await Fill(entry, bytes(8))
        await Load(X)

    assert made(stores_there)[1] is None


def test_with_one_entry_a_page_each_use_is_made() -> None:
    assert made(stores, LAZY_SINGLE)[1] is None


async def loads() -> None:
    await Load(X)
    await Load(X)


def test_a_load_leaves_nothing_but_its_event() -> None:
    _, found = made(loads)
    assert found is not None
    assert [type(part) for part in found.done] == [Through]
    assert (found.events, found.counters, found.stack) == (1, (), 0)
