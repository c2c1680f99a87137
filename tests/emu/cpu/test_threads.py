"""Threads of a CPU: one after the other, each to its end."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from machine_programs import one_load
from machine_rig import MachineRig
from paging_rig import VA

from emu.addr import VirtAddr
from emu.cpu.ops import Load, SendIpi, SetInterrupts, StackRoom, Store, Transact
from emu.cpu.routine import ContextKilled
from emu.cpu.software import Grain, InterruptHandler
from emu.events import Finished, Started
from emu.ledger import Ledger, LedgerEntry


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


@dataclass(frozen=True)
class _Add:
    """A transaction: adds, and returns what was there."""

    amount: int

    def __call__(self, ledger: Ledger) -> int:
        before = ledger.get(LedgerEntry("sum"), 0)
        ledger.set(LedgerEntry("sum"), before + self.amount)
        return before


def test_what_is_no_scheduling_point_is_done_with_the_op_before_it() -> None:
    rig = MachineRig(1)
    seen: list[int] = []

    async def thread() -> None:
        seen.append(await Transact(_Add(2)))
        await Load(VA)
        seen.append(await Transact(_Add(3)))
        seen.append(await StackRoom(16))
        await Load(VA)
        seen.append(await StackRoom(-16))

    rig.thread(0, thread)
    assert seen == [0]
    rig.step(0)
    assert seen == [0, 2, 0]
    assert dict(rig.machine.ledger.values) == {LedgerEntry("sum"): 5}
    rig.step(0)
    assert seen == [0, 2, 0, 16]
    rig.machine.reset()
    assert dict(rig.machine.ledger.values) == {}


@pytest.mark.parametrize("grain", Grain)
def test_a_handler_begins_on_the_stack_where_what_it_interrupts_has_come_to_and_takes_its_own_with_it(
    grain: Grain,
) -> None:
    seen: list[int] = []

    async def handler(_request: int, _payload: object) -> None:
        seen.append(await StackRoom(32))

    rig = MachineRig(2, interrupts={7: InterruptHandler(handler, grain)})

    async def thread() -> None:
        await StackRoom(16)
        await Load(VA)
        await Load(VA)
        seen.append(await StackRoom(16))

    async def sender() -> None:
        await SendIpi(frozenset({0}), 7)

    rig.thread(0, thread)
    rig.thread(1, sender)
    rig.step(1)
    rig.interrupt(0)
    rig.run()
    assert seen == [16, 16], "what the handler did not give back has ended with it"
    rig.thread(0, thread)
    rig.run()
    assert seen == [16, 16, 16], "and so has what the first thread did not"
