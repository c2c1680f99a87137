"""The table of what instructions do to memory, against the fills the engine makes when it runs them."""

from __future__ import annotations

import random

import keystone
import pytest
from fill_log import CODE, FS_BASE, GS_BASE, PAGE, FillLog
from random_code import random_code

from emu.guest.decode import (
    BEHIND_THE_END,
    REGISTERS,
    Decoded,
    InstructionKind,
    Segment,
    UnsupportedInstruction,
    decode,
    is_whole,
)
from emu.paging.walk import Access

_KEYSTONE = keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_64)
READ, WRITE = Access.READ, Access.WRITE


def assemble(text: str, at: int = CODE) -> bytes:
    if text == "movsd":  # the assembler takes it for the SSE one
        return b"\xa5"
    encoded, _ = _KEYSTONE.asm(text, at)
    return bytes(encoded)


@pytest.fixture(scope="module")
def engine() -> FillLog:
    return FillLog()


def foreseen(insn: Decoded, registers: list[int]) -> dict[int, str]:
    """The pages the decoder says, with R or W."""
    pages: dict[int, str] = {}
    if insn.repeats and registers[REGISTERS.index("rcx")] == 0:
        return pages
    base = {Segment.FLAT: 0, Segment.STACK: 0, Segment.FS: FS_BASE, Segment.GS: GS_BASE}
    for operand in insn.operands:
        va = operand.address(registers, base[operand.segment])
        for page in {va // PAGE, (va + operand.size - 1) % 2**64 // PAGE}:
            if operand.access is WRITE or pages.get(page) != "W":
                pages[page] = "W" if operand.access is WRITE else "R"
    return pages


def registers_with_offset(offset: int) -> list[int]:
    """Every register in a page of its own, all at the same place in it."""
    return [0x10_0000 * (number + 1) + offset for number in range(len(REGISTERS))]


# --- shapes ---------------------------------------------------------------------------------------------

SHAPES = """
mov rax, [rbx]; mov eax, [rbx]; mov ax, [rbx]; mov al, [rbx]; mov ah, [rbx]
mov [rbx], rax; mov [rbx], eax; mov [rbx], ax; mov [rbx], al
mov qword ptr [rbx], 5; mov dword ptr [rbx], 5; mov word ptr [rbx], 5; mov byte ptr [rbx], 5
mov rax, [rbx+0x123]; mov [rbx-8], rcx; mov rax, [rbx+rsi*2]; mov rax, [rbx+rsi*8+0x10]; mov rax, [rsi*4]
mov rax, [r12]; mov rax, [r13+8]; mov [r15+r14*1], r8; mov rax, [rsp]; mov rax, [rsp+8]; mov [rbp-4], eax
mov rax, fs:[rbx]; mov gs:[rbx+8], rax; mov rax, [rip+0x2000]; mov [rip+0x2000], al
cmp byte ptr [rip+0x3030], 1
movzx eax, byte ptr [rbx]; movzx eax, word ptr [rbx]; movsx rax, byte ptr [rbx]; movsxd rax, dword ptr [rbx]
movnti [rbx], rax; movnti [rbx], eax
add [rbx], rax; add rax, [rbx]; adc [rbx], eax; sub [rbx], al; sbb rax, [rbx]; and [rbx], ax; or [rbx], rax
xor [rbx], rax; xor rax, [rbx]; cmp [rbx], rax; cmp rax, [rbx]; cmp byte ptr [rbx], 3; test [rbx], rax
test dword ptr [rbx], 7; add qword ptr [rbx], 1; and dword ptr [rbx], 0x7fffffff; or byte ptr [rbx], 1
inc qword ptr [rbx]; dec dword ptr [rbx]; neg word ptr [rbx]; not byte ptr [rbx]
shl qword ptr [rbx], 3; shr dword ptr [rbx], 1; sar qword ptr [rbx], cl; rol word ptr [rbx], 2
ror byte ptr [rbx], 1; rcl qword ptr [rbx], 1; rcr qword ptr [rbx], 1
imul rax, [rbx]; imul rax, [rbx], 7; imul qword ptr [rbx]; mul dword ptr [rbx]
bt qword ptr [rbx], 5; bts qword ptr [rbx], 5; btr dword ptr [rbx], 5; btc word ptr [rbx], 5
lock bts qword ptr [rbx], 63; lock btr qword ptr [rbx], 1
bsf rax, [rbx]; bsr eax, [rbx]; popcnt rax, [rbx]; tzcnt eax, [rbx]; lzcnt rax, [rbx]
lock add [rbx], rax; lock inc dword ptr [rbx]; lock or [rbx], rax; lock and qword ptr [rbx], 1
lock dec byte ptr [rbx]
xchg [rbx], rax; xchg [rbx], al; xchg rax, [rbx]; xadd [rbx], rax; lock xadd [rbx], eax
cmpxchg [rbx], rcx; lock cmpxchg [rbx], rcx; lock cmpxchg [rbx], ecx; lock cmpxchg [rbx], cl
cmpxchg8b [rbx]; lock cmpxchg8b [rbx]; cmpxchg16b [rbx]; lock cmpxchg16b [rbx]
sete [rbx]; setne byte ptr [rbx+1]; setb [rbx]; setg [rbx]; cmove rax, [rbx]; cmovne eax, [rbx]
cmova ax, [rbx]
push rax; push r12; push 5; push 0x12345678; push [rbx]; pop rax; pop r12; pushfq; popfq; leave; ret; ret 16
call 0x10000100; call rbx; call [rbx]; jmp [rbx]; jmp 0x10000040; je 0x10000040
loop 0x10000040; jrcxz 0x10000040
movsb; movsw; movsd; movsq; stosb; stosw; stosd; stosq; lodsb; lodsw; lodsd; lodsq
cmpsb; cmpsw; cmpsq; scasb; scasw; scasd; scasq
rep movsb; rep movsq; rep stosb; rep stosq; rep lodsb; repe cmpsb; repne cmpsb; repe scasb
repne scasb; repne scasq
movups xmm0, [rbx]; movups [rbx], xmm0; movaps xmm0, [rbx]; movaps [rbx], xmm0
movdqu xmm0, [rbx]; movdqu [rbx], xmm0; movdqa xmm0, [rbx]; movdqa [rbx], xmm0
movq xmm0, [rbx]; movq [rbx], xmm0; movd xmm0, [rbx]; movd [rbx], xmm0; movsd xmm0, [rbx]; movsd [rbx], xmm0
lea rax, [rbx+8]; nop; nop dword ptr [rbx]; clflush [rbx]
prefetcht0 [rbx]; prefetcht1 [rbx]; prefetchnta [rbx]
mfence; lfence; sfence; cld; std; clc; stc; cmc; cdq; cqo; cwde; cdqe; bswap rax; cpuid
cli; sti; mov rax, rbx; add rax, 7; shld rax, rbx, 3; movabs rax, [0x70000123]; movabs [0x70000ffd], eax
"""
ALL_SHAPES = [text.strip() for line in SHAPES.strip().splitlines() for text in line.split(";")]
# In the middle of a page; then with the last byte of an operand of each size before, at and after its end.
OFFSETS = (0x800, *(PAGE - distance for distance in (0, 1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 24)))


@pytest.mark.parametrize("text", ALL_SHAPES)
def test_pages_and_intents_are_those_the_engine_asks_for(engine: FillLog, text: str) -> None:
    """At each offset: so the address, the size and the direction are right to the byte."""
    code = assemble(text)
    insn = decode(code.ljust(15, b"\x90"), CODE)
    compared = 0
    for offset in OFFSETS:
        registers = registers_with_offset(offset)
        if text.endswith("[rsi*4]") or "*" in text:
            registers[REGISTERS.index("rsi")] = 0x1_0000
            registers[REGISTERS.index("r14")] = 0x1_0000
        asked = engine.run(code, registers)
        if asked.finished:
            assert asked.pages == foreseen(insn, registers), hex(offset)
            compared += 1
    assert compared >= (1 if "aps" in text or "dqa" in text or "16b" in text else 10)
    assert insn.length == len(code)


def test_divisions_are_compared_where_they_do_not_trap(engine: FillLog) -> None:
    for text in ("div qword ptr [rbx]", "idiv dword ptr [rbx]", "div byte ptr [rbx]", "idiv word ptr [rbx]"):
        code = assemble(text)
        insn = decode(code.ljust(15, b"\x90"), CODE)
        for offset in OFFSETS:
            registers = registers_with_offset(offset)
            registers[0], registers[3] = 7, 0  # RAX, RDX: the quotient fits
            asked = engine.run(code, registers)
            assert asked.finished
            assert asked.pages == foreseen(insn, registers)


@pytest.mark.parametrize("text", ["rep movsb", "rep stosq", "repe cmpsb", "repne scasb", "rep lodsq"])
def test_a_repeated_instruction_with_rcx_0_touches_nothing(engine: FillLog, text: str) -> None:
    code = assemble(text)
    insn = decode(code.ljust(15, b"\x90"), CODE)
    registers = registers_with_offset(0x800)
    registers[REGISTERS.index("rcx")] = 0
    assert insn.repeats
    assert engine.run(code, registers).pages == foreseen(insn, registers) == {}


@pytest.mark.parametrize("text", ["cmpxchg [rbx], rcx", "lock cmpxchg [rbx], cl", "lock cmpxchg16b [rbx]"])
@pytest.mark.parametrize("data", [0x00, 0x01])
def test_cmpxchg_is_a_write_access_whether_it_succeeds_or_not(engine: FillLog, text: str, data: int) -> None:
    code = assemble(text)
    insn = decode(code.ljust(15, b"\x90"), CODE)
    registers = registers_with_offset(0x800)
    registers[0] = registers[3] = 0
    assert insn.compares
    assert [operand.access for operand in insn.operands] == [WRITE]
    assert engine.run(code, registers, data).pages == {registers[1] // PAGE: "W"}


# --- whatever the table accepts -------------------------------------------------------------------------


def compare_random_instructions(engine: FillLog, seed: int, count: int) -> int:
    """Decode random bytes; run what is accepted. Returns how many ran to their end."""
    rng = random.Random(seed)
    ran = 0
    wrong = {}
    for _ in range(count):
        code = random_code(rng)
        try:
            insn = decode(code, CODE)
        except UnsupportedInstruction:
            continue
        if insn.kind not in (InstructionKind.ENGINE, InstructionKind.INTERRUPT_FLAG):
            continue
        near_the_end = [0x10_0000 * (number + 1) + rng.randrange(-17, 17) for number in range(16)]
        registers = [value if rng.random() < 0.9 else rng.getrandbits(64) for value in near_the_end]
        asked = engine.run(code[: insn.length], registers)
        if not asked.finished:
            continue
        ran += 1
        if asked.pages != foreseen(insn, registers):
            wrong[insn.text.split("[")[0]] = (code[: insn.length].hex(), insn.text)
    assert wrong == {}
    return ran


def test_no_accepted_instruction_reaches_a_page_the_decoder_did_not_foresee(engine: FillLog) -> None:
    assert compare_random_instructions(engine, seed=1, count=9000) > 2500


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 8))
def test_no_accepted_instruction_of_very_many_does(engine: FillLog, seed: int) -> None:
    assert compare_random_instructions(engine, seed, count=40_000) > 10_000


