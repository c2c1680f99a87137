"""Guest code, one instruction at a time: refusals before anything happens, and nothing the engine adds."""

from __future__ import annotations

import gc
import random
from collections.abc import Mapping

import pytest
from guest_rig import CODE, CODE_FRAME, DATA_FRAME, EXECUTABLE, PAGES, GuestRig, assemble, steps
from paging_rig import PAGE, RO, RW, VA, A, P, Pick, fetch, leaf, read
from random_code import random_code

from emu.addr import PageSize, PhysAddr, VirtAddr
from emu.choice import Question
from emu.events import Executed, Faulted, GuestSite, Invalidated, Loaded, Stored, TlbFilled
from emu.guest.decode import REGISTERS, Decoded, Kind, UnsupportedInstruction, decode
from emu.guest.engine import EngineError
from emu.guest.guest_core import GuestCore, GuestTrap, Halted, Refused, Retired
from emu.mmu import Denied, NonCanonical
from emu.paging.geometry import ArraySpec, Geometry
from emu.paging.models import LAZY, SKYLAKE, CpuModel
from emu.paging.tlb import FaultedAt, Invlpg, Port
from emu.paging.walk import Access, BusError, FaultCode, PageFault

ON = Retired(interrupts=True, spin_hint=False)
STACK = VA + 0x800


def refused(va: int, code: int) -> Refused:
    return Refused(Denied(PageFault(VirtAddr(va), FaultCode(code)), None))


def whole_state(rig: GuestRig, core: GuestCore) -> tuple[dict[str, int], bytes]:
    return core.registers(), rig.data()


# --- every shape: refused whole, restarted, and then as if nothing had been -------------------------------

# Instruction, the registers that matter, and the access that is refused when the page of VA is absent.
BASE = {"rax": 0x1122334455667788, "rcx": 3, "rdx": 5, "rsi": VA + 0x100, "rdi": VA + 0x200, "rbx": VA + 0x40}
BASE |= {"rsp": STACK, "rbp": VA + 0x900, "r8": 0xA5A5A5A5A5A5A5A5, "r12": VA + 0x300, "r15": 0xFFFF}
SHAPES = [
    ("mov rax, [rbx]", VA + 0x40, 0),
    ("mov al, [rbx+0x3f]", VA + 0x7F, 0),
    ("movzx eax, word ptr [rbx]", VA + 0x40, 0),
    ("mov [rbx], rax", VA + 0x40, 2),
    ("mov byte ptr [rbx], 5", VA + 0x40, 2),
    ("movnti [rbx], rax", VA + 0x40, 2),
    ("add rax, [rbx]", VA + 0x40, 0),
    ("add [rbx], rax", VA + 0x40, 2),
    ("cmp [rbx], rax", VA + 0x40, 0),
    ("test byte ptr [rbx], 1", VA + 0x40, 0),
    ("inc dword ptr [rbx]", VA + 0x40, 2),
    ("neg qword ptr [rbx]", VA + 0x40, 2),
    ("shl qword ptr [rbx], cl", VA + 0x40, 2),
    ("lock or qword ptr [rbx], 1", VA + 0x40, 2),
    ("lock inc qword ptr [r12]", VA + 0x300, 2),
    ("lock bts qword ptr [rbx], 7", VA + 0x40, 2),
    ("xchg [rbx], rax", VA + 0x40, 2),
    ("lock xadd [rbx], rax", VA + 0x40, 2),
    ("lock cmpxchg [rbx], rcx", VA + 0x40, 2),
    ("lock cmpxchg8b [rbx]", VA + 0x40, 2),
    ("lock cmpxchg16b [rbx]", VA + 0x40, 2),
    ("sete [rbx]", VA + 0x40, 2),
    ("cmove rax, [rbx]", VA + 0x40, 0),
    ("bsf rax, [rbx]", VA + 0x40, 0),
    ("imul rax, [rbx], 7", VA + 0x40, 0),
    ("mul qword ptr [rbx]", VA + 0x40, 0),
    ("push rax", STACK - 8, 2),
    ("push 5", STACK - 8, 2),
    ("pushfq", STACK - 8, 2),
    ("push [rbx]", VA + 0x40, 0),
    ("pop rax", STACK, 0),
    ("popfq", STACK, 0),
    ("ret", STACK, 0),
    ("leave", VA + 0x900, 0),
    ("call rdi", STACK - 8, 2),
    ("jmp [rbx]", VA + 0x40, 0),
    ("call [rbx]", VA + 0x40, 0),
    ("movsq", VA + 0x100, 0),
    ("movsb", VA + 0x100, 0),
    ("stosq", VA + 0x200, 2),
    ("lodsd", VA + 0x100, 0),
    ("scasw", VA + 0x200, 0),
    ("cmpsq", VA + 0x100, 0),
    ("rep stosb", VA + 0x200, 2),
    ("rep movsq", VA + 0x100, 0),
    ("repne scasb", VA + 0x200, 0),
    ("movups xmm0, [rbx]", VA + 0x40, 0),
    ("movdqu [rbx], xmm0", VA + 0x40, 2),
    ("movaps [rbx], xmm0", VA + 0x40, 2),
    ("movq xmm1, [rbx]", VA + 0x40, 0),
]


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


