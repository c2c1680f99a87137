"""Instruction fetch: where code ends, and what happens when it changes under the CPU that runs it."""

from __future__ import annotations

import pytest
from guest_rig import CODE, CODE_FRAME, DATA_FRAME, EXECUTABLE, GuestRig, assemble, steps
from guest_states import ON, STACK, refused
from paging_rig import PAGE, RW, VA, fetch, leaf, read

from emu.addr import PageSize, PhysAddr, VirtAddr
from emu.events import Loaded, TlbFilled
from emu.guest.guest_core import Halted
from emu.paging.geometry import ArraySpec, Geometry
from emu.paging.models import CpuModel
from emu.paging.tlb import Invlpg, Port

# --- instruction fetch --------------------------------------------------------------------------------


def test_straight_line_code_runs_up_to_an_absent_page_and_stops_exactly_there() -> None:
    """The engine alone would fault before the first of these."""
    rig = GuestRig()
    rig.put("inc rax; inc rax; inc rax", CODE + PAGE - 9)
    rig.unmap(CODE + PAGE)
    core = rig.core(at=CODE + PAGE - 9)
    assert steps(core, 3) == [ON, ON, ON]
    before = core.registers()
    assert (before["rax"], before["rip"]) == (3, CODE + PAGE)
    assert core.step() == refused(CODE + PAGE, 0x10)
    assert core.registers() == before
    rig.set(rig.slot(CODE + PAGE), leaf(CODE_FRAME + 1, EXECUTABLE))
    rig.memory.load_image(rig.code_pa(CODE + PAGE), assemble("add rax, 7"))
    assert core.step() == ON
    assert core.registers()["rax"] == 10


@pytest.mark.parametrize(
    "text", ["mov rax, [rbx]", "mov [rbx], rax", "lock inc qword ptr [rbx]", "rep stosq"]
)
def test_an_access_just_before_an_absent_page_is_made_once(text: str) -> None:
    rig = GuestRig()
    code = assemble(text)
    rig.put(code, CODE + PAGE - len(code))
    rig.unmap(CODE + PAGE)
    core = rig.core({"rbx": VA, "rdi": VA, "rcx": 1, "rax": 9}, at=CODE + PAGE - len(code))
    assert core.step() == ON
    assert rig.word(VA) == {"mov rax, [rbx]": 0, "lock inc qword ptr [rbx]": 1}.get(text, 9)


@pytest.mark.parametrize("before", range(1, 10))
def test_an_instruction_over_the_boundary_of_an_absent_page_faults_at_the_boundary(before: int) -> None:
    """MOVABS rax, imm64 is ten bytes."""
    rig = GuestRig()
    rig.put("movabs rax, 0x1122334455667788", CODE + PAGE - before)
    rig.unmap(CODE + PAGE)
    core = rig.core(at=CODE + PAGE - before)
    state = core.registers()
    assert core.step() == refused(CODE + PAGE, 0x10)
    assert core.registers() == state
    rig.set(rig.slot(CODE + PAGE), leaf(CODE_FRAME + 1, EXECUTABLE))
    assert core.step() == ON
    assert core.registers()["rax"] == 0x1122334455667788


def test_a_page_behind_the_instruction_is_not_asked_for() -> None:
    rig = GuestRig()
    rig.put("nop", CODE + PAGE - 1)
    rig.listen()
    core = rig.core(at=CODE + PAGE - 1)
    assert core.step() == ON
    assert [event.va for event in rig.events if isinstance(event, TlbFilled)] == [CODE + PAGE - 1]


def test_a_jump_to_nowhere_is_done_and_the_fetch_there_refused() -> None:
    rig = GuestRig()
    rig.put("jmp rbx")
    core = rig.core({"rbx": 0x7770123})
    assert core.step() == ON
    assert core.rip == 0x7770123
    assert core.step() == refused(0x7770123, 0x10)
    assert core.rip == 0x7770123


