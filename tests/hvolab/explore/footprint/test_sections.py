"""RCU read-side sections as footprints have them: entered, left, and what a grace period waits for."""

from __future__ import annotations

import pytest

from emu.addr import PhysAddr
from emu.choice import Defaults, Step
from emu.cpu.condition import EachOnce, Word, WordIs
from emu.cpu.cpu import KernelThread
from emu.cpu.ops import Await
from emu.machine import Machine
from hvolab.catalog.common import HUGE_PAGE, MEMORY_BYTES
from hvolab.explore.footprint.sections import Sections
from hvolab.judge.sight.resource import Kind, Resource
from kernel_model.boot import BootConfig, boot
from kernel_model.core.rcu import nesting_word, outside

CPUS = 3


@pytest.fixture
def machine() -> Machine:
    return boot(BootConfig(MEMORY_BYTES, CPUS, (HUGE_PAGE,))).machine


def nest(machine: Machine, cpu: int, depth: int) -> set[object]:
    """rcu_read_lock() and unlock store this word; that write is in the step's footprint."""
    word = nesting_word(cpu)
    machine.memory.write_word(PhysAddr(word), depth)
    return {word >> 3}


def entered(*cpus: int) -> set[Resource]:
    return {Resource(Kind.SECTION_ENTERED, cpu) for cpu in cpus}


def left(*cpus: int) -> set[Resource]:
    return {Resource(Kind.SECTION_LEFT, cpu) for cpu in cpus}


def test_a_section_is_entered_once_and_left_once_however_deep(machine: Machine) -> None:
    sections = Sections(machine)
    passed = [sections.passed(nest(machine, 1, depth)) for depth in (1, 2, 1, 0)]
    assert passed == [entered(1), set(), set(), left(1)]


def test_other_writes_enter_nothing(machine: Machine) -> None:
    sections = Sections(machine)
    nest(machine, 1, 1)
    assert sections.passed({8, Resource(Kind.OWNER, 5)}) == set()


def test_a_cpu_with_interrupts_off_is_inside(machine: Machine) -> None:
    sections = Sections(machine)
    machine.cpus[2].interrupts_enabled = False
    flag = {Resource(Kind.INTERRUPT_FLAG, 2)}
    assert sections.passed(flag) == entered(2)
    machine.cpus[2].interrupts_enabled = True
    assert sections.passed(flag) == left(2)


def waiting(machine: Machine, condition: EachOnce | WordIs) -> None:
    """CPU 0 has come to a wait for that."""

    async def routine() -> None:
        await Await(condition)

    machine.start(0, KernelThread("waits", routine))
    while machine.cpus[0].top is None or machine.cpus[0].top.pending is None:  # type: ignore[union-attr]
        machine.perform(Step(0), Defaults())


ALL_OUTSIDE = EachOnce(tuple(outside(cpu) for cpu in range(CPUS)))


def test_the_begin_of_a_grace_period_is_against_all_entries_and_its_end_after_the_exits_it_waits_for(
    machine: Machine,
) -> None:
    sections = Sections(machine)
    nest(machine, 1, 1)
    waiting(machine, ALL_OUTSIDE)
    cpu = machine.cpus[0]
    assert sections.begins(cpu) == entered(0, 1, 2)
    assert sections.begins(cpu) is None, "it has begun already"
    assert sections.owed(0) == left(1)
    assert sections.owed(1) == set()


def test_another_wait_begins_no_grace_period(machine: Machine) -> None:
    sections = Sections(machine)
    waiting(machine, WordIs(Word("ready"), 1))
    assert sections.begins(machine.cpus[0]) is None
    assert sections.begins(machine.cpus[1]) is None, "it waits for nothing"


def test_a_wait_for_each_once_of_something_else_is_none_of_ours(machine: Machine) -> None:
    sections = Sections(machine)
    other = EachOnce((*ALL_OUTSIDE.parts, WordIs(Word("ready"), 1)))
    assert sections.knows(ALL_OUTSIDE)
    assert not sections.knows(other)
    waiting(machine, other)
    assert sections.begins(machine.cpus[0]) == set()
    assert sections.owed(0) == set()
