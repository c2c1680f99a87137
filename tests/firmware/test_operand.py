"""Operands as they are written, and as the assembler is given them."""

from __future__ import annotations

import pytest

from firmware.operand import Operand, RefusedStatement, check_fits, is_register, parse_operand


@pytest.mark.parametrize(
    ("text", "operand"),
    [
        ("RAX", Operand("rax", bits=64)),
        ("r9d", Operand("r9d", bits=32)),
        ("0x10", Operand("0x10", number=16)),
        ("-5", Operand("-0x5", number=-5)),
        ("again", Operand("at_again", label="again", is_bare_label=True)),
        ("[rdi]", Operand("[rdi]")),
        ("[RDI + RAX*8 + 16]", Operand("[rdi + rax*8 + 0x10]")),
        ("[rdi + rax - 1]", Operand("[rdi + rax*1 - 0x1]")),
        ("byte ptr [rdi]", Operand("byte ptr [rdi]", bits=8)),
        ("[rip + table]", Operand("[rip + at_table]", label="table")),
    ],
)
def test_an_operand_is_rewritten_with_what_it_names(text: str, operand: Operand) -> None:
    assert parse_operand(text) == operand


@pytest.mark.parametrize("text", ["", "[", "[rdi*3]", "[rax + rsp*2]", "01", "0x", "a b", "'a'", "[rdi + ]"])
def test_what_is_no_operand_is_refused(text: str) -> None:
    with pytest.raises(RefusedStatement, match=r"is not an operand$"):
        parse_operand(text)


@pytest.mark.parametrize(("displacement", "fits"), [("0x7fffffff", True), ("0x80000000", False)])
def test_a_displacement_has_32_signed_bits(displacement: str, fits: bool) -> None:
    if fits:
        assert parse_operand(f"[rdi + {displacement}]").text == f"[rdi + {displacement}]"
    else:
        with pytest.raises(RefusedStatement, match="does not fit 32 signed bits"):
            parse_operand(f"[rdi + {displacement}]")


def test_a_number_may_be_signed_or_unsigned() -> None:
    for number in (-128, -1, 0, 127, 255):
        check_fits(number, 8)
    for number in (-129, 256):
        with pytest.raises(RefusedStatement, match="does not fit 8 bits"):
            check_fits(number, 8)


def test_registers_are_known_in_either_case() -> None:
    assert [is_register(name) for name in ("rax", "R15B", "rip", "CR3", "again", "")] == [True] * 4 + [
        False
    ] * 2
