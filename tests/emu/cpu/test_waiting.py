"""Waiting: a step is enabled when, and only when, its condition holds."""

from __future__ import annotations

from machine_programs import X, Y
from machine_rig import MachineRig, alone
from paging_rig import FRAME, PAGE, VA

from emu.addr import PhysAddr, VirtAddr
from emu.choice import Step
from emu.cpu.condition import AllOf, EachOnce, InterruptsOn, MemoryIs, Word, WordIs
from emu.cpu.ops import AddWords, Await, Load, SetInterrupts, Store


def test_an_await_whose_condition_holds_is_a_step() -> None:
    rig, results = alone(Await(WordIs(X, 0)), AddWords(((X, 2), (Y, 1))), Await(WordIs(X, 2)))
    assert results == [None, None, None]
    assert (rig.machine.words[X], rig.machine.words[Y]) == (2, 1)


def test_await_then_adds_in_the_same_step() -> None:
    """A lock: when both wait for 0 and one takes it, the other is no longer enabled."""
    rig = MachineRig(2)

    async def locking() -> None:
        await Await(WordIs(X, 0), then=((X, 1),))
        await Load(VA)
        await AddWords(((X, -1),))

    for cpu in (0, 1):
        rig.thread(cpu, locking)
    assert rig.enabled() == [Step(0), Step(1)]
    rig.step(1)
    assert rig.enabled() == [Step(1)]
    assert rig.machine.blocked() == {0: "x = 0"}
    rig.step(1)
    assert rig.enabled() == [Step(1)]
    rig.step(1)
    assert rig.enabled() == [Step(0)]


def test_a_wait_for_memory_is_over_when_the_word_has_the_value() -> None:
    rig = MachineRig(2)
    pa = PhysAddr(FRAME * PAGE + 8)

    async def waiting() -> None:
        await Await(MemoryIs(pa, 7))

    async def storing() -> None:
        await Store(VirtAddr(VA + 8), 6)
        await Store(VirtAddr(VA + 8), 7)

    rig.thread(0, waiting)
    rig.thread(1, storing)
    rig.step(1)
    assert rig.enabled() == [Step(1)]
    assert rig.machine.blocked() == {0: "[0x800008] = 0x7"}
    rig.step(1)
    assert rig.enabled() == [Step(0)]


def test_a_wait_for_interrupts_on_and_for_all_of_several() -> None:
    rig = MachineRig(2)

    async def waiting() -> None:
        await Await(AllOf((InterruptsOn(1), WordIs(X, 1))))

    async def other() -> None:
        await SetInterrupts(enabled=False)
        await AddWords(((X, 1),))
        await SetInterrupts(enabled=True)

    rig.thread(1, other)
    rig.step(1)
    rig.thread(0, waiting)
    assert rig.machine.blocked() == {0: "cpu1 has IF=1 and x = 1"}
    rig.step(1)
    assert rig.enabled() == [Step(1)]
    rig.step(1)
    assert rig.enabled() == [Step(0)]


def pulse(word: Word):
    """The word is 1 for one moment."""

    async def thread() -> None:
        await AddWords(((word, 1),))
        await AddWords(((word, -1),))

    return thread


def test_each_once_remembers_what_has_held_since_the_wait_began() -> None:
    rig = MachineRig(2)

    async def waiting() -> None:
        await Load(VA)
        await Await(EachOnce((WordIs(X, 1), WordIs(Y, 1))))

    rig.thread(1, pulse(X))
    rig.thread(1, pulse(Y))
    rig.thread(0, waiting)
    rig.step(0)
    rig.step(1, 2)
    assert rig.enabled() == [Step(1)]
    assert rig.machine.blocked() == {0: "once each: x = 1; y[3] = 1"}
    rig.step(1)
    assert rig.enabled() == [Step(0), Step(1)]
    rig.step(1)
    assert rig.enabled() == [Step(0)]  # though neither holds now


def test_each_once_does_not_count_what_held_before_the_wait_began() -> None:
    rig = MachineRig(2)

    async def waiting() -> None:
        await Load(VA)
        await Await(EachOnce((WordIs(X, 1),)))

    rig.thread(0, waiting)
    rig.thread(1, pulse(X))
    rig.step(1, 2)
    rig.step(0)
    assert rig.enabled() == []


def test_each_once_counts_what_holds_when_the_wait_begins() -> None:
    rig = MachineRig(1)

    async def waiting() -> None:
        await Load(VA)
        await Await(EachOnce((WordIs(X, 0),)))

    rig.thread(0, waiting)
    rig.run()
    assert not rig.machine.busy


def test_each_once_counts_what_holds_when_it_is_the_first_thing_a_thread_does() -> None:
    """The thread is started between steps: nobody else need do anything for it to go on."""
    rig = MachineRig(1)

    async def waiting() -> None:
        await Await(EachOnce((WordIs(X, 0),)))

    rig.thread(0, waiting)
    assert rig.enabled() == [Step(0)]


def test_all_of_wants_its_parts_at_the_same_moment() -> None:
    rig = MachineRig(2)

    async def waiting() -> None:
        await Await(AllOf((WordIs(X, 1), WordIs(Y, 1))))

    rig.thread(0, waiting)
    rig.thread(1, pulse(X))
    rig.thread(1, pulse(Y))
    rig.step(1, 4)
    assert rig.enabled() == []
