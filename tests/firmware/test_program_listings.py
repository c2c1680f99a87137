"""The code of every program against a listing written by hand and read back by another library.

Labels in a listing stand where they must stand; a jump names the label it must reach.
"""

import re
from dataclasses import dataclass

import capstone
import pytest
from reader_listings import READERS

from firmware.catalog import PROGRAM_NAMES, program
from firmware.program import Program

LISTINGS = {
    "read_tails": """
        start:
            test rsi, rsi
            je done
        read_flags:
            mov rax, qword ptr [rdi]
            mov qword ptr [rdx], rax
        read_compound_head:
            mov rax, qword ptr [rdi + 8]
            mov qword ptr [rdx + 8], rax
            add rdi, 0x1000
            add rdx, 0x10
            dec rsi
            jne read_flags
        done:
            hlt
    """,
    "read_twice": """
        first:
            mov rax, qword ptr [rdi]
        gap:
            nop
        second:
            mov rbx, qword ptr [rdi]
        done:
            hlt
    """,
    "write_head": """
        write:
            mov qword ptr [rdi], rsi
        done:
            hlt
    """,
    "write_tail": """
        write:
            mov qword ptr [rdi], rsi
        done:
            hlt
    """,
    "read_then_write": """
        read:
            mov rax, qword ptr [rdi]
        gap:
            nop
        write:
            mov qword ptr [rdi], rsi
        read_back:
            mov rbx, qword ptr [rdi]
        done:
            hlt
    """,
    "get_page_unless_zero": """
        enter:
            inc qword ptr [rdx]
        test_key:
            cmp qword ptr [rsi], 0
            je read_count
            test edi, 0xfff
            jne read_count
        read_flags:
            mov rax, qword ptr [rdi]
            test al, 0x40
            je read_count
        test_fake:
            mov rax, qword ptr [rdi + 0x48]
            test al, 1
            je read_count
            dec rax
            cmp rax, rdi
            jne refuse
        read_count:
            mov eax, dword ptr [rdi + 0x34]
            test eax, eax
            je refuse
        read_again:
            mov eax, dword ptr [rdi + 0x34]
        unless_zero:
            test eax, eax
            je refuse
            lea ecx, [rax + 1]
        try:
            lock cmpxchg dword ptr [rdi + 0x34], ecx
            jne unless_zero
            mov eax, 1
            jmp leave
        refuse:
            xor eax, eax
        leave:
            dec qword ptr [rdx]
        done:
            hlt
    """,
    "compound_head": """
        read_own:
            mov rax, qword ptr [rdi + 8]
            test al, 1
            je test_key
            dec rax
            jmp done
        test_key:
            cmp qword ptr [rsi], 0
            je itself
            test edi, 0xfff
            jne itself
        read_flags:
            mov rcx, qword ptr [rdi]
            test cl, 0x40
            je itself
        read_next:
            mov rax, qword ptr [rdi + 0x48]
            test al, 1
            je itself
            dec rax
            jmp done
        itself:
            mov rax, rdi
        done:
            hlt
    """,
    "walk_pfns": """
        start:
            test rsi, rsi
            je done
        next_page:
            inc qword ptr [rcx]
        read_own:
            mov rax, qword ptr [rdi + 8]
            test al, 1
            je test_key
            dec rax
            jmp answer
        test_key:
            cmp qword ptr [rdx], 0
            je itself
            test edi, 0xfff
            jne itself
        read_flags:
            mov r9, qword ptr [rdi]
            test r9b, 0x40
            je itself
        read_next:
            mov rax, qword ptr [rdi + 0x48]
            test al, 1
            je itself
            dec rax
            jmp answer
        itself:
            mov rax, rdi
        answer:
            mov qword ptr [r8], rax
        leave:
            dec qword ptr [rcx]
            add rdi, 0x40
            add r8, 8
            dec rsi
            jne next_page
        done:
            hlt
    """,
    **READERS,
}


@dataclass(frozen=True, slots=True)
class Instruction:
    address: int
    size: int
    text: str


def disassemble(described: Program) -> list[Instruction]:
    disassembler = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    return [
        Instruction(i.address, i.size, f"{i.mnemonic} {i.op_str}".strip())
        for i in disassembler.disasm(described.code, described.origin)
    ]


def listing_of(name: str) -> list[str]:
    return [line.strip() for line in LISTINGS[name].strip().splitlines()]


def test_every_program_has_a_listing() -> None:
    assert tuple(LISTINGS) == PROGRAM_NAMES


@pytest.mark.parametrize("name", PROGRAM_NAMES)
def test_code_and_labels(name: str) -> None:
    described = program(name)
    instructions = disassemble(described)
    assert sum(i.size for i in instructions) == len(described.code)

    labels: dict[str, int] = {}
    expected: list[str] = []
    for line in listing_of(name):
        if line.endswith(":"):
            labels[line[:-1]] = instructions[len(expected)].address
        else:
            expected.append(line)
    assert dict(described.labels) == labels

    jump = re.compile(r"(j[a-z]+) (\w+)")
    resolved = [jump.sub(lambda m: f"{m[1]} {labels[m[2]]:#x}", line) for line in expected]
    assert [i.text for i in instructions] == resolved


@pytest.mark.parametrize("name", PROGRAM_NAMES)
def test_the_last_instruction_is_hlt_and_is_called_done(name: str) -> None:
    described = program(name)
    assert described.code[-1:] == b"\xf4"
    assert described.address_of("done") == described.end - 1


@pytest.mark.parametrize("name", PROGRAM_NAMES)
def test_the_stack_is_left_alone(name: str) -> None:
    touching = re.compile(r"\b(push|pop|call|ret|enter|leave|rsp|esp)\b")
    assert not [i.text for i in disassemble(program(name)) if touching.search(i.text)]
