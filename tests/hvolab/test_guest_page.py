"""docs/guests.md says what the machine knows: every instruction it names is decoded, its example ends."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from command_line import hvolab

from emu.addr import VirtAddr
from emu.guest.decode import decode
from firmware.load import load_program

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "guests.md").read_text(encoding="utf-8")
_ROWS = dict(re.findall(r"^\| (\w+) \| (`.*) \|$", PAGE, re.MULTILINE))
# An operand list with which each instruction can be assembled.
_OPERANDS = {
    "mov": "rax, [rdi]", "movabs": "rax, 5", "movnti": "[rdi], rax", "movsx": "rax, byte ptr [rdi]",
    "movsxd": "rax, dword ptr [rdi]", "movzx": "rax, byte ptr [rdi]", "lea": "rax, [rdi]", "push": "rax",
    "pop": "rax", "dec": "qword ptr [rdi]", "inc": "qword ptr [rdi]", "neg": "qword ptr [rdi]",
    "not": "qword ptr [rdi]", "div": "qword ptr [rdi]", "idiv": "qword ptr [rdi]", "mul": "qword ptr [rdi]",
    "rcl": "qword ptr [rdi], 1", "rcr": "qword ptr [rdi], 1", "rol": "qword ptr [rdi], 1",
    "ror": "qword ptr [rdi], 1", "sar": "qword ptr [rdi], 1", "shl": "qword ptr [rdi], 1",
    "shr": "qword ptr [rdi], 1", "imul": "rax, [rdi]", "bsf": "rax, [rdi]", "bsr": "rax, [rdi]",
    "lzcnt": "rax, [rdi]", "popcnt": "rax, [rdi]", "tzcnt": "rax, [rdi]", "cmpxchg8b": "qword ptr [rdi]",
    "cmpxchg16b": "[rdi]", "jmp": "end", "call": "end", "invlpg": "[rdi]",
    **dict.fromkeys(
        ("ret", "nop", "pause", "hlt", "ud2", "cli", "sti", "pushfq", "popfq", "cpuid", "lfence",
         "sfence", "mfence"), "",
    ),
}  # fmt: skip
_NAMES = {"cmovCC": ("cmove", "rax, [rdi]"), "setCC": ("sete", "byte ptr [rdi]"), "jCC": ("je", "end")}
_STRINGS = ("movs", "cmps", "scas", "lods", "stos")


def named(kind: str) -> list[str]:
    return [
        name for name in re.findall(r"`(\w+)`", _ROWS[kind]) if name not in ("lock", "rep", "repe", "repne")
    ]


def statement(kind: str, name: str) -> str:
    if name in _STRINGS:
        return f"rep {name}q" if name in ("movs", "lods", "stos") else f"repe {name}b"
    mnemonic, operands = _NAMES.get(name, (name, _OPERANDS.get(name, "[rdi], rax")))
    lock = "lock " if kind == "locked" and name != "xchg" else ""
    return f"{lock}{mnemonic} {operands}".strip()


EVERY = [(kind, name) for kind in _ROWS for name in named(kind)]


@pytest.mark.parametrize(("kind", "name"), EVERY, ids=[f"{kind}-{name}" for kind, name in EVERY])
def test_an_instruction_that_the_page_names_is_one_the_machine_knows(kind: str, name: str) -> None:
    program = load_program("page", f"{statement(kind, name)}\nend: hlt")
    decode(program.code[:15], VirtAddr(program.origin))


def test_the_page_names_instructions_of_each_kind() -> None:
    assert [len(named(kind)) > 4 for kind in _ROWS] == [True] * 7


def test_the_example_of_the_page_ends(tmp_path: Path) -> None:
    source = re.search(r"```asm\n(.*?)```", PAGE, re.DOTALL)
    assert source is not None
    path = tmp_path / "mine.S"
    path.write_text(source[1], encoding="utf-8")
    done = hvolab("run", "stale-read", "--program", path)
    assert (done.status, done.err) == (0, "")
    assert "mine.S ends" in done.out


@pytest.mark.parametrize(
    ("source", "status", "said"),
    [
        ("again: jmp again", 4, "cpu1 was in mine.S 0xffffffff81100000: jmp 0xffffffff81100000"),
        ("push rax\ncall f\nhlt\nf: mov rax, [rdi]\nret", 0, "mine.S ends"),
        ("mov [rip + data], rax\nhlt\ndata: .quad 1", 0, "its data page is at r15, 0xffff888000402800"),
        ("mov [r15], rax\nmov rax, [r15 + 2040]\nhlt", 0, "mine.S ends"),
        ("xor rdi, rdi\nmov rax, [rdi]\nhlt", 1, "NULL pointer dereference"),
        ("xor rcx, rcx\nrep movsb\nhlt", 0, "mine.S ends"),
    ],
)
def test_a_program_of_ones_own_gets_its_own_answer(
    tmp_path: Path, source: str, status: int, said: str
) -> None:
    path = tmp_path / "mine.S"
    path.write_text(source, encoding="utf-8")
    done = hvolab("run", "stale-read", "--program", path)
    assert done.status == status
    assert said in " ".join(done.out.replace("│", " ").split())
    assert "as expected" not in done.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("run", "pool-up-and-down"),
            "no guest program runs there that another could take the place of: --program",
        ),
        (("run", "stale-read"), "there is no SSE, AVX or x87 here, so no xmm0"),
        (("run", "missed-cpu"), "a guest program has run past its end, at 0xffffffff81100001: hlt ends it"),
    ],
)
def test_a_program_that_cannot_be_used_is_one_line(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    path = tmp_path / "mine.S"
    sources = {"pool-up-and-down": "hlt", "stale-read": "movdqu xmm0, [rdi]\nhlt", "missed-cpu": "nop"}
    path.write_text(sources[words[1]], encoding="utf-8")
    done = hvolab(*words, "--program", path)
    assert (done.status, len(done.err.splitlines())) == (2, 1)
    assert said in done.err
