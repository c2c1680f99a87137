"""`firmware.assemble`: code and labels against hand-written bytes, and every way to be refused."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import capstone
import pytest

from firmware import assemble as assemble_module
from firmware.assemble import assemble
from firmware.assembly_error import AssemblyError

ORIGIN = 0xFFFFFFFF81000000


def test_code_is_what_the_manual_says() -> None:
    source = "mov rax, [rdi]\nmov [rdi + 8], rsi\nlock inc qword ptr [rdx]\npause\nhlt"
    expected = bytes.fromhex("48 8b 07   48 89 77 08   f0 48 ff 02   f3 90   f4")
    assert assemble(source, ORIGIN).code == expected


def test_data_directives() -> None:
    source = "here: .byte 0x90, -1, 255\n.long -2\n.quad 5, here"
    expected = bytes.fromhex("90ffff feffffff 0500000000000000 00000081ffffffff")
    assert assemble(source, ORIGIN).code == expected


def test_comments_case_blank_lines_and_several_labels() -> None:
    source = "# what it does: nothing\n\n  a: b:\r\n NOP ; really: nothing\nc : Hlt # end\nd:\n"
    assembled = assemble(source, ORIGIN)
    assert assembled.code == bytes.fromhex("90 f4")
    assert dict(assembled.labels) == {"a": ORIGIN, "b": ORIGIN, "c": ORIGIN + 1, "d": ORIGIN + 2}
    assert list(assembled.labels) == ["a", "b", "c", "d"]


def test_labels_are_absolute_at_every_origin() -> None:
    for origin in (0, 0x1000, 0x7FFFFFFFF000, 0xFFFFFFFF81003000, 0xFFFFFFFFFFFFF000):
        assembled = assemble("nop\nhere: jmp here\nthere: hlt", origin)
        assert dict(assembled.labels) == {"here": origin + 1, "there": origin + 3}
        assert assembled.code == bytes.fromhex("90 eb fe f4")


def test_a_program_without_labels() -> None:
    assembled = assemble("hlt", ORIGIN)
    assert assembled.code == b"\xf4"
    assert dict(assembled.labels) == {}


@pytest.mark.parametrize("padding", [0, 1, 125, 126, 127, 128, 129, 1000])
def test_relaxed_branches_reach_their_labels(padding: int) -> None:
    """Jumps near the limit of the short form, both ways, with the label table appended behind them."""
    source = "back: jmp ahead\n" + "nop\n" * padding + "ahead: je back\ncall back\nend: hlt"
    assembled = assemble(source, ORIGIN)
    disassembler = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    first, *_, je, call, hlt = disassembler.disasm(assembled.code, ORIGIN)
    assert int(first.op_str, 0) == assembled.labels["ahead"] == je.address
    assert int(je.op_str, 0) == assembled.labels["back"] == ORIGIN
    assert int(call.op_str, 0) == ORIGIN
    assert hlt.address == assembled.labels["end"]
    assert first.size == (2 if padding <= 127 else 5)


@pytest.mark.parametrize(
    "label", ["enter", "leave", "try", "and", "ptr", "byte", "offset", "xmm0", "at_", "ST"]
)
def test_a_label_may_be_called_like_anything_but_a_register(label: str) -> None:
    assembled = assemble(f"nop\n{label}: jmp {label}\nlea rax, [rip + {label}]", ORIGIN)
    assert dict(assembled.labels) == {label: ORIGIN + 1}
    assert assembled.code == bytes.fromhex("90 ebfe 488d05f7ffffff")


@pytest.mark.parametrize(
    ("statement", "listing"),
    [
        ("mov rax, 0xffffffff81000000", "mov rax, 0xffffffff81000000"),
        ("mov rax, 0x80000000", "movabs rax, 0x80000000"),
        ("movabs rax, 0x123456789abcdef0", "movabs rax, 0x123456789abcdef0"),
        ("movabs rcx, x", "movabs rcx, 0xffffffff81000000"),
        ("mov al, -128", "mov al, 0x80"),
        ("mov al, 255", "mov al, 0xff"),
        ("mov eax, 4294967295", "mov eax, 0xffffffff"),
        ("push 5", "push 5"),
        ("int 0x80", "int 0x80"),
        (
            "mov rax, qword ptr gs:[rdi + r12*8 - 0x80000000]",
            "mov rax, qword ptr gs:[rdi + r12*8 - 0x80000000]",
        ),
        ("mov byte ptr [rsp + 0x7fffffff], 1", "mov byte ptr [rsp + 0x7fffffff], 1"),
        ("MOV EAX , DWORD PTR [ RDI+RSI*4+1 ]", "mov eax, dword ptr [rdi + rsi*4 + 1]"),
        ("jmp [rip + x]", "jmp qword ptr [rip - 6]"),
        ("call rax", "call rax"),
        ("rep stosb", "rep stosb byte ptr [rdi], al"),
        ("mov cr3, rax", "mov cr3, rax"),
        ("invlpg [rdi]", "invlpg byte ptr [rdi]"),
    ],
)
def test_statements_read_back_as_written(statement: str, listing: str) -> None:
    code = assemble(f"x: {statement}", ORIGIN).code
    (instruction,) = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64).disasm(code, ORIGIN)
    assert f"{instruction.mnemonic} {instruction.op_str}" == listing


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "demo: the program is empty"),
        ("\n# nothing: here\n ; or here\n", "demo: the program is empty"),
        ("alone:\n", "demo: the program is empty"),
        ("a: nop\nb: nop\n  a: hlt # again", "demo, line 3: label 'a' is already defined in line 1: a: hlt"),
        ("a: a: hlt", "demo, line 1: label 'a' is already defined in line 1: a: a: hlt"),
        ("hlt\nRAX: hlt", "demo, line 2: 'RAX' is a register and cannot be a label: RAX: hlt"),
        ("rip: hlt", "demo, line 1: 'rip' is a register and cannot be a label: rip: hlt"),
        ("nop\n\njmp foo", "demo, line 3: no register or label is called 'foo': jmp foo"),
        ("lea rax, [rip + foo]", "demo, line 1: no register or label is called 'foo': lea rax, [rip + foo]"),
        (".quad foo", "demo, line 1: no register or label is called 'foo': .quad foo"),
        (
            "a: mov rax, a",
            "demo, line 1: no register is called 'a', and a label cannot stand here: a: mov rax, a",
        ),
        (
            "mov ah, 1",
            "demo, line 1: no register is called 'ah', and a label cannot stand here: mov ah, 1",
        ),
        ("nop\nbogus rax\nhlt", "demo, line 2: the assembler knows no such instruction: bogus rax"),
        ("a: jmp a\nb: endbr64", "demo, line 2: the assembler knows no such instruction: b: endbr64"),
        ("nop\nmov rax, ecx", "demo, line 2: these operands do not fit the instruction: mov rax, ecx"),
        ("mov [rdi], 5", "demo, line 1: these operands do not fit the instruction: mov [rdi], 5"),
        ("jmp b, b\nb: nop", "demo, line 1: these operands do not fit the instruction: jmp b, b"),
        (
            "add rax, 0x80000000",
            "demo, line 1: these operands do not fit the instruction: add rax, 0x80000000",
        ),
        ("!", "demo, line 1: neither a label nor a statement: !"),
        ("5: nop", "demo, line 1: neither a label nor a statement: 5: nop"),
        ("x = 5", "demo, line 1: '= 5' is not an operand: x = 5"),
        ("mov rax, [rdi", "demo, line 1: '[rdi' is not an operand: mov rax, [rdi"),
        ("mov rax,", "demo, line 1: '' is not an operand: mov rax,"),
        ("mov rax, 010", "demo, line 1: '010' is not an operand: mov rax, 010"),
        ("mov rax, [rdi + rsp]", "demo, line 1: '[rdi + rsp]' is not an operand: mov rax, [rdi + rsp]"),
        ("mov rax, [edi]", "demo, line 1: '[edi]' is not an operand: mov rax, [edi]"),
        ("mov rax, [5]", "demo, line 1: '[5]' is not an operand: mov rax, [5]"),
        ("mov rax, 1 << 4", "demo, line 1: '1 << 4' is not an operand: mov rax, 1 << 4"),
        (
            "mov rax, [rdi + 0x80000000]",
            "demo, line 1: displacement 0x80000000 does not fit 32 signed bits: mov rax, [rdi + 0x80000000]",
        ),
        (
            "mov rax, [rdi - 0x80000001]",
            "demo, line 1: displacement -0x80000001 does not fit 32 signed bits: mov rax, [rdi - 0x80000001]",
        ),
        ("mov al, 256", "demo, line 1: 0x100 does not fit 8 bits: mov al, 256"),
        ("mov ax, -32769", "demo, line 1: -0x8001 does not fit 16 bits: mov ax, -32769"),
        ("ret 65536", "demo, line 1: 0x10000 does not fit 16 bits: ret 65536"),
        (
            "mov rax, 18446744073709551616",
            "demo, line 1: 0x10000000000000000 does not fit 64 bits: mov rax, 18446744073709551616",
        ),
        (
            "mov dword ptr [rdi], 0x100000000",
            "demo, line 1: 0x100000000 does not fit 32 bits: mov dword ptr [rdi], 0x100000000",
        ),
        ("jmp 5", "demo, line 1: jmp wants a label, not a number: jmp 5"),
        ("a: loop a", "demo, line 1: loop is not offered; use cmp or test and a jump: a: loop a"),
        ("a: jrcxz a", "demo, line 1: jrcxz is not offered; use cmp or test and a jump: a: jrcxz a"),
        (
            "movsq [rdi], [rsi]",
            "demo, line 1: movsq has fixed operands and is written without them: movsq [rdi], [rsi]",
        ),
        (
            '.incbin "/etc/hostname"',
            'demo, line 1: there is no directive .incbin, only .byte, .long, .quad: .incbin "/etc/hostname"',
        ),
        (".data", "demo, line 1: there is no directive .data, only .byte, .long, .quad: .data"),
        (".byte", "demo, line 1: .byte wants numbers: .byte"),
        (".quad", "demo, line 1: .quad wants numbers or labels: .quad"),
        ("lock .byte 1", "demo, line 1: lock cannot stand before .byte: lock .byte 1"),
        ("rep lfence", "demo, line 1: rep stands only before a string instruction: rep lfence"),
        ("a: .long a", "demo, line 1: .long wants numbers: a: .long a"),
        (".quad [rip + a]", "demo, line 1: .quad wants numbers or labels: .quad [rip + a]"),
        (".byte 1,,2", "demo, line 1: '' is not an operand: .byte 1,,2"),
        (".byte 256", "demo, line 1: 0x100 does not fit 8 bits: .byte 256"),
        ("nop\nnop \x00", "demo, line 2: '\\x00' is not an operand: nop \\x00"),
        ("é: nop", "demo, line 1: neither a label nor a statement: é: nop"),
        ("nop\n" * 4097, "demo: 4097 bytes of code; one page of 4096 is all there is"),
        ("#" * 65537, "demo: the source has 65537 characters; at most 65536 are read"),
    ],
)
def test_refusals(source: str, message: str) -> None:
    with pytest.raises(AssemblyError) as caught:
        assemble(source, ORIGIN, "demo")
    assert str(caught.value) == message


def test_the_largest_program_there_is() -> None:
    assembled = assemble("nop\n" * 4095 + "last: hlt\nend:", ORIGIN)
    assert len(assembled.code) == 4096
    assert assembled.labels["last"] == ORIGIN + 4095
    assert assembled.labels["end"] == ORIGIN + 4096


@pytest.mark.parametrize(
    ("origin", "shown"),
    [(0x1234, "0x1234"), (-4096, "-0x1000"), (1 << 64, "0x10000000000000000")],
)
def test_an_origin_that_is_no_page(origin: int, shown: str) -> None:
    with pytest.raises(AssemblyError) as caught:
        assemble("hlt", origin, "demo")
    assert str(caught.value) == f"demo: origin {shown} is not the start of a 4096-byte page"


def test_an_error_has_its_parts_and_a_default_name() -> None:
    with pytest.raises(AssemblyError) as caught:
        assemble("nop\n bogus rax # comment", ORIGIN)
    error = caught.value
    assert (error.program, error.line, error.text) == ("<source>", 2, "bogus rax")
    assert error.reason == "the assembler knows no such instruction"
    assert isinstance(error, ValueError)
    with pytest.raises(AssemblyError) as caught:
        assemble("", ORIGIN)
    assert (caught.value.line, caught.value.text) == (None, None)


def test_a_message_is_one_short_line_whatever_was_read() -> None:
    with pytest.raises(AssemblyError) as caught:
        assemble("bogus " + "r" * 1000, ORIGIN, "two\nlines")
    assert str(caught.value).startswith("two\\nlines, line 1: no register is called ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


class StandIn:
    """Takes Keystone's place: answers a text with code, or with nothing."""

    def __init__(self, answers: dict[str, bytes]) -> None:
        self.answers = answers

    def __call__(self, _architecture: int, _mode: int) -> StandIn:
        return self

    def asm(self, text: str, _address: int, *, as_bytes: bool) -> tuple[bytes | None, int]:
        assert as_bytes
        return self.answers.get(text), 1


