"""Exceptions: the handler runs above what raised them, and decides whether that goes on."""

from __future__ import annotations

import pytest
from guest_rig import CODE
from machine_programs import PRESENT_WRITE, one_load, retrying, table_alias
from machine_rig import MachineRig
from paging_rig import FRAME, PAGE, RO, RW, VA, leaf

from emu.addr import PhysAddr, VirtAddr
from emu.cpu.ops import FetchAdd, Load, SetInterrupts, Store
from emu.cpu.software import Trap, TrapOutcome
from emu.cpu.traps import TrapsWithoutEnd
from emu.events import BusErrorSeen, Executed, Faulted, Finished, GuestSite, Loaded, RoutineSite, Trapped
from emu.guest.decode import UnsupportedInstruction
from emu.guest.guest_core import GuestTrap
from emu.mmu import Denied, NonCanonical
from emu.paging.walk import BusError, PageFault


async def killing(_trap: Trap) -> TrapOutcome:
    return TrapOutcome.KILL


def test_after_retry_the_same_op_is_performed_again() -> None:
    """The handler makes the page writable by ops of its own; the store then happens, once."""
    seen: list[Trap] = []
    repair: list[object] = []
    rig = MachineRig(1)
    alias = table_alias(rig, VA)
    repair.append(Store(alias, leaf(FRAME, RW)))
    rig = MachineRig(1, trap=retrying(1, seen, repair[0]))
    assert table_alias(rig, VA) == alias
    rig.preset(rig.slot(VA), leaf(FRAME, RO))

    async def deep() -> int:
        return await FetchAdd(VA, 5)

    async def thread() -> None:
        assert await deep() == 0
        await Load(VA)

    rig.thread(0, thread)
    rig.step(0)
    assert rig.word() == 0
    rig.step(0)  # the handler's store; it then returns
    rig.step(0)  # again
    assert rig.word() == 5
    rig.run()
    denied = Denied(PageFault(VA, PRESENT_WRITE), None)
    assert seen == [Trap(0, RoutineSite(("thread", "deep")), "thread", denied)]
    assert rig.told(Faulted) == [Faulted(0, RoutineSite(("thread", "deep")), denied.fault, None)]


def test_a_handler_that_returns_at_once_lets_the_op_try_again_in_a_step_of_its_own() -> None:
    seen: list[Trap] = []
    rig = MachineRig(1, trap=retrying(3, seen))
    rig.preset(rig.slot(VA), 0)
    rig.thread(0, one_load)
    for count in (1, 2, 3):
        rig.step(0)
        assert len(seen) == count
    rig.set(rig.slot(VA), leaf(FRAME))
    rig.step(0)
    assert (len(seen), len(rig.told(Loaded))) == (3, 1)


def test_kill_ends_the_context_and_the_cpu_goes_on_with_the_next_thread() -> None:
    rig = MachineRig(1, trap=killing)
    rig.preset(rig.slot(VA + PAGE), 0)
    cleaned = []

    async def thread() -> None:
        try:
            await Load(VirtAddr(VA + PAGE))
        finally:
            cleaned.append(True)

    rig.thread(0, thread, "victim")
    rig.thread(0, one_load, "next")
    rig.run()
    assert cleaned == [True]
    assert [event for event in rig.events if isinstance(event, Finished)] == [
        Finished(0, "victim", killed=True),
        Finished(0, "next", killed=False),
    ]


def test_a_handler_that_returns_something_else_is_an_error() -> None:
    async def handler(_trap: Trap) -> str:
        return "retry"

    rig = MachineRig(1, trap=handler)
    rig.preset(rig.slot(VA), 0)
    rig.thread(0, one_load)
    with pytest.raises(TypeError, match=r"^trap handler trap returned 'retry'$"):
        rig.step(0)


def test_interrupts_are_off_in_a_trap_handler_and_as_before_after_it() -> None:
    states = []

    async def handler(_trap: Trap) -> TrapOutcome:
        states.append(rig.machine.cpus[0].interrupts_enabled)
        await Load(VirtAddr(VA + PAGE))
        return TrapOutcome.RETRY

    for on in (True, False):
        rig = MachineRig(1, trap=handler)
        rig.preset(rig.slot(VA), 0)

        async def thread(on: bool = on) -> None:
            await SetInterrupts(enabled=on)
            await Load(VA)

        rig.thread(0, thread)
        rig.step(0, 2)
        rig.set(rig.slot(VA), leaf(FRAME))
        rig.step(0)
        states.append(rig.machine.cpus[0].interrupts_enabled)
        rig.run()
    assert states == [False, True, False, False]


