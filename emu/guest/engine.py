"""The engine: Unicorn, one instruction at a time, allowed exactly the pages it was told.

This is the only module that imports unicorn. An access to a page that was not allowed is refused; an
exception raised inside a callback is kept and raised again outside.

Facts about the engine this file depends on (unicorn 2.1.4, measured; the version is pinned):
- `emu_start` is always called with a count, and with until = 0 or = the next instruction (see `_run_once`).
- Its own TLB is emptied after every instruction: it never holds what the model TLB has dropped.
- Translated code is not coherent with stores by others: it is dropped where the code bytes changed.
- After a CPU exception inside it, the next one arrives as a double fault: it then gets a new instance.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence

from unicorn import Uc
from unicorn.unicorn_const import (
    UC_ARCH_X86,
    UC_CTL_IO_WRITE,
    UC_CTL_TLB_FLUSH,
    UC_ERR_EXCEPTION,
    UC_ERR_INSN_INVALID,
    UC_ERR_OK,
    UC_HOOK_INTR,
    UC_HOOK_TLB_FILL,
    UC_MEM_FETCH,
    UC_MEM_WRITE,
    UC_MODE_64,
    UC_PROT_ALL,
    UC_PROT_EXEC,
    UC_PROT_READ,
    UC_PROT_WRITE,
    UC_TLB_VIRTUAL,
)
from unicorn.unicorn_py3.unicorn import uclib
from unicorn.x86_const import (
    UC_X86_REG_EFLAGS,
    UC_X86_REG_FS_BASE,
    UC_X86_REG_GS_BASE,
    UC_X86_REG_MXCSR,
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
    UC_X86_REG_RIP,
    UC_X86_REG_RSI,
    UC_X86_REG_RSP,
    UC_X86_REG_XMM0,
    UC_X86_REG_XMM1,
    UC_X86_REG_XMM2,
    UC_X86_REG_XMM3,
    UC_X86_REG_XMM4,
    UC_X86_REG_XMM5,
    UC_X86_REG_XMM6,
    UC_X86_REG_XMM7,
    UC_X86_REG_XMM8,
    UC_X86_REG_XMM9,
    UC_X86_REG_XMM10,
    UC_X86_REG_XMM11,
    UC_X86_REG_XMM12,
    UC_X86_REG_XMM13,
    UC_X86_REG_XMM14,
    UC_X86_REG_XMM15,
)

from emu.addr import PAGE_MASK, WORD_MASK, PhysAddr
from emu.guest.decode import REGISTERS
from emu.kept import Bookmark
from emu.memory import PhysicalMemory
from emu.paging.walk import Access

RFLAGS_IF = 1 << 9
RFLAGS_RESERVED = 1 << 1
RFLAGS_ZF = 1 << 6
VECTOR_UD = 6
VECTOR_GP = 13
RIP, RFLAGS = 16, 17  # their places among the register values
_TCG_BUFFER_BYTES = 32 << 20  # the default reserves 1 GiB of address space for every instance

_NUMBERS = (
    UC_X86_REG_RAX, UC_X86_REG_RBX, UC_X86_REG_RCX, UC_X86_REG_RDX,
    UC_X86_REG_RSI, UC_X86_REG_RDI, UC_X86_REG_RBP, UC_X86_REG_RSP,
    UC_X86_REG_R8, UC_X86_REG_R9, UC_X86_REG_R10, UC_X86_REG_R11,
    UC_X86_REG_R12, UC_X86_REG_R13, UC_X86_REG_R14, UC_X86_REG_R15,
    UC_X86_REG_RIP, UC_X86_REG_EFLAGS,
)  # fmt: skip
_PERMS = {
    Access.READ: UC_PROT_READ,
    Access.WRITE: UC_PROT_READ | UC_PROT_WRITE,
    # Not readable: the engine keeps one host address for a page, whichever side filled it.
    Access.FETCH: UC_PROT_EXEC,
}


# Beside those: what a program may have set up and a trap must not lose.
_BASES = (UC_X86_REG_FS_BASE, UC_X86_REG_GS_BASE, UC_X86_REG_MXCSR)
_XMM = (
    UC_X86_REG_XMM0, UC_X86_REG_XMM1, UC_X86_REG_XMM2, UC_X86_REG_XMM3,
    UC_X86_REG_XMM4, UC_X86_REG_XMM5, UC_X86_REG_XMM6, UC_X86_REG_XMM7,
    UC_X86_REG_XMM8, UC_X86_REG_XMM9, UC_X86_REG_XMM10, UC_X86_REG_XMM11,
    UC_X86_REG_XMM12, UC_X86_REG_XMM13, UC_X86_REG_XMM14, UC_X86_REG_XMM15,
)  # fmt: skip
_ALL = (*_NUMBERS, *_BASES, *_XMM)
_FS_AT, _GS_AT, _XMM_AT = (
    len(_NUMBERS),
    len(_NUMBERS) + 1,
    len(_NUMBERS) + len(_BASES),
)  # their places in the file


class EngineError(Exception):
    """The engine did something this file does not expect of it."""


class _FillAnswer(ctypes.Structure):
    _fields_ = (("paddr", ctypes.c_uint64), ("perms", ctypes.c_uint32))


_FILL = ctypes.CFUNCTYPE(
    ctypes.c_bool,
    ctypes.c_void_p,
    ctypes.c_uint64,
    ctypes.c_int,
    ctypes.POINTER(_FillAnswer),
    ctypes.c_void_p,
)
uclib.uc_emu_start.argtypes = (
    ctypes.c_void_p,
    ctypes.c_uint64,
    ctypes.c_uint64,
    ctypes.c_uint64,
    ctypes.c_size_t,
)


class _Callbacks:
    """What the engine calls. It does not know the engine, so that the two can be freed at once."""

    def __init__(self) -> None:
        self.allowed: dict[tuple[int, bool], tuple[int, int]] = {}
        self.error: BaseException | None = None
        self.vector: int | None = None
        self.refused_fetch = False

    def fill(self, _uc: int, va: int, kind: int, answer: ctypes._Pointer[_FillAnswer], _data: int) -> bool:
        try:
            is_code = kind == UC_MEM_FETCH
            known = self.allowed.get((va & ~PAGE_MASK, is_code))
            if known is None:
                if not is_code:
                    raise EngineError(f"access to page {va:#x} that the decoder did not foresee")
                self.refused_fetch = True
                return False
            if kind == UC_MEM_WRITE and not known[1] & UC_PROT_WRITE:
                raise EngineError(f"write to page {va:#x} that the decoder took for a read")
            answer[0].paddr, answer[0].perms = known
        except BaseException as error:
            self.error = error
            return False
        return True

    def interrupt(self, uc: Uc, vector: int, _data: object) -> None:
        self.vector = vector
        uc.emu_stop()


class Engine:
    """One Unicorn instance over a memory. `values` are the registers as last read: REGISTERS, RIP, RFLAGS."""

    def __init__(self, memory: PhysicalMemory) -> None:
        self._memory = memory
        self._file = (ctypes.c_uint64 * (_XMM_AT + 2 * len(_XMM)))()  # all registers, `values` first
        self.values = (ctypes.c_uint64 * len(_NUMBERS)).from_buffer(self._file)
        places = [*range(_XMM_AT), *range(_XMM_AT, len(self._file), 2)]
        self._ids = (ctypes.c_int * len(_ALL))(*_ALL)
        self._pointers = (ctypes.c_void_p * len(_ALL))(
            *(ctypes.addressof(self._file) + 8 * place for place in places)
        )
        self._is_read = False  # the file has what all registers are
        self._is_ahead = False  # and the instance does not have that yet
        self._callbacks = _Callbacks()
        self._fill_callback = _FILL(self._callbacks.fill)
        self._uc = self._instance()
        self._translated: dict[PhysAddr, bytes] = {}

    def load(self, rip: int, registers: Mapping[str, int]) -> None:
        """Set the named general registers, RIP, and RFLAGS with IF = 1; all else is as in a new instance."""
        self._is_read = self._is_ahead = False
        self._uc.context_restore(self._pristine)
        for number, name in zip(_NUMBERS, REGISTERS, strict=False):
            self._uc.reg_write(number, registers.get(name, 0) & WORD_MASK)
        self._uc.reg_write(UC_X86_REG_EFLAGS, RFLAGS_RESERVED | RFLAGS_IF)
        self.set_rip(rip)

    def read_registers(self) -> None:
        """Bring `values` up to date."""
        if not self._is_read:
            self._read(len(_NUMBERS))

    def fs_base(self) -> int:
        return self._base(_FS_AT)

    def gs_base(self) -> int:
        return self._base(_GS_AT)

    def _base(self, at: int) -> int:
        self.mark()
        return self._file[at]

    def set_rip(self, rip: int) -> None:
        if not self._is_ahead:
            self._uc.reg_write(UC_X86_REG_RIP, rip & WORD_MASK)
        self.values[RIP] = rip & WORD_MASK

    def mark(self) -> Bookmark:
        """All registers, also those that `values` does not have."""
        if not self._is_read:
            self._read(len(_ALL))
            self._is_read = True
        return Bookmark((bytes(self._file),), ())

    def back(self, mark: Bookmark) -> None:
        """To the registers of that mark, made on whichever instance. This one gets them when it runs."""
        (file,) = mark.values
        assert isinstance(file, bytes)
        ctypes.memmove(self._file, file, len(file))
        self._is_read = self._is_ahead = True

    def _read(self, count: int) -> None:
        uclib.uc_reg_read_batch(self._uc._uch, self._ids, self._pointers, count)

    def _catch_up(self) -> None:
        """The instance is about to be used."""
        if self._is_ahead:
            self._uc.context_restore(self._pristine)
            uclib.uc_reg_write_batch(self._uc._uch, self._ids, self._pointers, len(_ALL))
        self._is_read = self._is_ahead = False

    def put_back(self, values: Sequence[int]) -> None:
        """Set the registers to what `values` said before an instruction."""
        self._catch_up()
        for number, value in zip(_NUMBERS, values, strict=True):
            self._uc.reg_write(number, value)
        self.read_registers()

    def forbid_all(self) -> None:
        """From here on no page may be accessed."""
        self._callbacks.allowed.clear()

    def allow(self, va: int, pa: int, access: Access) -> None:
        """The page of `va` may be accessed in this way, at the frame of `pa`."""
        key = (va & ~PAGE_MASK, access is Access.FETCH)
        _, already = self._callbacks.allowed.get(key, (0, 0))
        self._callbacks.allowed[key] = (pa & ~PAGE_MASK, _PERMS[access] | already)

    def run(self, rip: int, code_pa: PhysAddr, code: bytes) -> int | None:
        """Execute the instruction `code` at `rip`. Returns the vector of an exception it raised, or None.

        `values` are up to date afterwards. A store into code that the engine has translated makes it stop
        before the instruction is done: RIP is then still `rip`, and `run_again` is called for.

        Raises what a callback raised, or EngineError.
        """
        self._catch_up()
        if self._translated.setdefault(code_pa, code) != code:
            self._uc.ctl_flush_tb()
            self._translated = {code_pa: code}
        status = self._run_once(rip, len(code))
        callbacks = self._callbacks
        if callbacks.error is not None:
            error, callbacks.error = callbacks.error, None
            raise error
        vector: int | None = callbacks.vector
        callbacks.vector = None
        if status == UC_ERR_INSN_INVALID:
            vector = VECTOR_UD
        if vector is not None:
            self._replace(rip)
        elif status != UC_ERR_OK:
            raise EngineError(f"engine error {status} at {rip:#x}: {code.hex()}")
        else:
            self.read_registers()
        return vector

    def run_again(self, rip: int, length: int) -> None:
        """Finish an instruction that was thrown back because it stores into translated code.

        The engine counts the attempt it throws away, so it may count to 2, and is told where to stop.
        Raises what a callback raised, or EngineError.
        """
        status = self._start(rip, (rip + length) & WORD_MASK, count=2)
        if self._callbacks.error is not None:
            error, self._callbacks.error = self._callbacks.error, None
            raise error
        self.read_registers()
        if status != UC_ERR_OK or self.values[RIP] == rip:
            raise EngineError(f"engine error {status}: the instruction at {rip:#x} does not end")

    def _run_once(self, rip: int, length: int) -> int:
        status = self._start(rip, 0)
        if status != UC_ERR_EXCEPTION or not self._callbacks.refused_fetch or self._callbacks.error:
            return status
        self.read_registers()
        if self.values[RIP] != rip:
            # A branch was executed; what was refused is the fetch at its target, the next step's.
            return int(UC_ERR_OK)
        # Straight-line code that runs on into the next page makes the engine fetch that page before it
        # executes anything. Told where to stop, it does not.
        return self._start(rip, (rip + length) & WORD_MASK)

    def _start(self, rip: int, until: int, count: int = 1) -> int:
        self._callbacks.refused_fetch = False
        status: int = uclib.uc_emu_start(self._uc._uch, rip, until, 0, count)
        self._uc.ctl(UC_CTL_TLB_FLUSH, UC_CTL_IO_WRITE)
        return status

    def _replace(self, rip: int) -> None:
        """A new instance with the registers of the old one, at `rip`."""
        registers = self.mark()
        self._uc, self._translated = self._instance(), {}
        self.back(registers)
        self.set_rip(rip)

    def _instance(self) -> Uc:
        uc = Uc(UC_ARCH_X86, UC_MODE_64)
        uc.ctl_set_tcg_buffer_size(_TCG_BUFFER_BYTES)
        uc.ctl_set_tlb_mode(UC_TLB_VIRTUAL)
        uc.mem_map_ptr(0, self._memory.size, UC_PROT_ALL, self._memory.host_address())
        uc.hook_add(UC_HOOK_INTR, self._callbacks.interrupt)
        hook = ctypes.c_size_t()
        status = uclib.uc_hook_add(
            uc._uch,
            ctypes.byref(hook),
            UC_HOOK_TLB_FILL,
            self._fill_callback,
            ctypes.c_void_p(0),
            ctypes.c_uint64(1),
            ctypes.c_uint64(0),
        )
        if status != UC_ERR_OK:
            raise EngineError(f"cannot install the fill callback: error {status}")
        self._pristine = uc.context_save()
        return uc
