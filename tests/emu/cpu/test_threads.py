"""Threads of a CPU: one after the other, each to its end."""

from __future__ import annotations

from machine_programs import one_load
from machine_rig import MachineRig
from paging_rig import VA

from emu.addr import VirtAddr
from emu.cpu.ops import Load, SetInterrupts, Store
from emu.cpu.software import ContextKilled
from emu.events import Finished, Started


def test_threads_of_a_cpu_run_one_after_the_other() -> None:
    rig = MachineRig(1)
    for name in ("first", "second"):
        rig.thread(0, one_load, name)
    assert rig.told(Started) == [Started(0, "first")]
    rig.run()
    assert [event for event in rig.events if isinstance(event, Started | Finished)] == [
        Started(0, "first"),
        Finished(0, "first", killed=False),
        Started(0, "second"),
        Finished(0, "second", killed=False),
    ]
    assert not rig.machine.busy


def test_a_thread_that_does_nothing_ends_at_once_and_many_of_them_too() -> None:
    rig = MachineRig(1)

    async def nothing() -> None:
        pass

    for _ in range(3000):
        rig.thread(0, nothing)
    assert rig.enabled() == []
    assert len(rig.told(Finished)) == 3000


def test_thousands_of_threads_that_do_nothing_end_in_the_step_that_lets_the_first_of_them_begin() -> None:
    """Each begins where the one before it ended: a loop, however many there are."""
    rig = MachineRig(1)

    async def nothing() -> None:
        pass

    rig.thread(0, one_load, "first")
    for _ in range(3000):
        rig.thread(0, nothing)
    rig.thread(0, one_load, "last")
    rig.step(0)
    names = [(event.name, event.killed) for event in rig.told(Finished)]
    assert names == [("first", False), *[("thread", False)] * 3000]
    assert [context.name for context in rig.machine.cpus[0].contexts] == ["last"]


def test_guests_and_kernel_threads_share_a_cpu_and_memory() -> None:
    rig = MachineRig(1)

    async def thread() -> None:
        await Store(VirtAddr(VA + 8), await Load(VA) + 1)

    rig.guest(0, "mov [rbx], rax; hlt", {"rbx": VA, "rax": 41})
    rig.thread(0, thread)
    rig.run()
    assert rig.word(offset=8) == 42


def test_a_guest_finds_interrupts_on_after_a_thread_that_left_them_off() -> None:
    rig = MachineRig(1)

    async def thread() -> None:
        await SetInterrupts(enabled=False)

    rig.thread(0, thread)
    rig.guest(0, "pushfq; pop rax; mov [rbx], rax; hlt", {"rbx": VA, "rsp": VA + 0x800})
    rig.run()
    assert rig.word() & 0x200
    assert rig.machine.cpus[0].interrupts_enabled


def test_context_killed_ends_the_thread_as_killed() -> None:
    rig = MachineRig(1)

    async def thread() -> None:
        await Load(VA)
        raise ContextKilled

    rig.thread(0, thread, "unlucky")
    rig.thread(0, one_load, "next")
    rig.run()
    assert Finished(0, "unlucky", killed=True) in rig.events
    assert Finished(0, "next", killed=False) in rig.events