def test_a_fault_of_the_handler_itself_nests() -> None:
    depth = []

    async def handler(trap: Trap) -> TrapOutcome:
        depth.append((trap.context, trap.why.fault.va - VA))
        if len(depth) == 1:
            await Load(VirtAddr(VA + 2 * PAGE))  # absent too
            rig.set(rig.slot(VA), leaf(FRAME))
        else:
            rig.set(rig.slot(VA + 2 * PAGE), leaf(FRAME + 2))
        return TrapOutcome.RETRY

    rig = MachineRig(1, trap=handler)
    rig.preset(rig.slot(VA), 0)
    rig.preset(rig.slot(VA + 2 * PAGE), 0)
    rig.thread(0, one_load)
    rig.run()
    assert depth == [("thread", 0), ("trap", 2 * PAGE)]
    assert [event.va - VA for event in rig.told(Loaded)] == [2 * PAGE, 0]
    assert rig.machine.cpus[0].interrupts_enabled


def test_killing_the_handler_of_a_handler_ends_the_handler_and_leaves_the_thread() -> None:
    """The inner KILL is about the context that faulted: the outer handler. Then the thread tries again."""
    calls = []

    async def handler(trap: Trap) -> TrapOutcome:
        calls.append(trap.context)
        if trap.context == "thread" and len(calls) == 1:
            await Load(VirtAddr(VA + 2 * PAGE))
        return TrapOutcome.KILL

    rig = MachineRig(1, trap=handler)
    rig.preset(rig.slot(VA), 0)
    rig.preset(rig.slot(VA + 2 * PAGE), 0)
    rig.thread(0, one_load)
    rig.run()
    assert calls == ["thread", "trap", "thread"]
    assert rig.told(Finished) == [Finished(0, "trap", killed=True), Finished(0, "thread", killed=True)]
    assert not rig.machine.busy


def test_a_bus_error_and_an_address_that_is_not_canonical_are_traps_with_their_own_events() -> None:
    seen: list[Trap] = []
    rig = MachineRig(1, trap=retrying(0, seen))
    outside = rig.memory.size
    rig.preset(rig.slot(VA), leaf(outside >> 12))

    async def not_canonical() -> None:
        await Store(VirtAddr(1 << 63), 1)

    rig.thread(0, one_load)
    rig.thread(0, not_canonical)
    rig.run()
    assert [trap.why for trap in seen] == [BusError(VA, PhysAddr(outside)), NonCanonical(1 << 63)]
    assert rig.told(BusErrorSeen) == [BusErrorSeen(0, RoutineSite(("one_load",)), VA, PhysAddr(outside))]
    assert rig.told(Trapped) == [Trapped(0, RoutineSite(("not_canonical",)), 13)]


def test_a_guests_fault_is_handled_and_its_instruction_started_again() -> None:
    seen: list[Trap] = []
    rig = MachineRig(1)
    alias = table_alias(rig, VA)
    rig = MachineRig(1, trap=retrying(1, seen, Store(alias, leaf(FRAME, RW))))
    table_alias(rig, VA)
    rig.preset(rig.slot(VA), leaf(FRAME, RO))
    rig.guest(0, "add qword ptr [rbx], 5; hlt", {"rbx": VA})
    rig.run()
    assert rig.word() == 5
    site = GuestSite("guest", VirtAddr(CODE), "add qword ptr [rbx], 5")
    denied = Denied(PageFault(VA, PRESENT_WRITE), None)
    assert seen == [Trap(0, site, "guest", denied)]
    assert [str(event.site) for event in rig.told(Executed)] == [f"guest {CODE:#x}: add qword ptr [rbx], 5"]


def test_a_guest_that_divides_by_zero_is_told_and_killed() -> None:
    seen: list[Trap] = []
    rig = MachineRig(1, trap=retrying(1, seen))
    rig.guest(0, "div rbx")
    rig.run()
    assert [trap.why for trap in seen] == [GuestTrap(0), GuestTrap(0)]
    assert [event.vector for event in rig.told(Trapped)] == [0, 0]
    assert rig.told(Finished) == [Finished(0, "guest", killed=True)]


def test_an_instruction_that_is_not_modelled_comes_out_of_the_step() -> None:
    rig = MachineRig(1)
    rig.guest(0, "rdtsc")
    with pytest.raises(UnsupportedInstruction, match="rdtsc"):
        rig.step(0)


def test_a_handler_that_raises_what_it_handles_ends_when_a_stack_would() -> None:
    """It went on without end, and slower and slower."""

    async def faults(_trap: Trap) -> TrapOutcome:
        await Load(VA)
        return TrapOutcome.RETRY

    rig = MachineRig(1, trap=faults)
    rig.preset(rig.slot(VA), 0)
    rig.thread(0, one_load)
    with pytest.raises(TrapsWithoutEnd, match=r"^cpu0 traps within traps, 16 deep, in faults$"):
        rig.run()
    assert len(rig.told(Faulted)) == 16