WRITING = {text: va for text, va, code in SHAPES if code == 2}


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


# --- instruction fetch -----------------------------------------------------------------------------------


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


# --- code that changes -------------------------------------------------------------------------------------


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


# --- exceptions --------------------------------------------------------------------------------------------


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
    blind = Decoded("mov [rbx], rax", 3, Kind.ENGINE, (), repeats=False, compares=False)
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


# --- repeated instructions ---------------------------------------------------------------------------------


def test_rep_is_one_step_an_iteration() -> None:
    rig = GuestRig()
    rig.put("rep stosq; hlt")
    core = rig.core({"rcx": 3, "rdi": VA, "rax": 7})
    seen = []
    while isinstance(core.step(), Retired):
        registers = core.registers()
        seen.append((registers["rcx"], registers["rdi"] - VA, rig.data()[:32].count(7)))
    assert seen[:3] == [(2, 8, 1), (1, 16, 2), (0, 24, 3)]
    assert set(seen[3:]) <= {(0, 24, 3)}  # it may take a last step to see that RCX is 0
    assert core.rip == CODE + 4


@pytest.mark.parametrize("text", ["rep movsb", "rep stosq", "repe cmpsb", "repne scasb", "rep lodsq"])
def test_rep_with_rcx_0_touches_nothing_and_goes_on(text: str) -> None:
    rig = GuestRig()
    rig.put(f"{text}; hlt")
    rig.unmap(VA)
    core = rig.core({"rcx": 0, "rdi": VA, "rsi": VA})
    assert steps(core, 2) == [ON, Halted()]
    assert (core.registers()["rdi"], core.registers()["rsi"]) == (VA, VA)


def test_rep_stops_at_the_iteration_that_is_refused() -> None:
    rig = GuestRig()
    rig.put("rep stosq; hlt")
    rig.unmap(VA + PAGE)
    core = rig.core({"rcx": 4, "rdi": VA + PAGE - 16, "rax": 7})
    assert steps(core, 3) == [ON, ON, refused(VA + PAGE, 2)]
    registers = core.registers()
    assert (registers["rcx"], registers["rdi"], registers["rip"]) == (2, VA + PAGE, CODE)
    rig.set(rig.slot(VA + PAGE), leaf(DATA_FRAME + 1))
    while isinstance(core.step(), Retired):
        pass
    assert core.registers()["rcx"] == 0
    assert rig.data()[PAGE - 16 : PAGE + 24] == (b"\x07" + bytes(7)) * 4 + bytes(8)


