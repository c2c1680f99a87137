"""What the tests of a guest core compare."""

from __future__ import annotations

from guest_rig import GuestRig
from paging_rig import VA

from emu.addr import VirtAddr
from emu.guest.guest_core import GuestCore, Refused, Retired
from emu.mmu import Denied
from emu.paging.walk import FaultCode, PageFault

ON = Retired(interrupts=True, spin_hint=False)
STACK = VA + 0x800


def refused(va: int, code: int) -> Refused:
    return Refused(Denied(PageFault(VirtAddr(va), FaultCode(code)), None))


def whole_state(rig: GuestRig, core: GuestCore) -> tuple[dict[str, int], bytes]:
    return core.registers(), rig.data()


# Instruction, the registers that matter, and the access that is refused when the page of VA is absent.
BASE = {"rax": 0x1122334455667788, "rcx": 3, "rdx": 5, "rsi": VA + 0x100, "rdi": VA + 0x200, "rbx": VA + 0x40}
BASE |= {"rsp": STACK, "rbp": VA + 0x900, "r8": 0xA5A5A5A5A5A5A5A5, "r12": VA + 0x300, "r15": 0xFFFF}
SHAPES = [
    ("mov rax, [rbx]", VA + 0x40, 0),
    ("mov al, [rbx+0x3f]", VA + 0x7F, 0),
    ("movzx eax, word ptr [rbx]", VA + 0x40, 0),
    ("mov [rbx], rax", VA + 0x40, 2),
    ("mov byte ptr [rbx], 5", VA + 0x40, 2),
    ("movnti [rbx], rax", VA + 0x40, 2),
    ("add rax, [rbx]", VA + 0x40, 0),
    ("add [rbx], rax", VA + 0x40, 2),
    ("cmp [rbx], rax", VA + 0x40, 0),
    ("test byte ptr [rbx], 1", VA + 0x40, 0),
    ("inc dword ptr [rbx]", VA + 0x40, 2),
    ("neg qword ptr [rbx]", VA + 0x40, 2),
    ("shl qword ptr [rbx], cl", VA + 0x40, 2),
    ("lock or qword ptr [rbx], 1", VA + 0x40, 2),
    ("lock inc qword ptr [r12]", VA + 0x300, 2),
    ("lock bts qword ptr [rbx], 7", VA + 0x40, 2),
    ("xchg [rbx], rax", VA + 0x40, 2),
    ("lock xadd [rbx], rax", VA + 0x40, 2),
    ("lock cmpxchg [rbx], rcx", VA + 0x40, 2),
    ("lock cmpxchg8b [rbx]", VA + 0x40, 2),
    ("lock cmpxchg16b [rbx]", VA + 0x40, 2),
    ("sete [rbx]", VA + 0x40, 2),
    ("cmove rax, [rbx]", VA + 0x40, 0),
    ("bsf rax, [rbx]", VA + 0x40, 0),
    ("imul rax, [rbx], 7", VA + 0x40, 0),
    ("mul qword ptr [rbx]", VA + 0x40, 0),
    ("push rax", STACK - 8, 2),
    ("push 5", STACK - 8, 2),
    ("pushfq", STACK - 8, 2),
    ("push [rbx]", VA + 0x40, 0),
    ("pop rax", STACK, 0),
    ("popfq", STACK, 0),
    ("ret", STACK, 0),
    ("leave", VA + 0x900, 0),
    ("call rdi", STACK - 8, 2),
    ("jmp [rbx]", VA + 0x40, 0),
    ("call [rbx]", VA + 0x40, 0),
    ("movsq", VA + 0x100, 0),
    ("movsb", VA + 0x100, 0),
    ("stosq", VA + 0x200, 2),
    ("lodsd", VA + 0x100, 0),
    ("scasw", VA + 0x200, 0),
    ("cmpsq", VA + 0x100, 0),
    ("rep stosb", VA + 0x200, 2),
    ("rep movsq", VA + 0x100, 0),
    ("repne scasb", VA + 0x200, 0),
    ("movups xmm0, [rbx]", VA + 0x40, 0),
    ("movdqu [rbx], xmm0", VA + 0x40, 2),
    ("movaps [rbx], xmm0", VA + 0x40, 2),
    ("movq xmm1, [rbx]", VA + 0x40, 0),
]
WRITING = {text: va for text, va, code in SHAPES if code == 2}
