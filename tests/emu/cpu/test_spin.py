"""PAUSE loops: a CPU that spins steps again when what it looks at has changed."""

from __future__ import annotations

from guest_rig import CODE
from machine_programs import atomic, table_alias
from machine_rig import FLUSH, MachineRig
from paging_rig import FRAME, PAGE, VA, leaf, read

from emu.addr import PhysAddr, VirtAddr
from emu.choice import Step
from emu.cpu.condition import Acknowledged
from emu.cpu.ops import Acknowledge, Await, SendIpi, Store
from emu.cpu.software import Grain, InterruptHandler
from emu.events import Executed, Finished
from emu.paging.models import SKYLAKE

SPIN = "cmp byte ptr [rbx], 0; jne 0xffffffff81000009; pause; jmp 0xffffffff81000000; hlt"
SPIN_OUT = CODE + 9


def spinning(rig: MachineRig, cpu: int = 1) -> None:
    """A guest that waits for the byte at VA."""
    rig.guest(cpu, SPIN, {"rbx": VA})
    core = rig.machine.cpus[cpu].core
    assert core is not None


async def store_flag() -> None:
    await Store(VA, 1, 1)


def test_the_spin_loop_is_what_it_seems() -> None:
    rig = MachineRig(2)
    rig.thread(0, store_flag)
    rig.step(0)
    spinning(rig)
    rig.run()
    assert [event.site.instruction for event in rig.told(Executed)] == [
        "cmp byte ptr [rbx], 0",
        f"jne {SPIN_OUT:#x}",
    ]


def test_a_pause_loop_waits_until_the_word_is_written_by_another_cpu() -> None:
    rig = MachineRig(2)
    spinning(rig)
    rig.thread(0, store_flag)
    rig.step(1, 3)
    assert rig.enabled() == [Step(0)]
    assert rig.machine.blocked() == {1: "a word it spins on"}
    rig.step(0)
    assert rig.enabled() == [Step(1)]
    rig.run()
    assert not rig.machine.busy


def test_a_write_between_the_read_and_the_pause_is_not_slept_over() -> None:
    """Else the loop waits for a second write, which never comes: a deadlock that no CPU has."""
    rig = MachineRig(2)
    spinning(rig)
    rig.thread(0, store_flag)
    rig.step(1)  # reads 0
    rig.step(0)  # writes 1
    rig.step(1, 2)  # PAUSE
    assert rig.enabled() == [Step(1)]
    rig.run()
    assert not rig.machine.busy


def test_a_write_to_another_word_does_not_wake_the_loop() -> None:
    rig = MachineRig(2)
    spinning(rig)

    async def elsewhere() -> None:
        await Store(VirtAddr(VA + 8), 1)
        await Store(VirtAddr(VA + 4), 1, 4)  # the same aligned word

    rig.thread(0, elsewhere)
    rig.step(1, 3)
    rig.step(0)
    assert rig.enabled() == [Step(0)]
    rig.step(0)
    assert rig.enabled() == [Step(1)]


def test_a_write_of_the_cpus_own_interrupt_handler_wakes_the_loop() -> None:
    async def handler(request: int, payload: object) -> None:
        await Store(VA, 1, 1)
        await Acknowledge(request)

    async def sending() -> None:
        await SendIpi(frozenset({1}), FLUSH)

    for grain in Grain:
        rig = MachineRig(2, interrupts={FLUSH: InterruptHandler(handler, grain)})
        spinning(rig)
        rig.thread(0, sending)
        rig.step(1, 3)
        rig.step(0)
        rig.run()
        assert not rig.machine.busy


def test_a_page_that_is_remapped_under_a_spin_loop_wakes_it() -> None:
    """The word it read is not written: the address now leads to another word, which is already 1."""
    rig = MachineRig(2, interrupts={FLUSH: atomic()})
    rig.memory.load_image(PhysAddr((FRAME + 1) * PAGE), b"\x01")
    alias = table_alias(rig, VA)
    spinning(rig)

    async def remapping() -> None:
        await Store(alias, leaf(FRAME + 1))
        await Await(Acknowledged(await SendIpi(frozenset({1}), FLUSH)))

    rig.thread(0, remapping)
    rig.step(1, 3)
    rig.run()
    assert not rig.machine.busy


def test_an_invlpg_in_a_handler_wakes_a_loop_that_reads_by_a_stale_entry() -> None:
    """The entry was stored before the loop's last read: only the INVLPG makes it see the new word."""
    rig = MachineRig(2, model=SKYLAKE, interrupts={FLUSH: atomic()})
    rig.memory.load_image(PhysAddr((FRAME + 1) * PAGE), b"\x01")
    alias = table_alias(rig, VA)
    spinning(rig)

    async def remapping() -> None:
        await Store(alias, leaf(FRAME + 1))
        await Await(Acknowledged(await SendIpi(frozenset({1}), FLUSH)))

    rig.thread(0, remapping)
    read(rig.machine.cpus[1].mmu, VA)
    rig.step(0)
    rig.step(1, 3)  # reads by the old entry, and waits
    rig.run()
    assert not rig.machine.busy


def test_two_loops_over_a_failing_cmpxchg_do_not_wake_each_other() -> None:
    """A LOCK CMPXCHG that fails stores nothing: else two waiters would take turns for ever."""
    rig = MachineRig(3)
    rig.memory.load_image(PhysAddr(FRAME * PAGE), b"\x01")  # held by CPU 0

    async def releasing() -> None:
        await Store(VA, 0)

    for cpu in (1, 2):
        at = CODE + 0x100 * cpu
        program = f"xor eax, eax; lock cmpxchg [rbx], rcx; je {at + 13:#x}; pause; jmp {at:#x}; hlt"
        rig.guest(cpu, program, {"rbx": VA, "rcx": cpu + 1}, at=at)
    rig.thread(0, releasing)
    for _ in range(40):
        for cpu in (1, 2):
            if rig.machine.is_enabled(Step(cpu)):
                rig.step(cpu)
    assert rig.enabled() == [Step(0)]
    rig.step(0)
    assert rig.enabled() == [Step(1), Step(2)]
    rig.step(1, 4)
    assert rig.told(Finished) != []


def test_a_program_does_not_wait_for_what_the_one_before_it_read() -> None:
    rig = MachineRig(1)
    rig.guest(0, "mov rax, [rbx]; hlt", {"rbx": VA})
    rig.guest(0, "pause; hlt", at=CODE + 0x100)
    rig.run()
    assert not rig.machine.busy


def test_a_loop_that_reads_nothing_does_not_wait() -> None:
    rig = MachineRig(1)
    rig.guest(0, "pause; pause; hlt")
    rig.run()
    assert not rig.machine.busy


def test_two_guests_hand_over_to_each_other() -> None:
    """Each waits with PAUSE for the byte the other sets; they never run at the same time."""
    rig = MachineRig(2)
    rig.guest(0, SPIN.replace("hlt", "mov byte ptr [rcx], 1; hlt"), {"rbx": VA, "rcx": VA + 64})
    second = CODE + 0x100
    setting = "mov byte ptr [rcx], 1; "  # three bytes
    waiting = f"cmp byte ptr [rbx], 0; jne {second + 12:#x}; pause; jmp {second + 3:#x}; hlt"
    rig.guest(1, setting + waiting, {"rbx": VA + 64, "rcx": VA}, at=second)
    rig.run()
    assert not rig.machine.busy
    assert rig.told(Finished) == [Finished(0, "guest", killed=False), Finished(1, "guest", killed=False)]