def test_rep_movs_copies_backwards_under_the_direction_flag() -> None:
    rig = GuestRig()
    rig.fill_data()
    rig.put("std; rep movsb; cld; hlt")
    core = rig.core({"rcx": 5, "rsi": VA + 0x104, "rdi": VA + 0x206})
    wanted = rig.data()[0x100:0x105]
    while isinstance(core.step(), Retired):
        pass
    assert rig.data()[0x202:0x207] == wanted


def test_repne_scasb_stops_where_it_finds() -> None:
    rig = GuestRig()
    rig.memory.load_image(PhysAddr(DATA_FRAME * PAGE), b"hello")
    rig.put("repne scasb; hlt")
    core = rig.core({"rcx": 100, "rdi": VA, "rax": ord("l")})
    while isinstance(core.step(), Retired):
        pass
    assert core.registers()["rdi"] == VA + 3


# --- instructions of the machine's own ---------------------------------------------------------------------


def test_hlt_ends_the_program_behind_it() -> None:
    rig = GuestRig()
    rig.put("hlt")
    core = rig.core()
    assert core.step() == Halted()
    assert core.rip == CODE + 1


def test_pause_hints_a_spin_loop() -> None:
    rig = GuestRig()
    rig.put("pause")
    assert rig.core().step() == Retired(interrupts=True, spin_hint=True)


def test_cli_sti_and_popfq_change_the_interrupt_flag() -> None:
    rig = GuestRig()
    rig.put("cli; nop; sti; pushfq; cli; popfq; push 2; popfq")
    core = rig.core({"rsp": STACK})
    flags = []
    for _ in range(8):
        result = core.step()
        assert isinstance(result, Retired)
        flags.append(result.interrupts)
    assert flags == [False, False, True, True, False, True, True, False]


def test_invlpg_is_carried_out_on_the_mmu_and_touches_no_memory() -> None:
    rig = GuestRig()
    rig.put("invlpg [rbx+rcx*8]")
    rig.unmap(VA + PAGE)
    rig.listen()
    core = rig.core({"rbx": VA + PAGE, "rcx": 3})
    assert core.step() == ON
    assert [event for event in rig.events if isinstance(event, Invalidated)] == [
        Invalidated(0, Invlpg(VirtAddr(VA + PAGE + 24), 0))
    ]
    assert not [event for event in rig.events if isinstance(event, Faulted)]


def test_a_guest_sees_the_new_frame_after_its_own_invlpg() -> None:
    rig = GuestRig()
    rig.memory.load_image(PhysAddr(DATA_FRAME * PAGE), b"\x01")
    rig.memory.load_image(PhysAddr((DATA_FRAME + 1) * PAGE), b"\x02")
    rig.put("mov al, [rbx]; mov cl, [rbx]; invlpg [rbx]; mov dl, [rbx]")
    core = rig.core({"rbx": VA})
    core.step()
    rig.remap(VA, DATA_FRAME + 1)
    steps(core, 3)
    registers = core.registers()
    assert (registers["rax"], registers["rcx"], registers["rdx"]) == (1, 1, 2)


def test_lock_cmpxchg_asks_the_mmu_once_and_uses_one_version_for_read_and_write() -> None:
    """Answering the engine's two fills separately gave reads by the old frame and writes by the new one."""
    for pick, frame in ((0, DATA_FRAME), (1, DATA_FRAME + 1)):
        rig = GuestRig()
        rig.put("lock xadd [rbx], rax")
        rig.memory.load_image(PhysAddr(DATA_FRAME * PAGE), b"\x0a")
        rig.memory.load_image(PhysAddr((DATA_FRAME + 1) * PAGE), b"\x0b")
        core = rig.core({"rbx": VA, "rax": 0x30}, model=LAZY)
        rig.remap(VA, DATA_FRAME + 1)
        rig.last_mmu.answerer = picks = Pick(pick)
        assert core.step() == ON
        assert len(picks.asked) == 1
        values = [rig.memory.read(PhysAddr((DATA_FRAME + n) * PAGE), 1)[0] for n in range(2)]
        assert core.registers()["rax"] == (0x0A, 0x0B)[pick]
        assert values == ([0x3A, 0x0B] if frame == DATA_FRAME else [0x0A, 0x3B])