def foresees_or_refuses(engine: FillLog, text: str, registers: list[int]) -> None:
    code = assemble(text)
    try:
        insn = decode(code.ljust(15, b"\x90"), CODE)
    except UnsupportedInstruction:
        return
    assert engine.run(code, registers).pages == foreseen(insn, registers)


@pytest.mark.parametrize("name", ["bt", "bts", "btr", "btc", "lock bts"])
@pytest.mark.parametrize("bit", [64, 8 * PAGE, -1])
def test_a_bit_string_instruction_reaches_the_word_its_bit_offset_selects(
    engine: FillLog, name: str, bit: int
) -> None:
    """BTS [rbx], rax with RAX = 64 changes [rbx+8]: not the word that the operand names."""
    registers = registers_with_offset(PAGE - 8 if bit > 0 else 0)
    registers[0] = bit % 2**64
    foresees_or_refuses(engine, f"{name} qword ptr [rbx], rax", registers)


@pytest.mark.parametrize("text", ["push ax", "pop ax", "push r9w", "pop r9w", "push word ptr [rbx]"])
@pytest.mark.parametrize("offset", [1, 2, PAGE - 2])
def test_a_16_bit_push_or_pop_moves_two_bytes(engine: FillLog, text: str, offset: int) -> None:
    foresees_or_refuses(engine, text, registers_with_offset(offset))


