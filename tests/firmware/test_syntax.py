"""Lines of assembly: labels, statements, and the line that an error is in."""

from __future__ import annotations

import pytest

from firmware.assembly_error import AssemblyError
from firmware.syntax import LONGEST_SOURCE, SourceLine, parse

SOURCE = """
# a comment
again: loop_end:
    MOV rax, [RDI]  ; reads
    jne again
table: .quad 5, again
"""


def test_lines_have_their_numbers_labels_and_uses() -> None:
    assert parse(SOURCE, "mine.S") == (
        SourceLine(3, "again: loop_end:", ("again", "loop_end"), "", ()),
        SourceLine(4, "MOV rax, [RDI]", (), "mov rax, [rdi]", ()),
        SourceLine(5, "jne again", (), "jne at_again", ("again",)),
        SourceLine(6, "table: .quad 5, again", ("table",), ".quad 0x5, at_again", ("again",)),
    )


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "mine.S: the program is empty"),
        ("# nothing\nlabel:\n", "mine.S: the program is empty"),
        ("a: nop\na: hlt", "mine.S, line 2: label 'a' is already defined in line 1: a: hlt"),
        ("jmp nowhere", "mine.S, line 1: no register or label is called 'nowhere': jmp nowhere"),
        ("rax: nop", "mine.S, line 1: 'rax' is a register and cannot be a label: rax: nop"),
        ("nop\n.word 5", "mine.S, line 2: there is no directive .word, only .byte, .long, .quad: .word 5"),
        ("loop a\na: nop", "mine.S, line 1: loop is not offered; use cmp or test and a jump: loop a"),
        ("rep lfence", "mine.S, line 1: rep stands only before a string instruction: rep lfence"),
        ("jmp 5", "mine.S, line 1: jmp wants a label, not a number: jmp 5"),
        (".byte 256", "mine.S, line 1: 0x100 does not fit 8 bits: .byte 256"),
        ("movsb rax", "mine.S, line 1: movsb has fixed operands and is written without them: movsb rax"),
    ],
)
def test_what_is_refused_and_where(source: str, message: str) -> None:
    with pytest.raises(AssemblyError) as caught:
        parse(source, "mine.S")
    assert str(caught.value) == message


def test_a_text_that_is_too_long_is_not_read() -> None:
    assert len(parse("nop\n" + " " * (LONGEST_SOURCE - 4), "mine.S")) == 1
    with pytest.raises(AssemblyError, match="has 65537 characters; at most 65536 are read"):
        parse("nop\n" + " " * (LONGEST_SOURCE - 3), "mine.S")
