"""A user's text as a program."""

from __future__ import annotations

import pytest

from firmware.assembly_error import AssemblyError
from firmware.load import USER_ORIGIN, load_program


def test_load_program_makes_a_program_of_a_users_text() -> None:
    program = load_program("mine.S", "again: jmp again")
    assert (program.name, program.question, program.arguments, program.results) == ("mine.S", "", (), ())
    assert (program.origin, program.code) == (USER_ORIGIN, b"\xeb\xfe")
    assert program.source == "again: jmp again"
    assert program.address_of("again") == USER_ORIGIN


def test_load_program_names_the_program_that_does_not_assemble() -> None:
    with pytest.raises(AssemblyError) as caught:
        load_program("mine.S", "nop\nbogus\n")
    assert str(caught.value) == "mine.S, line 2: the assembler knows no such instruction: bogus"
