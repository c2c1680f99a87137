"""A guest core: repeated instructions, those of the machine's own, and what is told of each."""

from __future__ import annotations

import random

import pytest
from guest_rig import CODE, DATA_FRAME, PAGES, GuestRig, steps
from guest_states import BASE, ON, STACK, WRITING, refused, whole_state
from paging_rig import PAGE, VA, A, P, Pick, leaf, read
from random_code import random_code

from emu.addr import PhysAddr, VirtAddr
from emu.events import Executed, Faulted, GuestSite, Invalidated, Loaded, Stored, TlbFilled
from emu.guest.decode import REGISTERS, UnsupportedInstruction, decode
from emu.guest.engine import EngineError
from emu.guest.guest_core import Halted, Retired
from emu.paging.models import LAZY, SKYLAKE
from emu.paging.tlb import FaultedAt, Invlpg
from emu.paging.walk import Access

# --- repeated instructions ----------------------------------------------------------------------------


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


# --- instructions of the machine's own ----------------------------------------------------------------


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


# --- what is told -------------------------------------------------------------------------------------


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


# --- starting -----------------------------------------------------------------------------------------


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