@pytest.mark.parametrize("text", ["ret", "rep ret", "jmp [rsp]"])
def test_a_return_to_address_0_is_done_and_the_fetch_there_refused(text: str) -> None:
    rig = GuestRig()
    rig.put(b"\xf3\xc3" if text == "rep ret" else text)
    core = rig.core({"rsp": STACK})
    assert core.step() == ON
    assert core.rip == 0
    assert core.step() == refused(0, 0x10)


def test_rep_ret_reads_its_return_address_although_rcx_is_0() -> None:
    rig = GuestRig()
    rig.put(b"\xf3\xc3")
    rig.memory.load_image(PhysAddr(DATA_FRAME * PAGE + 0x800), (CODE + 0x40).to_bytes(8, "little"))
    core = rig.core({"rsp": STACK, "rcx": 0})
    assert core.step() == ON
    assert (core.rip, core.registers()["rsp"]) == (CODE + 0x40, STACK + 8)


def test_code_at_address_0_runs() -> None:
    """0 is also what the engine takes for "stop nowhere"."""
    rig = GuestRig()
    rig.map(0, 0x500, EXECUTABLE)
    rig.memory.load_image(PhysAddr(0x500000), assemble("inc rax; inc rax; jmp rbx"))
    rig.put("jmp rcx")
    core = rig.core({"rbx": CODE})
    assert steps(core, 4) == [ON] * 4
    assert (core.registers()["rax"], core.rip) == (2, CODE)


def test_a_page_that_may_not_be_executed_is_refused() -> None:
    rig = GuestRig()
    rig.put("jmp rbx")
    rig.preset(rig.slot(VA), leaf(DATA_FRAME, RW) | 1 << 63)
    core = rig.core({"rbx": VA})
    assert steps(core, 2) == [ON, refused(VA, 0x11)]


def test_data_in_a_page_that_is_being_executed_comes_by_the_data_translation() -> None:
    """The two sides of the TLB hold different frames for the page: each access uses its own side's."""
    sides = tuple(
        ArraySpec(port.value, 1, frozenset({port}), frozenset({PageSize.KIB4}), 1, 4) for port in Port
    )
    rig = GuestRig()
    rig.listen()
    code = assemble("mov rax, [rip+0x100]")
    for frame, byte in ((CODE_FRAME, b"A"), (0x600, b"B")):
        rig.memory.load_image(PhysAddr(frame * PAGE), code)
        rig.memory.load_image(PhysAddr(frame * PAGE + 0x107), byte * 8)
    core = rig.core(model=CpuModel("split", Geometry(sides)))
    assert fetch(rig.last_mmu, CODE) == CODE_FRAME
    rig.set(rig.slot(CODE), leaf(0x600, EXECUTABLE))
    assert read(rig.last_mmu, CODE) == 0x600
    assert core.step() == ON
    loaded = next(event for event in rig.events if isinstance(event, Loaded))
    assert loaded.pa == 0x600107
    assert core.registers()["rax"] == loaded.value == int.from_bytes(b"B" * 8, "little")


# --- code that changes --------------------------------------------------------------------------------


def test_a_store_into_the_code_just_ahead_is_done_and_the_changed_code_run() -> None:
    """The engine threw its translation away, began again, and stopped before the store: for ever."""
    rig = GuestRig()
    rig.map(VA, CODE_FRAME)  # an alias of the code page
    rig.put("mov byte ptr [rbx], 7; add al, 1; jmp rcx")  # makes it `add al, 7`
    core = rig.core({"rbx": VA + 4, "rcx": CODE + 3})
    assert core.step() == ON
    assert core.rip == CODE + 3
    assert core.step() == ON
    assert core.registers()["rax"] == 7


def test_an_instruction_that_changes_itself_is_done_once() -> None:
    rig = GuestRig()
    rig.map(VA, CODE_FRAME)
    rig.put("mov byte ptr [rbx], 9; add al, 1")
    core = rig.core({"rbx": VA + 2})
    assert steps(core, 2) == [ON, ON]
    assert (core.registers()["rax"], rig.memory.read(rig.code_pa(CODE + 2), 1)) == (1, b"\x09")


