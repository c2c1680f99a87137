"""The MMU of the engine itself, driven as a witness: same bytes, same access, what happens?

The engine runs with its own page walker (not with our fill callback). Privilege is changed by restoring a
context that was saved at that level, which also puts back the engine's record of a pending exception, so
that each fault arrives as itself. The error code is nowhere in the public interface: it is read out of a
saved context, at an offset that `NativeMmu` proves with a fault whose code is known before it is used.
"""

from __future__ import annotations

from dataclasses import dataclass

from unicorn import Uc, UcError
from unicorn.unicorn_const import (
    UC_ARCH_X86,
    UC_ERR_FETCH_UNMAPPED,
    UC_ERR_READ_UNMAPPED,
    UC_ERR_WRITE_UNMAPPED,
    UC_HOOK_INTR,
    UC_MODE_64,
    UC_PROT_ALL,
)
from unicorn.x86_const import (
    UC_CPU_X86_BROADWELL,
    UC_X86_REG_CR0,
    UC_X86_REG_CR2,
    UC_X86_REG_CR3,
    UC_X86_REG_CR4,
    UC_X86_REG_EFLAGS,
    UC_X86_REG_GDTR,
    UC_X86_REG_MSR,
    UC_X86_REG_RAX,
    UC_X86_REG_RBX,
    UC_X86_REG_RSP,
)

from emu.addr import Pfn, PhysAddr
from emu.memory import PhysicalMemory
from emu.paging.pte import Pte, PteBit
from emu.paging.walk import Access, Control, Privilege

PAGE = 0x1000
EFER = 0xC000_0080
EFER_BASE = 0x501  # SCE, LME, LMA
EFER_NXE = 0x800
CR0_BASE = 0x8000_0033  # PG, NE, ET, MP, PE
CR0_WP = 0x1_0000
CR4_BASE = 0x620 | 0x80  # OSXMMEXCPT, OSFXSR, PAE, PGE
CR4_SMEP = 1 << 20
CR4_SMAP = 1 << 21
VECTOR_PF = 14

# Where the saved context keeps the error code: a header, then the engine's CPU state.
_ERROR_CODE = 40 + 5384

# The first frames of memory hold what the engine itself needs.
ROOT = Pfn(1)
_TABLES = (2, 3, 4, 5, 6, 7)
_CODE_FRAME = 8
_GDT_FRAME = 9
FIRST_FREE = 16
# One frame of code under two addresses: a supervisor may not run user pages under SMEP, nor a user others.
KERNEL_CODE = 0x7E00_0000_0000
USER_CODE = 0x7E80_0000_0000
_GDT = KERNEL_CODE + PAGE
_STACK_END = 0x100
_PROGRAMS = {
    Access.READ: (b"\x48\x8b\x03", 1),  # mov rax, [rbx]
    Access.WRITE: (b"\x48\x89\x03", 1),  # mov [rbx], rax
    Access.FETCH: (b"\xff\xe3", 2),  # jmp rbx, and the instruction found there
}
_SLOT = 0x40
_IRETQ = b"\x48\xcf"


@dataclass(frozen=True, slots=True)
class Done:
    """The access went through; RAX afterwards."""

    rax: int


@dataclass(frozen=True, slots=True)
class Fault:
    """#PF with this error code and this CR2."""

    code: int
    cr2: int


@dataclass(frozen=True, slots=True)
class Outside:
    """The access was led to where there is no memory."""