def test_each_page_of_an_operand_is_asked_for_and_may_be_of_another_age() -> None:
    rig = GuestRig()
    rig.put("mov rax, [rbx]")
    for page, byte in enumerate(b"\x01\x02\x03\x04"):
        rig.memory.load_image(PhysAddr((DATA_FRAME + page) * PAGE), bytes([byte]) * PAGE)
    core = rig.core({"rbx": VA + PAGE - 4}, model=LAZY)
    rig.remap(VA, DATA_FRAME + 2)
    rig.remap(VA + PAGE, DATA_FRAME + 3)
    rig.last_mmu.answerer = Pick(0, 1)
    assert core.step() == ON
    assert core.registers()["rax"] == 0x0404_0404_0101_0101


# --- what is told ------------------------------------------------------------------------------------------


def told(rig: GuestRig) -> list[tuple[str, int, int, int]]:
    return [
        (type(event).__name__, event.va - VA, event.size, event.value)
        for event in rig.events
        if isinstance(event, Loaded | Stored)
    ]


def test_each_access_is_told_with_its_value_and_place() -> None:
    rig = GuestRig()
    rig.listen()
    rig.put("mov [rbx], rax; mov ecx, [rbx+4]; add byte ptr [rbx], 2; push [rbx]")
    core = rig.core({"rbx": VA, "rax": 0x1122334455667788, "rsp": STACK})
    steps(core, 4)
    assert told(rig) == [
        ("Stored", 0, 8, 0x1122334455667788),
        ("Loaded", 4, 4, 0x11223344),
        ("Stored", 0, 1, 0x8A),
        ("Loaded", 0, 8, 0x112233445566778A),
        ("Stored", 0x7F8, 8, 0x112233445566778A),
    ]
    stored = next(event for event in rig.events if isinstance(event, Stored))
    assert (stored.cpu, stored.pa, stored.old) == (0, DATA_FRAME * PAGE, 0)
    assert stored.site == GuestSite("guest", VirtAddr(CODE), "mov qword ptr [rbx], rax")
    assert [event.site.rip - CODE for event in rig.events if isinstance(event, Executed)] == [0, 3, 6, 9]


def test_a_cmpxchg_that_fails_is_told_as_a_read() -> None:
    rig = GuestRig()
    rig.listen()
    rig.put("lock cmpxchg [rbx], rcx; lock cmpxchg [rbx], rcx")
    core = rig.core({"rbx": VA, "rax": 5, "rcx": 9})
    steps(core, 2)  # fails and loads 0 into RAX; then succeeds
    assert told(rig) == [("Loaded", 0, 8, 0), ("Stored", 0, 8, 9)]


def test_an_access_over_a_page_boundary_is_told_in_two_parts() -> None:
    rig = GuestRig()
    rig.listen()
    rig.put("mov [rbx], rax")
    steps(rig.core({"rbx": VA + PAGE - 3, "rax": 0x0807060504030201}), 1)
    assert told(rig) == [("Stored", PAGE - 3, 3, 0x030201), ("Stored", PAGE, 5, 0x0807060504)]


PROGRAM = (
    "mov [rbx], rax; add rax, [rbx+8]; lock xadd [rbx], rax; push rax; pop rcx; lock cmpxchg [rbx], rdx; "
    "movups xmm0, [rbx]; movups [rbx+0xff8], xmm0; inc rax; stosq; cmp byte ptr [rbx], 1; sete [rbx+0x20]; "
    "invlpg [rbx]; mov rcx, [rbx]; pause; lock btc qword ptr [rbx+0x30], 3; movsb; pushfq; popfq; hlt"
)


