"""Bare Unicorn on the same program: its own MMU (UC_TLB_CPU), the same page tables, single steps."""

from __future__ import annotations

from unicorn import Uc
from unicorn.unicorn_const import UC_ARCH_X86, UC_MODE_64, UC_PROT_ALL
from unicorn.x86_const import (
    UC_X86_REG_CR0,
    UC_X86_REG_CR3,
    UC_X86_REG_CR4,
    UC_X86_REG_MSR,
    UC_X86_REG_RCX,
    UC_X86_REG_RDI,
    UC_X86_REG_RIP,
)

from emu.addr import PhysAddr
from emu.memory import PhysicalMemory

_EFER, _EFER_LONG_MODE_NX = 0xC000_0080, 0xD01
_CR0_PAGING, _CR4_PAE_PGE = 0x8001_0033, 0x6A0


class BareUnicorn:
    """One engine instance over the memory of a booted system."""

    def __init__(self, memory: PhysicalMemory, root: PhysAddr) -> None:
        self._memory = memory
        self._uc = Uc(UC_ARCH_X86, UC_MODE_64)
        self._uc.mem_map_ptr(0, memory.size, UC_PROT_ALL, memory.host_address())
        self._uc.reg_write(UC_X86_REG_CR3, root)
        self._uc.reg_write(UC_X86_REG_CR4, _CR4_PAE_PGE)
        self._uc.reg_write(UC_X86_REG_MSR, (_EFER, _EFER_LONG_MODE_NX))
        self._uc.reg_write(UC_X86_REG_CR0, _CR0_PAGING)

    def prepare(self, rip: int, rdi: int, rcx: int) -> None:
        self._uc.reg_write(UC_X86_REG_RDI, rdi)
        self._uc.reg_write(UC_X86_REG_RCX, rcx)
        self._uc.reg_write(UC_X86_REG_RIP, rip)

    def steps(self, count: int) -> None:
        """`count` calls of one instruction each, reading RIP between them as any stepper must."""
        rip = self._uc.reg_read(UC_X86_REG_RIP)
        for _ in range(count):
            self._uc.emu_start(rip, 0, count=1)
            rip = self._uc.reg_read(UC_X86_REG_RIP)
