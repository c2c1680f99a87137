"""A refused instruction has not happened: whatever its shape, it can be started again."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from guest_rig import CODE, DATA_FRAME, GuestRig, steps
from guest_states import BASE, ON, SHAPES, STACK, WRITING, refused, whole_state
from paging_rig import PAGE, RO, RW, VA, leaf, read

from emu.addr import PhysAddr, VirtAddr
from emu.guest.guest_core import Refused, Retired
from emu.mmu import Denied, NonCanonical
from emu.paging.walk import BusError, FaultCode, PageFault

THROUGH_MEMORY = ("ret", "jmp [rbx]", "call [rbx]")


def filled(text: str) -> GuestRig:
    """With that instruction, and where it takes a target from memory, one that is canonical."""
    rig = GuestRig()
    rig.fill_data()
    rig.put(text)
    if text in THROUGH_MEMORY:
        for va in (STACK, BASE["rbx"]):
            target = (CODE + 0x40).to_bytes(8, "little")
            rig.memory.load_image(PhysAddr(DATA_FRAME * PAGE + va - VA), target)
    return rig


def control_run(text: str, registers: Mapping[str, int]) -> tuple[dict[str, int], bytes]:
    """What the instruction does when every page is there."""
    rig = filled(text)
    core = rig.core(registers)
    assert isinstance(core.step(), Retired)
    return whole_state(rig, core)


@pytest.mark.parametrize(("text", "va", "code"), SHAPES, ids=[shape[0] for shape in SHAPES])
def test_a_refused_instruction_has_not_happened_and_can_be_started_again(
    text: str, va: int, code: int
) -> None:
    rig = filled(text)
    rig.unmap(VA)
    core = rig.core(BASE)
    before = whole_state(rig, core)
    for _ in range(2):
        assert core.step() == refused(va, code)
        assert whole_state(rig, core) == before
    assert core.rip == CODE
    rig.set(rig.slot(VA), leaf(DATA_FRAME))
    assert isinstance(core.step(), Retired)
    assert whole_state(rig, core) == control_run(text, BASE)


@pytest.mark.parametrize(("text", "va"), WRITING.items(), ids=list(WRITING))
def test_a_write_to_a_read_only_page_is_refused_whole(text: str, va: int) -> None:
    """Also when the instruction reads first, and when the read is already in the TLB."""
    rig = filled(text)
    rig.preset(rig.slot(VA), leaf(DATA_FRAME, RO))
    core = rig.core(BASE)
    read(rig.last_mmu, VA)
    before = whole_state(rig, core)
    result = core.step()
    assert isinstance(result, Refused)
    assert isinstance(result.why, Denied)
    assert result.why.fault == PageFault(VirtAddr(va), FaultCode.WRITE | FaultCode.PROTECTION)
    assert whole_state(rig, core) == before
    rig.set(rig.slot(VA), leaf(DATA_FRAME, RW))
    assert isinstance(core.step(), Retired)
    assert whole_state(rig, core) == control_run(text, BASE)


# Instruction, size of its operand, error code; the operand is put at each place over a page boundary.
CROSSING = [
    ("mov rax, [rbx]", 8, 0),
    ("mov [rbx], rax", 8, 2),
    ("mov [rbx], ecx", 4, 2),
    ("add [rbx], rax", 8, 2),
    ("lock xadd [rbx], rax", 8, 2),
    ("lock cmpxchg [rbx], rcx", 8, 2),
    ("movups xmm0, [rbx]", 16, 0),
    ("movups [rbx], xmm0", 16, 2),
    ("mov ax, [rbx]", 2, 0),
]


@pytest.mark.parametrize(("text", "size", "code"), CROSSING, ids=[row[0] for row in CROSSING])
@pytest.mark.parametrize("absent", [(0,), (1,), (0, 1)], ids=str)
def test_the_fault_address_over_a_page_boundary_is_exact(
    text: str, size: int, code: int, absent: tuple[int, ...]
) -> None:
    """In the first page that of the operand, in the second the first byte there; and nothing is stored."""
    for before in {1, size // 2, size - 1}:
        rig = GuestRig()
        rig.fill_data()
        rig.put(text)
        for page in absent:
            rig.unmap(VA + page * PAGE)
        core = rig.core({**BASE, "rbx": VA + PAGE - before})
        state = whole_state(rig, core)
        expected = VA + PAGE - before if 0 in absent else VA + PAGE
        assert core.step() == refused(expected, code)
        assert whole_state(rig, core) == state
        for page in absent:
            rig.set(rig.slot(VA + page * PAGE), leaf(DATA_FRAME + page))
        assert isinstance(core.step(), Retired)
        assert whole_state(rig, core) == control_run(text, {**BASE, "rbx": VA + PAGE - before})


def test_an_instruction_with_two_operands_is_refused_by_the_one_that_is_refused() -> None:
    for text, absent, va, code in (
        ("movsq", 1, VA + PAGE, 2),
        ("push [rbx]", 1, VA + PAGE + 0x10 - 8, 2),
        ("call [rbx]", 1, VA + PAGE + 0x10 - 8, 2),
    ):
        rig = GuestRig()
        rig.fill_data()
        rig.put(text)
        rig.unmap(VA + absent * PAGE)
        core = rig.core({**BASE, "rdi": VA + PAGE, "rsp": VA + PAGE + 0x10})
        before = whole_state(rig, core)
        assert core.step() == refused(va, code)
        assert whole_state(rig, core) == before


def test_an_operand_outside_memory_is_a_bus_error_and_refused_whole() -> None:
    rig = GuestRig()
    rig.put("mov [rbx], rax")
    rig.preset(rig.slot(VA), leaf(rig.memory.size >> 12))
    core = rig.core(BASE)
    before = core.registers()
    assert core.step() == Refused(BusError(VirtAddr(VA + 0x40), PhysAddr(rig.memory.size + 0x40)))
    assert core.registers() == before


@pytest.mark.parametrize("va", [0x0000_8000_0000_0000, 0x1234_5678_9ABC_DEF0, 0xFFFF_7FFF_FFFF_FFF8])
def test_an_operand_that_is_not_canonical_is_refused_as_such(va: int) -> None:
    rig = GuestRig()
    rig.put("mov rax, [rbx]")
    core = rig.core({"rbx": va})
    assert core.step() == Refused(NonCanonical(va))
    assert core.rip == CODE


def test_a_refusal_leaves_the_vector_registers_too() -> None:
    rig = GuestRig()
    rig.fill_data()
    rig.put("movups xmm3, [rbx]; mov rax, [rcx]; movups [rbx+0x100], xmm3")
    rig.unmap(VA + PAGE)
    core = rig.core({"rbx": VA, "rcx": VA + PAGE})
    assert core.step() == ON
    assert core.step() == refused(VA + PAGE, 0)
    rig.set(rig.slot(VA + PAGE), leaf(DATA_FRAME + 1))
    assert steps(core, 2) == [ON, ON]
    assert rig.data()[0x100:0x110] == rig.data()[:16]
