"""A branch to an address that is not canonical faults itself, before anything else has happened."""

from __future__ import annotations

import pytest
from guest_rig import CODE, EXECUTABLE, GuestRig
from non_canonical import FIRST_NOT, STACK
from paging_rig import PAGE, VA

from emu.addr import PhysAddr, VirtAddr
from emu.guest.branch import Conditional, ToAddress, ToLoaded, ToRegister
from emu.guest.decode import REGISTERS, decode
from emu.guest.guest_core import GuestCore, GuestTrap, Refused, Retired
from emu.mmu import Denied, NonCanonical
from emu.paging.walk import FaultCode, PageFault

BELOW = FIRST_NOT - PAGE  # the last page of the lower half
GP = GuestTrap(13)
ON = Retired(interrupts=True, spin_hint=False)
CANONICAL = CODE + 0x40


def with_word(rig: GuestRig, va: int, value: int) -> None:
    rig.memory.load_image(PhysAddr(0x800 * PAGE + va - int(VA)), value.to_bytes(8, "little"))


def edge(code: bytes, registers: dict[str, int] | None = None) -> tuple[GuestRig, GuestCore]:
    """`code` at the end of the last canonical page of the lower half, so that what follows it is not."""
    rig = GuestRig()
    rig.map(BELOW, 0x410, EXECUTABLE)
    at = FIRST_NOT - len(code)
    rig.memory.load_image(PhysAddr(0x411 * PAGE - len(code)), code)
    return rig, rig.core({"rsp": STACK, **(registers or {})}, at=at)


@pytest.mark.parametrize("target", [FIRST_NOT, 0xFFFF_7FFF_FFFF_FFFF, 0x1234_5678_9ABC_DEF0])
@pytest.mark.parametrize(
    "code", ["call rdi", "jmp rdi", "call [rbx]", "jmp [rbx]", "call [rbx + 0xefc]", "ret", "ret 16"]
)
def test_a_branch_to_one_faults_itself_with_nothing_pushed_or_popped(code: str, target: int) -> None:
    """Also where its target is read across two pages."""
    rig = GuestRig()
    rig.put(code)
    for va in (STACK, int(VA) + 0x100, int(VA) + 0xFFC):
        with_word(rig, va, target)
    core = rig.core({"rdi": target, "rsp": STACK, "rbx": int(VA) + 0x100})
    registers, data = core.registers(), rig.data()
    assert core.step() == GP
    assert core.registers() == registers
    assert (rig.data(), rig.memory.journal.stores_to(0x800)) == (data, 0)


@pytest.mark.parametrize("code", ["call rdi", "jmp rdi", "call [rbx]", "jmp [rbx]", "ret"])
def test_the_same_branch_to_a_canonical_address_is_taken(code: str) -> None:
    rig = GuestRig()
    rig.put(code)
    with_word(rig, STACK, CANONICAL)
    with_word(rig, int(VA) + 0x100, CANONICAL)
    core = rig.core({"rdi": CANONICAL, "rsp": STACK, "rbx": int(VA) + 0x100})
    assert core.step() == ON
    assert core.rip == CANONICAL


@pytest.mark.parametrize(
    ("code", "registers"),
    [
        (b"\xe8\x10\0\0\0", {}),  # call +0x10
        (b"\xe9\x10\0\0\0", {}),  # jmp +0x10
        (b"\xeb\x10", {}),
        (b"\x75\x10", {}),  # jnz +0x10: ZF is 0
        (b"\x0f\x85\x10\0\0\0", {}),
        (b"\xe2\x10", {"rcx": 2}),  # loop +0x10
        (b"\xe3\x10", {"rcx": 0}),  # jrcxz +0x10
    ],
)
def test_a_displacement_beyond_the_last_canonical_address_faults_at_the_branch(
    code: bytes, registers: dict[str, int]
) -> None:
    rig, core = edge(code, registers)
    before, data = core.registers(), rig.data()
    assert core.step() == GP
    assert (core.registers(), rig.data()) == (before, data)


@pytest.mark.parametrize(
    ("code", "registers", "rcx"),
    [(b"\x74\x10", {}, 0), (b"\xe2\x10", {"rcx": 1}, 0), (b"\xe3\x10", {"rcx": 5}, 5)],
    ids=["jz", "loop", "jrcxz"],
)
def test_a_branch_there_that_is_not_taken_does_not_fault(
    code: bytes, registers: dict[str, int], rcx: int
) -> None:
    """Code runs on, and the fetch of what comes next is what faults."""
    _, core = edge(code, registers)
    assert core.step() == ON
    assert (core.rip, core.registers()["rcx"]) == (FIRST_NOT, rcx)
    assert core.step() == Refused(NonCanonical(FIRST_NOT))


def test_a_page_fault_where_the_target_lies_comes_before_the_target() -> None:
    rig = GuestRig()
    rig.unmap(VA + PAGE)
    rig.put("call [rbx]")
    va = VirtAddr(VA + PAGE)
    found = rig.core({"rbx": va, "rsp": STACK}).step()
    assert found == Refused(Denied(PageFault(va, FaultCode(0)), None))


@pytest.mark.parametrize(
    ("code", "branch"),
    [
        (b"\xe8\x10\0\0\0", ToAddress(CODE + 0x15)),
        (b"\xe9\xf0\xff\xff\xff", ToAddress(CODE - 0xB)),
        (b"\xff\xd7", ToRegister(REGISTERS.index("rdi"))),
        (b"\x41\xff\xe1", ToRegister(REGISTERS.index("r9"))),
        (b"\xff\x23", ToLoaded()),
        (b"\xc3", ToLoaded()),
        (b"\xc2\x10\0", ToLoaded()),
        (b"\x75\x10", Conditional(CODE + 0x12)),
        (b"\xe3\x10", Conditional(CODE + 0x12)),
        (b"\xe2\xfe", Conditional(CODE)),
        (b"\x90", None),
    ],
)
def test_where_a_branch_goes(code: bytes, branch: object) -> None:
    assert decode(code, CODE).branch == branch
