"""What one instruction asks the engine's TLB for: the witness of `emu.guest.decode`.

Every page is present; data reads are answered without the right to write, so that a later write asks again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from unicorn import Uc, UcError
from unicorn.unicorn_const import (
    UC_ARCH_X86,
    UC_CTL_IO_WRITE,
    UC_CTL_TLB_FLUSH,
    UC_HOOK_INTR,
    UC_HOOK_TLB_FILL,
    UC_MEM_FETCH,
    UC_MEM_READ,
    UC_MODE_64,
    UC_PROT_EXEC,
    UC_PROT_READ,
    UC_PROT_WRITE,
    UC_TLB_VIRTUAL,
)
from unicorn.x86_const import (
    UC_X86_REG_EFLAGS,
    UC_X86_REG_FS_BASE,
    UC_X86_REG_GS_BASE,
    UC_X86_REG_R8,
    UC_X86_REG_R9,
    UC_X86_REG_R10,
    UC_X86_REG_R11,
    UC_X86_REG_R12,
    UC_X86_REG_R13,
    UC_X86_REG_R14,
    UC_X86_REG_R15,
    UC_X86_REG_RAX,
    UC_X86_REG_RBP,
    UC_X86_REG_RBX,
    UC_X86_REG_RCX,
    UC_X86_REG_RDI,
    UC_X86_REG_RDX,
    UC_X86_REG_RSI,
    UC_X86_REG_RSP,
)

PAGE = 0x1000
CODE = 0x1000_0000
FS_BASE, GS_BASE = 0x5000_0000, 0x6000_0000
_CODE_PA, _DATA_PA, _OTHER_PA = 0x1000, 0x2000, 0x3000
# In the order of emu.guest.decode.REGISTERS.
_NUMBERS = (
    UC_X86_REG_RAX, UC_X86_REG_RBX, UC_X86_REG_RCX, UC_X86_REG_RDX,
    UC_X86_REG_RSI, UC_X86_REG_RDI, UC_X86_REG_RBP, UC_X86_REG_RSP,
    UC_X86_REG_R8, UC_X86_REG_R9, UC_X86_REG_R10, UC_X86_REG_R11,
    UC_X86_REG_R12, UC_X86_REG_R13, UC_X86_REG_R14, UC_X86_REG_R15,
)  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """The data pages asked for, each with R or W (W also when it was read first)."""

    pages: Mapping[int, str]
    finished: bool  # False: it raised an exception


class FillLog:
    """One engine, used for one instruction after another."""

    def __init__(self) -> None:
        self._pages: dict[int, str] = {}
        self._trapped = False
        uc = self._uc = Uc(UC_ARCH_X86, UC_MODE_64)
        uc.ctl_set_tcg_buffer_size(32 << 20)
        uc.ctl_set_tlb_mode(UC_TLB_VIRTUAL)
        uc.mem_map(0, 0x10000)
        uc.hook_add(UC_HOOK_TLB_FILL, self._fill)
        uc.hook_add(UC_HOOK_INTR, self._interrupt)
        self._fresh = uc.context_save()

    def run(self, code: bytes, registers: list[int], data: int = 0x01) -> Asked:
        """Run one instruction at CODE. `data`: the byte that all data memory is filled with."""
        uc = self._uc
        uc.context_restore(self._fresh)
        uc.ctl_flush_tb()
        uc.ctl(UC_CTL_TLB_FLUSH, UC_CTL_IO_WRITE)
        for number, value in zip(_NUMBERS, registers, strict=True):
            uc.reg_write(number, value)
        uc.reg_write(UC_X86_REG_EFLAGS, 2)
        uc.reg_write(UC_X86_REG_FS_BASE, FS_BASE)
        uc.reg_write(UC_X86_REG_GS_BASE, GS_BASE)
        uc.mem_write(_CODE_PA, code + b"\x90" * 16)
        uc.mem_write(_DATA_PA, bytes([data]) * PAGE)
        self._pages, self._trapped = {}, False
        try:
            uc.emu_start(CODE, 0, count=1)
        except UcError:
            self._trapped = True
        return Asked(dict(self._pages), not self._trapped)

    def _fill(self, _uc: Uc, va: int, kind: int, answer: object, _data: object) -> bool:
        va &= (1 << 64) - 1
        page = va // PAGE
        if kind == UC_MEM_FETCH:
            answer.paddr = _CODE_PA if page == CODE // PAGE else _OTHER_PA
            answer.perms = UC_PROT_READ | UC_PROT_EXEC
        elif kind == UC_MEM_READ:
            self._pages.setdefault(page, "R")
            answer.paddr, answer.perms = _DATA_PA, UC_PROT_READ
        else:
            self._pages[page] = "W"
            answer.paddr, answer.perms = _DATA_PA, UC_PROT_READ | UC_PROT_WRITE
        return True

    def _interrupt(self, uc: Uc, _vector: int, _data: object) -> None:
        self._trapped = True
        uc.emu_stop()