def test_events_have_the_same_numbers_whether_anybody_listens() -> None:
    numbers = []
    for listens in (True, False):
        rig = GuestRig()
        rig.fill_data()
        rig.put(PROGRAM)
        if listens:
            rig.listen()
        core = rig.core({"rbx": VA, "rax": 5, "rsp": STACK, "rdi": VA + 0x400, "rsi": VA + 0x500})
        seen = []
        while not isinstance(core.step(), Halted):
            seen.append(rig.trace.next_number)
        numbers.append(seen)
    assert numbers[0] == numbers[1]
    assert len(numbers[0]) == 19


def test_undoing_the_journal_takes_back_everything_a_guest_stored() -> None:
    rig = GuestRig()
    rig.fill_data()
    rig.put(PROGRAM)
    before = rig.memory.read(PhysAddr(0), rig.memory.size)
    core = rig.core({"rbx": VA, "rax": 5, "rsp": STACK, "rdi": VA + 0x400, "rsi": VA + 0x500})
    while not isinstance(core.step(), Halted):
        pass
    assert rig.memory.read(PhysAddr(0), rig.memory.size) != before
    rig.memory.undo(0)
    assert rig.memory.read(PhysAddr(0), rig.memory.size) == before


@pytest.mark.parametrize("text", [*WRITING, "lock btc qword ptr [rbx], rdx"])
@pytest.mark.parametrize("bit", [5, 64, 300])
def test_the_journal_has_every_byte_an_instruction_changed(text: str, bit: int) -> None:
    """Named after what went wrong: a bit string instruction changed a word beside the one journaled."""
    rig = GuestRig()
    rig.fill_data()
    rig.put(text)
    before = rig.data()
    core = rig.core({**BASE, "rdx": bit})
    try:
        core.step()
    except UnsupportedInstruction:
        return
    rig.memory.undo(0)
    assert rig.data() == before


@pytest.mark.parametrize("text", ["lock cmpxchg [rbx], rcx", "cmpxchg [rbx], cl", "lock cmpxchg16b [rbx]"])
def test_a_cmpxchg_that_fails_is_no_store_in_the_journal(text: str) -> None:
    """As with the kernel's CmpXchg: there is nothing to take back and no new version."""
    rig = GuestRig()
    rig.fill_data()
    rig.put(text)
    core = rig.core({"rbx": VA, "rcx": 3})
    assert core.step() == ON
    assert rig.memory.journal.next_change(PhysAddr(DATA_FRAME * PAGE), 16, 0) is None


def wrong_after_random_instructions(seed: int, count: int) -> dict[str, str]:
    """Run random accepted instructions one at a time. Returns what each kind did that it may not."""
    rng = random.Random(seed)
    rig = GuestRig()
    rig.fill_data()
    core = rig.core()
    wrong = {}
    for _ in range(count):
        code = random_code(rng)
        try:
            text = decode(code, CODE).text
        except UnsupportedInstruction:
            continue
        rig.put(code)
        inside = {name: VA + rng.randrange(PAGES * PAGE) for name in REGISTERS}
        core.load("random", VirtAddr(CODE), inside | {"rcx": rng.choice((0, 3, inside["rcx"]))})
        before = whole_state(rig, core)
        try:
            result: object = core.step()
        except EngineError as error:
            result = error
        if isinstance(result, EngineError):
            wrong[text] = f"{code.hex()}: {result}"
        elif not isinstance(result, Retired | Halted) and whole_state(rig, core) != before:
            wrong[text] = f"{code.hex()}: {result}, and yet something happened"
        rig.memory.undo(0)
        rig.memory.journal.forget()
        rig.last_mmu.reset()
        if rig.data() != before[1]:
            wrong[text] = f"{code.hex()}: changed what the journal does not know"
            rig.fill_data()
    return wrong