def test_an_assembler_that_gives_up_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assemble_module, "Ks", StandIn({}))
    with pytest.raises(AssemblyError) as caught:
        assemble("hlt", ORIGIN, "demo")
    assert str(caught.value) == "demo, line 1: the assembler made nothing of it: hlt"


def test_an_assembler_that_refuses_only_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assemble_module, "Ks", StandIn({"nop": b"\x90"}))
    with pytest.raises(AssemblyError) as caught:
        assemble("nop\nlabel:\nnop", ORIGIN, "demo")
    assert str(caught.value) == "demo: the assembler made nothing of it"


def test_an_assembler_whose_code_depends_on_the_label_table(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"at_a: nop": b"\x90", "at_a: nop\n.quad at_a": b"\xf4" + bytes(8)}
    monkeypatch.setattr(assemble_module, "Ks", StandIn(answers))
    with pytest.raises(RuntimeError) as caught:
        assemble("a: nop", ORIGIN)
    assert str(caught.value) == "the assembler gave other code when asked for the label addresses"


def test_labels_cannot_be_changed() -> None:
    assembled = assemble("a: hlt", ORIGIN)
    with pytest.raises(TypeError):
        assembled.labels["a"] = 0  # type: ignore[index]
    with pytest.raises(FrozenInstanceError):
        assembled.code = b""  # type: ignore[misc]