@pytest.mark.parametrize(
    "code",
    [b"\x66\xc3", b"\x66\xc2\x10\x00", b"\x66\xe8\x00\x00\x00\x00", b"\x66\xc9"],
    ids=lambda c: c.hex(),
)
@pytest.mark.parametrize("offset", [2, PAGE - 2])
def test_a_16_bit_call_ret_or_leave_is_not_taken_for_a_64_bit_one(
    engine: FillLog, code: bytes, offset: int
) -> None:
    registers = registers_with_offset(offset)
    try:
        insn = decode(code.ljust(15, b"\x90"), CODE)
    except UnsupportedInstruction:
        return
    assert engine.run(code, registers).pages == foreseen(insn, registers)


def test_an_operand_size_prefix_before_rex_w_does_not_make_the_operand_small(engine: FillLog) -> None:
    """66 48 0F BC 06: BSF RAX, [RSI], 8 bytes."""
    code = b"\x66\x48\x0f\xbc\x06"
    registers = registers_with_offset(PAGE - 4)
    try:
        insn = decode(code.ljust(15, b"\x90"), CODE)
    except UnsupportedInstruction:
        return
    assert engine.run(code, registers).pages == foreseen(insn, registers)


@pytest.mark.parametrize("code", [b"\xf2\xa5", b"\x48\xf2\xa5", b"\x48\x49\xf2\xa5"], ids=bytes.hex)
def test_a_repne_prefix_before_movsd_is_not_overlooked(code: bytes) -> None:
    """F2 A5: the engine repeats it, the disassembler does not say so. It is undefined: refuse it.

    A REX byte that is not the last prefix means nothing, and hides nothing either.
    """
    try:
        insn = decode(code.ljust(15, b"\x90"), CODE)
    except UnsupportedInstruction:
        return
    assert insn.repeats