def test_a_locked_increment_of_the_code_just_ahead_is_done_once() -> None:
    rig = GuestRig()
    rig.map(VA, CODE_FRAME)
    rig.put("lock inc byte ptr [rbx]; add al, 1")
    core = rig.core({"rbx": VA + 4})
    assert steps(core, 2) == [ON, ON]
    assert core.registers()["rax"] == 2


def test_a_repeated_store_over_the_code_just_ahead_goes_on() -> None:
    """RIP stays where it is while it repeats: that nothing was done shows in RCX."""
    rig = GuestRig()
    rig.map(VA, CODE_FRAME)
    rig.put("rep stosb; hlt; hlt; hlt; hlt")
    core = rig.core({"rdi": VA + 2, "rcx": 3, "rax": 0x90})
    seen = [core.step() for _ in range(8)]
    assert Halted() in seen
    assert core.registers()["rcx"] == 0
    assert rig.memory.read(rig.code_pa(CODE + 2), 4) == b"\x90\x90\x90\xf4"


@pytest.mark.parametrize("text", ["call rcx", "push rax", "call [rbx]"])
def test_a_push_over_the_code_just_ahead_is_done_once(text: str) -> None:
    rig = GuestRig()
    rig.map(VA, CODE_FRAME)
    rig.put(text)
    rig.memory.load_image(rig.code_pa(CODE + 0x80), (CODE + 0x200).to_bytes(8, "little"))
    core = rig.core({"rsp": VA + 12, "rcx": CODE + 0x200, "rax": 0x9090, "rbx": VA + 0x80})
    assert core.step() == ON
    length = len(assemble(text))
    assert core.rip == (CODE + 0x200 if "call" in text else CODE + length)
    assert core.registers()["rsp"] == VA + 4
    pushed = CODE + length if "call" in text else 0x9090
    assert rig.memory.read(rig.code_pa(CODE + 4), 8) == pushed.to_bytes(8, "little")


def test_a_store_elsewhere_in_the_page_that_is_being_executed_is_done_once() -> None:
    rig = GuestRig()
    rig.map(VA, CODE_FRAME)
    rig.put("lock inc qword ptr [rbx]; lock inc qword ptr [rbx]")
    core = rig.core({"rbx": VA + 0x800})
    assert steps(core, 2) == [ON, ON]
    assert rig.memory.read_word(rig.code_pa(CODE + 0x800)) == 2


@pytest.mark.parametrize("at", [CODE, CODE + PAGE - 1])
def test_code_changed_by_another_cpu_is_run_as_changed(at: int) -> None:
    """Also where only the part in the second page changed."""
    rig = GuestRig()
    rig.put("add al, 1; jmp rcx", at)
    core = rig.core({"rcx": at}, at=at)
    for amount in (1, 5, 9):
        rig.memory.write(rig.code_pa(at + 1), bytes([amount]))
        assert steps(core, 2) == [ON, ON]
    assert core.registers()["rax"] == 15


def test_a_loop_over_unchanged_code_gives_the_same_each_time() -> None:
    rig = GuestRig()
    rig.put("add rax, 3; jmp rcx")
    core = rig.core({"rcx": CODE})
    steps(core, 20)
    assert core.registers()["rax"] == 30


def test_a_code_page_that_is_remapped_runs_the_old_frame_until_it_is_invalidated() -> None:
    rig = GuestRig()
    rig.put("add rax, 1; jmp rcx")
    rig.memory.load_image(PhysAddr(0x500000), assemble("add rax, 100; jmp rcx"))
    core = rig.core({"rcx": CODE})
    steps(core, 2)
    rig.set(rig.slot(CODE), leaf(0x500, EXECUTABLE))
    steps(core, 2)
    assert core.registers()["rax"] == 2
    rig.last_mmu.invalidate(Invlpg(VirtAddr(CODE)))
    steps(core, 2)
    assert core.registers()["rax"] == 102
