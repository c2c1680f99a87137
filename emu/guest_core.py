"""The engine behind one CPU's guest code: Unicorn, one instruction at a time, our MMU behind every access.

This is the only module that imports unicorn. *Exact* mode: an instruction is decoded first, the MMU is asked
once per operand, and only then may the engine run it, with a fill callback that hands out exactly those
answers. So a refused access is known before anything has happened: registers and memory are as before the
instruction, the faulting address is exact to the byte, and the instruction can be started again.

The engine's own TLB is emptied after every instruction: it never holds what the model TLB has dropped.
An exception raised inside the callback is kept, the access refused, and the exception raised again outside.

Facts about the engine this file depends on (unicorn 2.1.4, measured; the version is pinned):
- `emu_start` is always called with a count and with until = 0, or = the next instruction (see `_run`).
- Translated code is not coherent with stores by others: it is dropped where the code bytes changed.
- After a CPU exception inside the engine its state is stale (a later one arrives as a double fault): a core
  that trapped gets a new instance.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

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
)

from emu.addr import PAGE_BYTES, PAGE_MASK, WORD_MASK, PhysAddr, VirtAddr
from emu.decode import LONGEST_INSTRUCTION, RCX, REGISTERS, Decoded, Kind, Operand, Segment, decode, is_whole
from emu.events import Executed, GuestSite, Loaded, Source, Stored
from emu.memory import PhysicalMemory
from emu.mmu import Denied, Mmu, NonCanonical, Translation
from emu.tlb import Invlpg, TlbEntry
from emu.trace import Trace
from emu.walk import Access, BusError, Privilege

RFLAGS_IF = 1 << 9
RFLAGS_RESERVED = 1 << 1
RFLAGS_ZF = 1 << 6
_TCG_BUFFER_BYTES = 32 << 20  # the default reserves 1 GiB of address space for every instance
VECTOR_UD = 6

_NUMBERS = (
    UC_X86_REG_RAX, UC_X86_REG_RBX, UC_X86_REG_RCX, UC_X86_REG_RDX,
    UC_X86_REG_RSI, UC_X86_REG_RDI, UC_X86_REG_RBP, UC_X86_REG_RSP,
    UC_X86_REG_R8, UC_X86_REG_R9, UC_X86_REG_R10, UC_X86_REG_R11,
    UC_X86_REG_R12, UC_X86_REG_R13, UC_X86_REG_R14, UC_X86_REG_R15,
    UC_X86_REG_RIP, UC_X86_REG_EFLAGS,
)  # fmt: skip
_RIP, _FLAGS = 16, 17


class EngineError(Exception):
    """The engine did something this file does not expect of it."""


@dataclass(frozen=True, slots=True)
class Retired:
    """The instruction finished. `interrupts` is IF after it, `spin_hint` that it was a PAUSE."""

    interrupts: bool
    spin_hint: bool


@dataclass(frozen=True, slots=True)
class Halted:
    """The program ended at its HLT."""


@dataclass(frozen=True, slots=True)
class GuestTrap:
    """The instruction raised this exception (not #PF). Nothing of it has happened."""

    vector: int


@dataclass(frozen=True, slots=True)
class Refused:
    """An access was refused: nothing of the instruction has happened."""

    why: Denied | BusError | NonCanonical


StepResult: TypeAlias = Retired | Halted | GuestTrap | Refused


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


@dataclass(frozen=True, slots=True)
class _Piece:
    """The part of an operand that lies in one page, and its translation."""

    va: VirtAddr
    pa: PhysAddr
    size: int
    access: Access
    entry: TlbEntry
    source: Source


class GuestCore:
    """Runs guest code at CPL 0 for one CPU. Create one only for a CPU that has guest code to run."""

    def __init__(self, cpu: int, memory: PhysicalMemory, mmu: Mmu, trace: Trace) -> None:
        self._cpu = cpu
        self._memory = memory
        self._mmu = mmu
        self._trace = trace
        self._answers: dict[tuple[int, bool], tuple[int, int]] = {}
        self._error: BaseException | None = None
        self._vector: int | None = None
        self._refused_fetch = False
        self._pieces: list[_Piece] = []
        self._values = (ctypes.c_uint64 * len(_NUMBERS))()
        self._ids = (ctypes.c_int * len(_NUMBERS))(*_NUMBERS)
        self._pointers = (ctypes.c_void_p * len(_NUMBERS))(
            *(ctypes.addressof(self._values) + 8 * i for i in range(len(_NUMBERS)))
        )
        self._fill_callback = _FILL(self._fill)
        self.program = ""
        self._site_rip, self._site_text = VirtAddr(0), ""
        self._start_engine()

    def load(self, program: str, rip: VirtAddr, registers: Mapping[str, int]) -> None:
        """Begin `program` at `rip` with the given registers; the others are 0, IF is 1."""
        unknown = sorted(set(registers) - set(REGISTERS))
        if unknown:
            raise ValueError(f"no such register: {', '.join(unknown)}")
        self.program = program
        for number, name in zip(_NUMBERS, REGISTERS, strict=False):
            self._uc.reg_write(number, registers.get(name, 0) & WORD_MASK)
        self._uc.reg_write(UC_X86_REG_EFLAGS, RFLAGS_RESERVED | RFLAGS_IF)
        self._uc.reg_write(UC_X86_REG_RIP, rip)

    def registers(self) -> dict[str, int]:
        """The general registers, ``rip`` and ``rflags``."""
        self._read_registers()
        return dict(zip((*REGISTERS, "rip", "rflags"), self._values, strict=True))

    @property
    def rip(self) -> VirtAddr:
        self._read_registers()
        return VirtAddr(self._values[_RIP])

    def words_read(self) -> Iterator[int]:
        """The 8-byte words (address / 8) that the last instruction read."""
        for piece in self._pieces:
            yield from range(piece.pa >> 3, (piece.pa + piece.size + 7) >> 3)

    def site(self) -> GuestSite:
        """The instruction executed last, or refused."""
        return GuestSite(self.program, self._site_rip, self._site_text)

    def step(self) -> StepResult:
        """Execute one instruction (one iteration of a repeated one), or refuse it whole.

        Raises UnsupportedInstruction for one that is not modelled.
        """
        self._read_registers()
        rip = VirtAddr(self._values[_RIP])
        self._answers.clear()
        self._pieces = []
        self._site_rip, self._site_text = rip, "(not fetched)"
        code = self._fetch(rip)
        if not isinstance(code, bytes):
            return Refused(code)
        insn = decode(code, rip)
        self._site_text = insn.text
        match insn.kind:
            case Kind.HALT:
                self._advance(rip, insn)
                return Halted()
            case Kind.UNDEFINED:
                return GuestTrap(VECTOR_UD)
            case Kind.INVLPG:
                self._mmu.invalidate(Invlpg(self._address(insn.operands[0]), self._mmu.pcid))
                self._advance(rip, insn)
                return self._retired(insn)
            case Kind.PAUSE:
                self._advance(rip, insn)
                return self._retired(insn)
        pieces = self._translate(insn)
        if not isinstance(pieces, list):
            return Refused(pieces)
        self._pieces = pieces
        return self._execute(rip, insn, pieces)

    def _execute(self, rip: VirtAddr, insn: Decoded, pieces: list[_Piece]) -> StepResult:
        before = [self._memory.read(piece.pa, piece.size) for piece in pieces]
        for piece, old in zip(pieces, before, strict=True):
            if piece.access is Access.WRITE:
                self._memory.journal.record(piece.pa, old)
        if (vector := self._run(rip, insn)) is not None:
            self._restart_engine()
            return GuestTrap(vector)
        if self._trace.listening:
            self._tell(self.site(), insn, pieces, before)
        else:
            self._trace.next_number += len(pieces)
        return self._retired(insn)

    def _retired(self, insn: Decoded) -> Retired:
        if self._trace.listening:
            self._trace.add(Executed(self._cpu, self.site()))
        else:
            self._trace.skip()
        interrupts = bool(self._values[_FLAGS] & RFLAGS_IF)
        if insn.kind is Kind.INTERRUPT_FLAG:
            interrupts = bool(self._uc.reg_read(UC_X86_REG_EFLAGS) & RFLAGS_IF)
        return Retired(interrupts, spin_hint=insn.kind is Kind.PAUSE)

    def _tell(self, site: GuestSite, insn: Decoded, pieces: list[_Piece], before: list[bytes]) -> None:
        for piece, old in zip(pieces, before, strict=True):
            now = self._memory.read(piece.pa, piece.size)
            value = int.from_bytes(now, "little")
            failed = insn.compares and not self._uc.reg_read(UC_X86_REG_EFLAGS) & RFLAGS_ZF
            if piece.access is Access.READ or failed:
                self._trace.add(
                    Loaded(self._cpu, site, piece.va, piece.pa, piece.size, value, piece.entry, piece.source)
                )
                continue
            self._trace.add(
                Stored(
                    self._cpu,
                    site,
                    piece.va,
                    piece.pa,
                    piece.size,
                    int.from_bytes(old, "little"),
                    value,
                    piece.entry,
                    piece.source,
                )
            )

    # -- addresses -----------------------------------------------------------------------------------

    def _address(self, operand: Operand) -> VirtAddr:
        match operand.segment:
            case Segment.FLAT:
                base = 0
            case Segment.FS:
                base = self._uc.reg_read(UC_X86_REG_FS_BASE)
            case Segment.GS:
                base = self._uc.reg_read(UC_X86_REG_GS_BASE)
        return operand.address(self._values, base)

    def _translate(self, insn: Decoded) -> list[_Piece] | Denied | BusError | NonCanonical:
        """Ask the MMU once for each page of each operand, with the final intent."""
        pieces: list[_Piece] = []
        if insn.repeats and self._values[RCX] == 0:
            return pieces
        for operand in insn.operands:
            va, left = self._address(operand), operand.size
            while left:
                size = min(left, PAGE_BYTES - (va & PAGE_MASK))
                found = self._mmu.translate(va, operand.access, Privilege.SUPERVISOR)
                if not isinstance(found, Translation):
                    return found
                pieces.append(_Piece(va, found.pa, size, operand.access, found.entry, found.source))
                perms = UC_PROT_READ | (UC_PROT_WRITE if operand.access is Access.WRITE else 0)
                self._answer(va, found.pa, perms, is_code=False)
                va, left = VirtAddr((va + size) & WORD_MASK), left - size
        return pieces

    def _fetch(self, rip: VirtAddr) -> bytes | Denied | BusError | NonCanonical:
        """The instruction's bytes, through the MMU; a second page is asked for only when it is reached."""
        found = self._mmu.translate(rip, Access.FETCH, Privilege.SUPERVISOR)
        if not isinstance(found, Translation):
            return found
        self._answer(rip, found.pa, UC_PROT_READ | UC_PROT_EXEC, is_code=True)
        here = min(LONGEST_INSTRUCTION, PAGE_BYTES - (rip & PAGE_MASK))
        code = self._memory.read(found.pa, here)
        if here < LONGEST_INSTRUCTION and not is_whole(code):
            after = VirtAddr((rip + here) & WORD_MASK)
            rest = self._mmu.translate(after, Access.FETCH, Privilege.SUPERVISOR)
            if not isinstance(rest, Translation):
                return rest
            self._answer(after, rest.pa, UC_PROT_READ | UC_PROT_EXEC, is_code=True)
            code += self._memory.read(rest.pa, LONGEST_INSTRUCTION - here)
        return code

    def _answer(self, va: VirtAddr, pa: PhysAddr, perms: int, *, is_code: bool) -> None:
        key = (va & ~PAGE_MASK, is_code)
        _, already = self._answers.get(key, (0, 0))
        self._answers[key] = (pa & ~PAGE_MASK, perms | already)

    # -- the engine ----------------------------------------------------------------------------------

    def _start_engine(self) -> None:
        self._uc = Uc(UC_ARCH_X86, UC_MODE_64)
        self._uc.ctl_set_tcg_buffer_size(_TCG_BUFFER_BYTES)
        self._uc.ctl_set_tlb_mode(UC_TLB_VIRTUAL)
        self._uc.mem_map_ptr(0, self._memory.size, UC_PROT_ALL, self._memory.host_address())
        self._uc.hook_add(UC_HOOK_INTR, self._interrupt)
        hook = ctypes.c_size_t()
        status = uclib.uc_hook_add(
            self._uc._uch,
            ctypes.byref(hook),
            UC_HOOK_TLB_FILL,
            self._fill_callback,
            ctypes.c_void_p(0),
            ctypes.c_uint64(1),
            ctypes.c_uint64(0),
        )
        if status != UC_ERR_OK:
            raise EngineError(f"cannot install the fill callback: error {status}")
        self._translated: dict[int, bytes] = {}

    def _restart_engine(self) -> None:
        """A new instance with the registers of the old one."""
        self._read_registers()
        values = list(self._values)
        self._start_engine()
        for number, value in zip(_NUMBERS, values, strict=True):
            self._uc.reg_write(number, value)

    def _read_registers(self) -> None:
        uclib.uc_reg_read_batch(self._uc._uch, self._ids, self._pointers, len(_NUMBERS))

    def _advance(self, rip: VirtAddr, insn: Decoded) -> None:
        self._uc.reg_write(UC_X86_REG_RIP, (rip + insn.length) & WORD_MASK)

    def _run(self, rip: VirtAddr, insn: Decoded) -> int | None:
        """Let the engine execute the instruction at `rip`. Returns the vector of an exception it raised."""
        code_pa = self._answers[rip & ~PAGE_MASK, True][0] | (rip & PAGE_MASK)
        code = self._memory.read(PhysAddr(code_pa), min(insn.length, PAGE_BYTES - (rip & PAGE_MASK)))
        if self._translated.setdefault(code_pa, code) != code:
            self._uc.ctl_flush_tb()
            self._translated = {code_pa: code}
        status = self._start(rip, 0)
        if status == UC_ERR_EXCEPTION and self._refused_fetch and self._error is None:
            if self._uc.reg_read(UC_X86_REG_RIP) != rip:
                # A branch was executed; what was refused is the fetch at its target, the next step's.
                status = UC_ERR_OK
            else:
                # Straight-line code that runs on into the next page makes the engine fetch that page
                # before it executes anything. Told where to stop, it does not.
                status = self._start(rip, (rip + insn.length) & WORD_MASK)
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        if self._vector is not None:
            vector, self._vector = self._vector, None
            self._uc.reg_write(UC_X86_REG_RIP, rip)
            return vector
        if status == UC_ERR_INSN_INVALID:
            return VECTOR_UD
        if status != UC_ERR_OK:
            raise EngineError(f"engine error {status} at {rip:#x}: {insn.text}")
        return None

    def _start(self, rip: VirtAddr, until: int) -> int:
        self._refused_fetch = False
        status: int = uclib.uc_emu_start(self._uc._uch, rip, until, 0, 1)
        self._uc.ctl(UC_CTL_TLB_FLUSH, UC_CTL_IO_WRITE)
        return status

    def _fill(self, _uc: int, va: int, kind: int, answer: ctypes._Pointer[_FillAnswer], _data: int) -> bool:
        try:
            is_code = kind == UC_MEM_FETCH
            known = self._answers.get((va & ~PAGE_MASK, is_code))
            if known is None:
                if not is_code:
                    raise EngineError(f"access to page {va:#x} that the decoder did not foresee")
                self._refused_fetch = True
                return False
            if kind == UC_MEM_WRITE and not known[1] & UC_PROT_WRITE:
                raise EngineError(f"write to page {va:#x} that the decoder took for a read")
            answer[0].paddr, answer[0].perms = known
        except BaseException as error:
            self._error = error
            return False
        return True

    def _interrupt(self, uc: Uc, vector: int, _data: object) -> None:
        self._vector = vector
        uc.emu_stop()
