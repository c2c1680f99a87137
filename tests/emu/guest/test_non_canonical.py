"""By way of the stack segment an address that is not canonical is #SS, by every other one #GP."""

from __future__ import annotations

import pytest
from guest_rig import CODE, GuestRig
from non_canonical import FIRST_NOT, STACK

from emu.guest.guest_core import Refused
from emu.mmu import NonCanonical


@pytest.mark.parametrize(
    ("code", "registers", "va"),
    [
        ("push rax", {"rsp": FIRST_NOT + 16}, FIRST_NOT + 8),
        ("pop rax", {"rsp": FIRST_NOT}, FIRST_NOT),
        ("pushfq", {"rsp": FIRST_NOT + 8}, FIRST_NOT),
        ("popfq", {"rsp": FIRST_NOT}, FIRST_NOT),
        ("call rdi", {"rsp": FIRST_NOT + 8, "rdi": CODE}, FIRST_NOT),
        ("ret", {"rsp": FIRST_NOT}, FIRST_NOT),
        ("leave", {"rbp": FIRST_NOT}, FIRST_NOT),
        ("mov rax, [rsp + 8]", {"rsp": FIRST_NOT}, FIRST_NOT + 8),
        ("mov [rbp - 8], rax", {"rbp": FIRST_NOT + 8}, FIRST_NOT),
        ("add [rsp + rax*8], rcx", {"rsp": FIRST_NOT, "rax": 2}, FIRST_NOT + 16),
    ],
)
def test_the_stack_segment_makes_it_a_stack_fault(code: str, registers: dict[str, int], va: int) -> None:
    rig = GuestRig()
    rig.put(code)
    core = rig.core(registers)
    before = core.registers()
    assert core.step() == Refused(NonCanonical(va, vector=12))
    assert core.registers() == before


@pytest.mark.parametrize(
    ("code", "registers"),
    [
        ("mov rax, [rbx]", {"rbx": FIRST_NOT}),
        ("mov rax, [r12]", {"r12": FIRST_NOT}),
        ("mov rax, [r13]", {"r13": FIRST_NOT}),
        ("mov rax, [rbp*2 + 0]", {"rbp": FIRST_NOT >> 1}),
        ("mov rax, fs:[rsp]", {"rsp": FIRST_NOT}),
        ("mov rax, gs:[rbp]", {"rbp": FIRST_NOT}),
        ("movsq", {"rsi": FIRST_NOT, "rdi": STACK}),
        ("stosq", {"rdi": FIRST_NOT}),
        ("push [rbx]", {"rbx": FIRST_NOT, "rsp": STACK}),
    ],
)
def test_every_other_segment_makes_it_a_general_protection_fault(
    code: str, registers: dict[str, int]
) -> None:
    """Of RSP and RBP only the base counts, and FS or GS in front takes its place."""
    rig = GuestRig()
    rig.put(code)
    assert rig.core(registers).step() == Refused(NonCanonical(FIRST_NOT, vector=13))
