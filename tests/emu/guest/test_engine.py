"""Exceptions inside the engine: they leave the state before the instruction, and an engine that works."""

from __future__ import annotations

import gc

import pytest
from guest_rig import CODE, DATA_FRAME, GuestRig, assemble, steps
from guest_states import ON, STACK, whole_state
from paging_rig import VA, Pick

from emu.addr import VirtAddr
from emu.choice import Question
from emu.guest.decode import Decoded, InstructionKind, UnsupportedInstruction, decode
from emu.guest.engine import EngineError
from emu.guest.guest_core import GuestTrap, Halted
from emu.paging.models import LAZY

# --- exceptions ---------------------------------------------------------------------------------------


def test_a_division_by_zero_traps_each_time_it_is_tried() -> None:
    """Once is easy: the second one in a core's life arrives from the engine as a double fault."""
    rig = GuestRig()
    rig.put("inc rax; div rbx; inc rax")
    core = rig.core({"rax": 6, "rdx": 0, "rcx": 77})
    assert core.step() == ON
    before = core.registers()
    for _ in range(3):
        assert core.step() == GuestTrap(0)
        assert core.registers() == before
    assert core.rip == CODE + 3


@pytest.mark.parametrize(
    ("program", "vector"),
    [
        ("ud2", 6),
        (b"\x0f\x78\xc3", 6),  # VMREAD outside VMX
        ("div qword ptr [rbx]", 0),
    ],
    ids=["ud2", "vmread", "div"],
)
def test_an_exception_leaves_the_state_before_the_instruction_and_the_core_usable(
    program: str | bytes, vector: int
) -> None:
    rig = GuestRig()
    rig.put(program)
    rig.put("mov [rbx], rcx; hlt", CODE + 0x100)
    core = rig.core({"rbx": VA, "rcx": 5, "rsp": STACK, "r9": 99})
    before = whole_state(rig, core)
    assert steps(core, 2) == [GuestTrap(vector)] * 2
    assert whole_state(rig, core) == before
    core.load("next", VirtAddr(CODE + 0x100), {"rbx": VA, "rcx": 5})
    assert steps(core, 2) == [ON, Halted()]
    assert rig.word(VA) == 5


def test_traps_of_different_kinds_in_turn_stay_themselves() -> None:
    rig = GuestRig()
    rig.put("div rbx")
    rig.put("ud2", CODE + 0x100)
    rig.put(b"\x0f\x78\xc3", CODE + 0x200)
    core = rig.core()
    seen = []
    for at in (0, 0x100, 0, 0x200, 0x200, 0):
        core.load("again", VirtAddr(CODE + at), {})
        seen.append(core.step())
    assert seen == [GuestTrap(0), GuestTrap(6), GuestTrap(0), GuestTrap(6), GuestTrap(6), GuestTrap(0)]


def test_an_exception_does_not_lose_the_vector_registers_or_segment_bases() -> None:
    """The core gets a new engine then: all of the state goes along, not the general registers alone."""
    rig = GuestRig()
    rig.put("movq xmm3, rax; div rbx; movq rcx, xmm3; hlt")
    core = rig.core({"rax": 0x1234, "rbx": 0})
    assert steps(core, 2) == [ON, GuestTrap(0)]
    rig.memory.write(rig.code_pa(CODE + 5), b"\x90\x90\x90")  # the handler takes the division out
    assert steps(core, 4) == [ON] * 4
    assert core.registers()["rcx"] == 0x1234


def test_an_unsupported_instruction_is_raised_by_name_and_changes_nothing() -> None:
    rig = GuestRig()
    rig.put("rdtsc", CODE + 0x10)
    core = rig.core({"rax": 1}, at=CODE + 0x10)
    before = core.registers()
    for _ in range(2):
        with pytest.raises(UnsupportedInstruction, match=r"^guest .* at 0xffffffff81000010: rdtsc$"):
            core.step()
    assert core.registers() == before


class Raises:
    """An answerer with a bug."""

    def answer(self, question: Question) -> int:
        raise RuntimeError(f"cannot answer {question.options}")


def test_an_exception_of_the_answerer_comes_out_and_the_instruction_has_not_happened() -> None:
    rig = GuestRig()
    rig.put("add [rbx], rax")
    core = rig.core({"rbx": VA, "rax": 3}, model=LAZY)
    rig.remap(VA, DATA_FRAME + 1)
    rig.last_mmu.answerer = Raises()
    before = whole_state(rig, core)
    with pytest.raises(RuntimeError, match=r"^cannot answer 2$"):
        core.step()
    assert whole_state(rig, core) == before
    rig.last_mmu.answerer = Pick(0)
    assert core.step() == ON
    assert rig.word(VA) == 3


def test_an_access_the_decoder_did_not_foresee_is_an_error_and_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The exception is raised within the engine's callback: it must come out, now and the next time."""
    rig = GuestRig()
    rig.put("mov [rbx], rax")
    core = rig.core({"rbx": VA, "rax": 3})
    blind = Decoded("mov [rbx], rax", 3, InstructionKind.ENGINE, (), repeats=False, compares=False)
    monkeypatch.setattr("emu.guest.guest_core.decode", lambda *_: blind)
    before = whole_state(rig, core)
    for _ in range(2):
        with pytest.raises(EngineError, match=f"^access to page {VA:#x} that the decoder did not foresee$"):
            core.step()
        assert whole_state(rig, core) == before
    monkeypatch.undo()
    assert core.step() == ON
    assert rig.word(VA) == 3


def test_a_write_that_the_decoder_took_for_a_read_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = GuestRig()
    rig.put("mov [rbx], rax")
    core = rig.core({"rbx": VA, "rax": 3})
    reading = decode(assemble("mov rax, [rbx]").ljust(15, b"\x90"), CODE)
    monkeypatch.setattr("emu.guest.guest_core.decode", lambda *_: reading)
    with pytest.raises(EngineError, match="took for a read"):
        core.step()
    assert rig.word(VA) == 0


# --- starting -----------------------------------------------------------------------------------------


def test_a_core_that_is_dropped_frees_its_engine() -> None:
    """A reference cycle through the callback would keep 32 MiB for each."""
    rig = GuestRig()
    rig.put("nop")
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            rig.core().step()
        engines = [one for one in gc.get_objects() if type(one).__name__ == "Uc"]
    finally:
        gc.enable()
    assert len(engines) <= 1