def test_random_instructions_happen_whole_or_not_at_all_and_are_journaled() -> None:
    assert wrong_after_random_instructions(seed=1, count=12_000) == {}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 6))
def test_very_many_random_instructions_do(seed: int) -> None:
    assert wrong_after_random_instructions(seed, count=100_000) == {}


def test_the_words_a_spin_loop_reads_are_known() -> None:
    rig = GuestRig()
    rig.put("mov rax, [rbx]; mov ecx, [rbx+0x14]; pause")
    core = rig.core({"rbx": VA + 4})
    core.step()
    first = (DATA_FRAME * PAGE) >> 3
    assert set(core.words_read()) == {first, first + 1}
    core.step()
    assert set(core.words_read()) == {first + 3}
    core.step()
    assert set(core.words_read()) == set()


# --- starting ----------------------------------------------------------------------------------------------


def test_a_program_starts_with_its_registers_and_zeros() -> None:
    rig = GuestRig()
    core = rig.core({"rax": 1, "r15": 2**64 - 1})
    expected = dict.fromkeys(core.registers(), 0) | {"rax": 1, "r15": 2**64 - 1, "rip": CODE, "rflags": 0x202}
    assert core.registers() == expected


def test_an_unknown_register_is_refused_by_name() -> None:
    rig = GuestRig()
    core = rig.core()
    with pytest.raises(ValueError, match=r"^no such register: eax, xmm0$"):
        core.load("guest", VirtAddr(CODE), {"xmm0": 1, "rax": 2, "eax": 3})


def test_a_second_program_finds_nothing_of_the_first() -> None:
    rig = GuestRig()
    rig.put("movups xmm3, [rbx]; std; cli; inc rax; hlt")
    rig.put("movups [rbx], xmm3; pushfq; pop rcx; hlt", CODE + 0x100)
    rig.memory.load_image(PhysAddr(DATA_FRAME * PAGE), b"left over from it")
    core = rig.core({"rbx": VA, "r10": 7})
    while not isinstance(core.step(), Halted):
        pass
    core.load("second", VirtAddr(CODE + 0x100), {"rbx": VA, "rsp": STACK})
    while not isinstance(core.step(), Halted):
        pass
    registers = core.registers()
    assert rig.data()[:16] == bytes(16)
    assert (registers["rcx"], registers["r10"], registers["rax"]) == (0x202, 0, 0)
    assert core.site() == GuestSite("second", VirtAddr(CODE + 0x100 + 5), "hlt")


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


def test_two_cores_over_one_memory_see_each_others_stores_at_once() -> None:
    rig = GuestRig()
    rig.put("mov [rbx], rax; hlt")
    rig.put("mov rcx, [rbx]; hlt", CODE + 0x100)
    writer = rig.core({"rbx": VA, "rax": 0xABCD})
    reader = rig.core({"rbx": VA}, at=CODE + 0x100, mmu=rig.mmu(SKYLAKE))
    writer.step()
    reader.step()
    assert reader.registers()["rcx"] == 0xABCD


def test_a_fault_drops_what_the_tlb_had_for_the_address() -> None:
    rig = GuestRig()
    rig.listen()
    rig.put("mov [rbx], rax")
    rig.preset(rig.slot(VA), leaf(DATA_FRAME, P | A))
    core = rig.core({"rbx": VA + 8})
    core.step()
    assert rig.events[-1] == Invalidated(0, FaultedAt(VirtAddr(VA + 8), 0))
    assert [event.access for event in rig.events if isinstance(event, TlbFilled)] == [Access.FETCH]


def test_all_pages_of_the_rig_are_distinct() -> None:
    rig = GuestRig()
    mmu = rig.mmu(SKYLAKE)
    frames = [read(mmu, base + page * PAGE) for base in (CODE, VA) for page in range(PAGES)]
    assert len(set(frames)) == 2 * PAGES