def test_a_repeat_prefix_before_movnti_does_not_make_its_operand_small(engine: FillLog) -> None:
    """F3 48 0F C3 03: the engine stores 8 bytes, the disassembler says 4. It is undefined: refuse it."""
    code = b"\xf3\x48\x0f\xc3\x03"
    registers = registers_with_offset(PAGE - 4)
    try:
        insn = decode(code.ljust(15, b"\x90"), CODE)
    except UnsupportedInstruction:
        return
    assert engine.run(code, registers).pages == foreseen(insn, registers)


# --- what is said of an instruction ---------------------------------------------------------------------


def test_an_instruction_prints_as_the_disassembler_has_it() -> None:
    assert decode(assemble("lock cmpxchg [rbx+0x34], ecx").ljust(15, b"\x90"), CODE).text == (
        "lock cmpxchg dword ptr [rbx + 0x34], ecx"
    )
    assert decode(assemble("hlt"), CODE).text == "hlt"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("hlt", InstructionKind.HALT),
        ("pause", InstructionKind.PAUSE),
        ("invlpg [rbx]", InstructionKind.INVLPG),
        ("cli", InstructionKind.INTERRUPT_FLAG),
        ("sti", InstructionKind.INTERRUPT_FLAG),
        ("popfq", InstructionKind.INTERRUPT_FLAG),
        ("ud2", InstructionKind.UNDEFINED),
        ("mov rax, rbx", InstructionKind.ENGINE),
        ("pushfq", InstructionKind.ENGINE),
    ],
)
def test_kinds(text: str, kind: InstructionKind) -> None:
    assert decode(assemble(text).ljust(15, b"\x90"), CODE).kind is kind


def test_reads_are_asked_for_before_writes() -> None:
    for text in ("push [rbx]", "call [rbx]", "movsq"):
        insn = decode(assemble(text).ljust(15, b"\x90"), CODE)
        assert [operand.access for operand in insn.operands] == [READ, WRITE], text


def test_an_address_wraps_at_64_bits() -> None:
    (operand,) = decode(assemble("mov rax, [rbx+rsi*8+0x10]"), CODE).operands
    registers = [0] * 16
    registers[REGISTERS.index("rbx")] = 2**64 - 8
    registers[REGISTERS.index("rsi")] = 2**61
    assert operand.address(registers, 0) == 8