class NativeMmu:
    """One engine over `memory`, whose tables at ROOT the caller fills (but for the last two top slots)."""

    def __init__(self, memory: PhysicalMemory) -> None:
        self._memory = memory
        self._vector: int | None = None
        self._write_tables()
        uc = self._uc = Uc(UC_ARCH_X86, UC_MODE_64)
        uc.ctl_set_cpu_model(UC_CPU_X86_BROADWELL)  # the oldest one with SMAP
        uc.ctl_set_tcg_buffer_size(32 << 20)
        uc.mem_map_ptr(0, memory.size, UC_PROT_ALL, memory.host_address())
        uc.hook_add(UC_HOOK_INTR, self._interrupt)
        self._control(Control(write_protect=False))
        uc.reg_write(UC_X86_REG_GDTR, (0, _GDT, 0x7F, 0))
        self._contexts = {Privilege.SUPERVISOR: uc.context_save()}
        self._enter_user()
        self._contexts[Privilege.USER] = uc.context_save()
        self._prove_error_code()

    def access(self, va: int, access: Access, privilege: Privilege, control: Control, rax: int) -> object:
        """What one access does, starting with an empty TLB: Done, Fault, Outside, or a text."""
        uc = self._uc
        uc.context_restore(self._contexts[privilege])
        self._control(control)
        uc.reg_write(UC_X86_REG_RAX, rax)
        uc.reg_write(UC_X86_REG_RBX, va)
        code = KERNEL_CODE if privilege is Privilege.SUPERVISOR else USER_CODE
        start = code + _SLOT * list(_PROGRAMS).index(access)
        self._vector = None
        errno = 0
        try:
            uc.emu_start(start, 0, count=_PROGRAMS[access][1])
        except UcError as error:
            errno = error.errno
        if self._vector == VECTOR_PF:
            return Fault(self._error_code(), uc.reg_read(UC_X86_REG_CR2))
        if self._vector is not None:
            return f"vector {self._vector}"
        if errno in (UC_ERR_READ_UNMAPPED, UC_ERR_WRITE_UNMAPPED, UC_ERR_FETCH_UNMAPPED):
            return Outside()
        if errno:
            return f"engine error {errno}"
        return Done(uc.reg_read(UC_X86_REG_RAX))

    def _control(self, control: Control) -> None:
        uc = self._uc
        uc.reg_write(UC_X86_REG_MSR, (EFER, EFER_BASE | (EFER_NXE if control.no_execute_enable else 0)))
        cr4 = CR4_BASE | (CR4_SMEP if control.smep else 0) | (CR4_SMAP if control.smap else 0)
        uc.reg_write(UC_X86_REG_CR4, cr4)
        uc.reg_write(UC_X86_REG_CR0, CR0_BASE | (CR0_WP if control.write_protect else 0))
        uc.reg_write(UC_X86_REG_CR3, ROOT * PAGE)  # which empties its TLB

    def _write_tables(self) -> None:
        tables = iter(_TABLES)
        for va, bits in ((KERNEL_CODE, PteBit(0)), (USER_CODE, PteBit.USER)):
            table = int(ROOT)
            for level in (4, 3, 2):
                below = next(tables)
                pa = table * PAGE + 8 * ((va >> (12 + 9 * (level - 1))) & 511)
                self._put(pa, Pte.make(Pfn(below), PteBit.PRESENT | PteBit.WRITE | bits))
                table = below
            for index, frame in enumerate((_CODE_FRAME, _GDT_FRAME)):
                entry = Pte.make(Pfn(frame), PteBit.PRESENT | PteBit.WRITE | bits)
                self._put(table * PAGE + 8 * (((va >> 12) & 511) + index), entry)
        for index, (program, _) in enumerate(_PROGRAMS.values()):
            self._put_bytes(_CODE_FRAME * PAGE + _SLOT * index, program.ljust(_SLOT, b"\x90"))
        self._put_bytes(_CODE_FRAME * PAGE + _SLOT * len(_PROGRAMS), _IRETQ.ljust(_SLOT, b"\x90"))
        # Code and data segments of rings 0 and 3.
        for selector, low in ((0x08, 0xAF9A), (0x10, 0xCF92), (0x18, 0xCFF2), (0x20, 0xAFFA)):
            access_byte, flags = low & 0xFF, low >> 12
            descriptor = 0xFFFF | access_byte << 40 | 0xF << 48 | flags << 52
            self._put(_GDT_FRAME * PAGE + selector, descriptor)

    def _put(self, pa: int, value: int) -> None:
        self._put_bytes(pa, value.to_bytes(8, "little"))

    def _put_bytes(self, pa: int, data: bytes) -> None:
        self._memory.load_image(PhysAddr(pa), data)

    def _enter_user(self) -> None:
        """IRETQ to ring 3, with the frame in the page of the GDT."""
        stack = _GDT + PAGE - _STACK_END
        frame = (USER_CODE + 0x800, 0x23, 0x2, stack, 0x1B)
        for index, value in enumerate(frame):
            self._put(_GDT_FRAME * PAGE + PAGE - _STACK_END + 8 * index, value)
        self._uc.reg_write(UC_X86_REG_RSP, stack)
        self._uc.reg_write(UC_X86_REG_EFLAGS, 2)
        self._uc.emu_start(KERNEL_CODE + _SLOT * len(_PROGRAMS), 0, count=1)

    def _error_code(self) -> int:
        return int.from_bytes(bytes(self._uc.context_save())[_ERROR_CODE : _ERROR_CODE + 4], "little")

    def _prove_error_code(self) -> None:
        """Faults whose codes are known: a user's write to no page (6), to a supervisor's page (7)."""
        for va, code in ((0x10, 6), (KERNEL_CODE, 7)):
            seen = self.access(va, Access.WRITE, Privilege.USER, Control(), 0)
            if seen != Fault(code, va):
                raise RuntimeError(f"the engine's error code is not where it was: {seen}, want {code:#x}")

    def _interrupt(self, uc: Uc, vector: int, _data: object) -> None:
        self._vector = vector
        uc.emu_stop()
