"""One CPU's guest code: an instruction is decoded, its accesses are translated, and only then it runs.

The MMU is asked once per operand, with the final intent, before the engine runs anything; the engine may use
exactly those answers (*exact* mode). So a refused access is known before anything has happened: registers and
memory are as before the instruction, the faulting address is exact to the byte, and the instruction can be
started again.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias, assert_never

from emu.addr import PAGE_BYTES, PAGE_MASK, WORD_MASK, PhysAddr, VirtAddr, is_canonical
from emu.events import Executed, GuestSite, Loaded, Source, Stored
from emu.guest.branch import Branch, Conditional, ToAddress, ToLoaded, ToRegister
from emu.guest.decode import (
    LONGEST_INSTRUCTION,
    RCX,
    REGISTERS,
    Decoded,
    InstructionKind,
    MemoryOperand,
    Segment,
    decode,
    is_whole,
)
from emu.guest.engine import RFLAGS, RFLAGS_IF, RFLAGS_ZF, RIP, VECTOR_GP, VECTOR_UD, Engine
from emu.guest.known import Given, KnownInstructions, Ran
from emu.kept import Bookmark, Kept
from emu.memory import PhysicalMemory
from emu.mmu import STACK_FAULT, Denied, Mmu, NonCanonical, Translation
from emu.paging.tlb import Invlpg, TlbEntry
from emu.paging.walk import Access, BusError, Privilege
from emu.trace import Trace


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


_GP = GuestTrap(VECTOR_GP)


class _Piece(NamedTuple):
    """The part of an operand that lies in one page, and its translation."""

    va: VirtAddr
    pa: PhysAddr
    size: int
    access: Access
    entry: TlbEntry
    source: Source


class GuestCore(Kept):
    """Runs guest code at CPL 0 for one CPU. Create one only for a CPU that has guest code to run."""

    kept = ("_pieces", "_code", "_code_pa", "program", "_site_rip", "_site_text")
    parts = ("_engine",)

    def __init__(self, cpu: int, memory: PhysicalMemory, mmu: Mmu, trace: Trace) -> None:
        self._cpu = cpu
        self._memory = memory
        self._mmu = mmu
        self._trace = trace
        self._engine = Engine(memory)
        self._pieces: list[_Piece] = []
        self._code, self._code_pa = b"", PhysAddr(0)
        self.program = ""
        self._site_rip, self._site_text = VirtAddr(0), ""
        self._marked: Bookmark | None = None  # true until something is run

    def mark(self) -> Bookmark:
        """What to come back to. All registers are read only where something has run since the last time."""
        if self._marked is None:
            self._marked = super().mark()
        return self._marked

    def back(self, mark: Bookmark) -> None:
        super().back(mark)
        self._marked = mark

    def load(self, program: str, rip: VirtAddr, registers: Mapping[str, int]) -> None:
        """Begin `program` at `rip` with the given registers; the others are 0, IF is 1."""
        unknown = sorted(set(registers) - set(REGISTERS))
        if unknown:
            raise ValueError(f"no such register: {', '.join(unknown)}")
        self._marked = None
        self.program = program
        self._engine.load(rip, registers)

    def state(self) -> Hashable:
        """All that the program's further course depends on, and where it is: a value."""
        return (self.program, self._site_rip, self._site_text, self.mark().parts[0].values)

    def registers(self) -> dict[str, int]:
        """The general registers, ``rip`` and ``rflags``."""
        self._engine.read_registers()
        return dict(zip((*REGISTERS, "rip", "rflags"), self._engine.values, strict=True))

    @property
    def rip(self) -> VirtAddr:
        self._engine.read_registers()
        return VirtAddr(self._engine.values[RIP])

    def words_read(self) -> Iterator[int]:
        """The 8-byte words (address / 8) that the last instruction read."""
        for piece in self._pieces:
            yield from range(piece.pa >> 3, (piece.pa + piece.size + 7) >> 3)

    def words_walked(self) -> Iterator[int]:
        """The page-table words (address / 8) behind the translations that the last instruction used."""
        for piece in self._pieces:
            yield from (step.pa >> 3 for step in piece.entry.steps)

    def site(self) -> GuestSite:
        """The instruction executed last, or refused."""
        return GuestSite(self.program, self._site_rip, self._site_text)

    def step(self, known: KnownInstructions | None = None) -> StepResult:
        """Execute one instruction (one iteration of a repeated one), or refuse it whole.

        The engine runs none that is `known`. Raises UnsupportedInstruction for one that is not modelled.
        """
        self._engine.read_registers()
        rip = VirtAddr(self._engine.values[RIP])
        self._engine.forbid_all()
        self._marked = None
        self._pieces = []
        self._site_rip, self._site_text = rip, "(not fetched)"
        code = self._fetch(rip)
        if not isinstance(code, bytes):
            return Refused(code)
        insn = decode(code, rip)
        self._site_text = insn.text
        match insn.kind:
            case InstructionKind.HALT:
                self._engine.set_rip(rip + insn.length)
                return Halted()
            case InstructionKind.UNDEFINED:
                return GuestTrap(VECTOR_UD)
            case InstructionKind.INVLPG:
                self._mmu.invalidate(Invlpg(self._address(insn.operands[0]), self._mmu.pcid))
                self._engine.set_rip(rip + insn.length)
                return self._retired(insn)
            case InstructionKind.PAUSE:
                self._engine.set_rip(rip + insn.length)
                return self._retired(insn)
            case InstructionKind.ENGINE | InstructionKind.INTERRUPT_FLAG:
                return self._run(rip, insn, known)
            case _:
                assert_never(insn.kind)

    def _run(self, rip: VirtAddr, insn: Decoded, known: KnownInstructions | None) -> StepResult:
        pieces = self._translate(insn)
        if not isinstance(pieces, list):
            return Refused(pieces)
        self._pieces = pieces
        return self._execute(rip, insn, pieces, known)

    def _execute(
        self, rip: VirtAddr, insn: Decoded, pieces: list[_Piece], known: KnownInstructions | None
    ) -> StepResult:
        before = [self._memory.read(piece.pa, piece.size) for piece in pieces]
        if insn.branch is not None and self._leaves_canonical(insn.branch, pieces, before):
            return self._execute_conditional(rip, insn) if isinstance(insn.branch, Conditional) else _GP
        given = None if known is None else self._given(insn, pieces, before)
        ran = None if known is None or given is None else known.find(given)
        vector = None
        if ran is not None:
            self._do_again(insn, pieces, ran)
        else:
            vector = self._have_run(rip, insn, pieces, before)
            if known is not None and given is not None and vector is None:
                known.learn(given, self._ran(pieces))
        if vector is not None:
            return GuestTrap(vector)
        if self._trace.listening:
            self._tell(self.site(), insn, pieces, before)
        else:
            self._trace.next_number += len(pieces)
        return self._retired(insn)

    def _have_run(
        self, rip: VirtAddr, insn: Decoded, pieces: list[_Piece], before: list[bytes]
    ) -> int | None:
        """The engine does it. Returns the vector of an exception it raised, or None."""
        vector = self._engine.run(rip, self._code_pa, self._code[: insn.length])
        if vector is None and self._engine.values[RIP] == rip and not insn.may_stay:
            self._engine.run_again(rip, insn.length)
        if vector is None and not self._compare_failed(insn):
            for piece, old in zip(pieces, before, strict=True):
                if piece.access is Access.WRITE:
                    self._memory.journal.record(piece.pa, old)
        return vector

    def _given(self, insn: Decoded, pieces: list[_Piece], before: list[bytes]) -> Given:
        operands = tuple((piece.pa, old) for piece, old in zip(pieces, before, strict=True))
        return Given(self._engine.mark(), self._code[: insn.length], operands)

    def _ran(self, pieces: list[_Piece]) -> Ran:
        """What has been done just now."""
        left = tuple(self._memory.read(piece.pa, piece.size) for piece in pieces)
        return Ran(self._engine.mark(), left)

    def _do_again(self, insn: Decoded, pieces: list[_Piece], ran: Ran) -> None:
        self._engine.back(ran.registers)
        if not self._compare_failed(insn):
            for piece, data in zip(pieces, ran.left, strict=True):
                if piece.access is Access.WRITE:
                    self._memory.write(piece.pa, data)

    def _leaves_canonical(self, branch: Branch, pieces: list[_Piece], before: list[bytes]) -> bool:
        match branch:
            case ToAddress(va=va) | Conditional(va=va):
                return not is_canonical(va)
            case ToRegister(number=number):
                return not is_canonical(self._engine.values[number])
            case ToLoaded():
                read = zip(pieces, before, strict=True)
                loaded = b"".join(old for piece, old in read if piece.access is Access.READ)
                return not is_canonical(int.from_bytes(loaded, "little"))
            case _:
                assert_never(branch)

    def _execute_conditional(self, rip: VirtAddr, insn: Decoded) -> StepResult:
        """A branch that must not be taken: whether it is, the engine knows."""
        kept = list(self._engine.values)
        self._engine.run(rip, self._code_pa, self._code[: insn.length])
        if self._engine.values[RIP] == rip + insn.length:
            return self._retired(insn)
        self._engine.put_back(kept)
        return _GP

    def _compare_failed(self, insn: Decoded) -> bool:
        """A CMPXCHG that did not exchange: a write access, but no store."""
        return insn.compares and not self._engine.values[RFLAGS] & RFLAGS_ZF

    def _retired(self, insn: Decoded) -> Retired:
        if self._trace.listening:
            self._trace.add(Executed(self._cpu, self.site()))
        else:
            self._trace.skip()
        interrupts = bool(self._engine.values[RFLAGS] & RFLAGS_IF)
        return Retired(interrupts, spin_hint=insn.kind is InstructionKind.PAUSE)

    def _tell(self, site: GuestSite, insn: Decoded, pieces: list[_Piece], before: list[bytes]) -> None:
        for piece, old in zip(pieces, before, strict=True):
            now = self._memory.read(piece.pa, piece.size)
            value = int.from_bytes(now, "little")
            failed = self._compare_failed(insn)
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

    def _address(self, operand: MemoryOperand) -> VirtAddr:
        match operand.segment:
            case Segment.FLAT | Segment.STACK:
                base = 0
            case Segment.FS:
                base = self._engine.fs_base()
            case Segment.GS:
                base = self._engine.gs_base()
            case _:
                assert_never(operand.segment)
        return operand.address(self._engine.values, base)

    def _translate(self, insn: Decoded) -> list[_Piece] | Denied | BusError | NonCanonical:
        """Ask the MMU once for each page of each operand, with the final intent."""
        pieces: list[_Piece] = []
        if insn.repeats and self._engine.values[RCX] == 0:
            return pieces
        for operand in insn.operands:
            va, left = self._address(operand), operand.size
            while left:
                size = min(left, PAGE_BYTES - (va & PAGE_MASK))
                found = self._mmu.translate(va, operand.access, Privilege.SUPERVISOR)
                if isinstance(found, NonCanonical) and operand.segment is Segment.STACK:
                    return NonCanonical(va, STACK_FAULT)
                if not isinstance(found, Translation):
                    return found
                pieces.append(_Piece(va, found.pa, size, operand.access, found.entry, found.source))
                self._engine.allow(va, found.pa, operand.access)
                va, left = VirtAddr((va + size) & WORD_MASK), left - size
        return pieces

    def _fetch(self, rip: VirtAddr) -> bytes | Denied | BusError | NonCanonical:
        """The instruction's bytes, through the MMU; a second page is asked for only when it is reached."""
        found = self._mmu.translate(rip, Access.FETCH, Privilege.SUPERVISOR)
        if not isinstance(found, Translation):
            return found
        self._engine.allow(rip, found.pa, Access.FETCH)
        here = min(LONGEST_INSTRUCTION, PAGE_BYTES - (rip & PAGE_MASK))
        self._code_pa = found.pa
        code = self._memory.read(found.pa, here)
        if here < LONGEST_INSTRUCTION and not is_whole(code):
            after = VirtAddr((rip + here) & WORD_MASK)
            rest = self._mmu.translate(after, Access.FETCH, Privilege.SUPERVISOR)
            if not isinstance(rest, Translation):
                return rest
            self._engine.allow(after, rest.pa, Access.FETCH)
            code += self._memory.read(rest.pa, LONGEST_INSTRUCTION - here)
        self._code = code
        return code