def test_rip_relative_operands_count_from_the_next_instruction() -> None:
    (operand,) = decode(assemble("mov rax, [rip+0x100]"), 0x5000).operands
    assert operand.address([0] * 16, 0) == 0x5000 + 7 + 0x100


@pytest.mark.parametrize(
    ("code", "whole"),
    [
        (b"\x48\x8b\x03", True),
        (b"\x48\x8b", False),
        (b"\x48", False),
        (b"", False),
        (b"\x90\x48", True),
        (b"\x48\xb8\x01\x02\x03\x04\x05\x06\x07", False),
        (b"\x48\xb8\x01\x02\x03\x04\x05\x06\x07\x08", True),
    ],
)
def test_whether_the_first_instruction_is_complete(code: bytes, whole: bool) -> None:
    assert is_whole(code) is whole


# --- what is refused ------------------------------------------------------------------------------------

REFUSED = """
syscall; sysenter; sysexit; iretq; int 0x80; in al, dx; out dx, al; rdtsc; rdtscp
rdrand rax; rdseed rax
rdmsr; wrmsr; mov cr3, rax; mov rax, cr3; mov rax, cr0; mov cr4, rax; mov rax, dr7; mov dr0, rax; swapgs
lgdt [rbx]; lidt [rbx]; ltr ax; lldt ax; invpcid rax, [rbx]; wbinvd; invd; clts; monitor; mwait; vmcall
fxsave [rbx]; fld qword ptr [rbx]; fstp qword ptr [rbx]
enter 8, 0; retf; xlatb; pop qword ptr [rbx]; pushf; popf
mov eax, [ebx]; movnti [eax], ecx; mov rax, [eax+ecx*2]; insb; outsb; movbe rax, [rbx]; shld [rbx], rax, 3
addps xmm0, [rbx]; vmovups ymm0, [rbx]; movntdq [rbx], xmm0; clflushopt [rbx]; prefetchw [rbx]; xsave [rbx]
"""
ALL_REFUSED = [text.strip() for line in REFUSED.strip().splitlines() for text in line.split(";")]


@pytest.mark.parametrize("text", ALL_REFUSED)
def test_what_is_not_modelled_is_refused_by_address_and_name(text: str) -> None:
    code = assemble(text)
    with pytest.raises(UnsupportedInstruction) as caught:
        decode(code.ljust(15, b"\x90"), 0xFFFF_FFFF_8100_0010)
    message = str(caught.value)
    assert message.startswith("guest instruction not modelled at 0xffffffff81000010: ")
    assert text.split()[0].rstrip("q") in message


@pytest.mark.parametrize(
    "text", ["mov fs, ax", "mov gs, ax", "mov ss, ax", "mov ds, ax", "pop fs", "pop gs", "push fs", "lmsw ax"]
)
def test_what_loads_a_segment_or_the_machine_status_word_is_refused(text: str) -> None:
    """There are no descriptors to load: it would fault, or change the mode, behind the machine's back."""
    with pytest.raises(UnsupportedInstruction):
        decode(assemble(text).ljust(15, b"\x90"), CODE)


def test_an_implicit_write_that_no_operand_names_is_refused() -> None:
    """MASKMOVDQU xmm0, xmm1 writes to [rdi]."""
    with pytest.raises(UnsupportedInstruction):
        decode(b"\x66\x0f\xf7\xc1".ljust(15, b"\x90"), CODE)


@pytest.mark.parametrize("code", [b"\x06" * 15, b"\x0f\x04" + b"\x90" * 13, b"\xf0" * 15], ids=bytes.hex)
def test_bytes_that_are_no_instruction_are_refused_as_bytes(code: bytes) -> None:
    message = f"^guest instruction not modelled at 0x77: undecodable bytes {code.hex()}$"
    with pytest.raises(UnsupportedInstruction, match=message):
        decode(code, 0x77)


def test_behind_the_end_of_a_program_there_is_no_instruction() -> None:
    with pytest.raises(UnsupportedInstruction) as raised:
        decode(BEHIND_THE_END * 15, 0xFFFF_FFFF_8100_0010)
    assert str(raised.value) == "a guest program has run past its end, at 0xffffffff81000010: hlt ends it"
