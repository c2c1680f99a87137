"""What one guest instruction will do to memory, known before it runs.

The machine asks its MMU once per operand, with the final intent: asking for a read and then, for the same
LOCK-ed instruction, for a write could be answered from two versions of a translation, which no CPU does.
Capstone's access flags are missing for several instructions that matter here (it calls a LOCK CMPXCHG
read-only), so the intents are a table of our own. An instruction outside the table is refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from itertools import takewhile
from typing import Protocol

from capstone import CS_ARCH_X86, CS_MODE_64, CS_OP_MEM, Cs, CsInsn
from capstone import x86_const as x86

from emu.addr import WORD_MASK, VirtAddr
from emu.guest.branch import Branch, Conditional, ToAddress, ToLoaded, ToRegister
from emu.paging.walk import Access

LONGEST_INSTRUCTION = 15
BEHIND_THE_END = b"\xcc"  # INT3, as Linux fills its text with

# The order of the general registers in every array of register values here and in guest_core.
REGISTERS = (
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp",
    "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
)  # fmt: skip
RSP = REGISTERS.index("rsp")
RBP = REGISTERS.index("rbp")
RCX = REGISTERS.index("rcx")


class InstructionKind(Enum):
    """How the machine carries an instruction out."""

    ENGINE = "by the engine"
    HALT = "HLT ends the program"
    PAUSE = "PAUSE: a spin loop waits here"
    INVLPG = "INVLPG, by the TLB model"
    INTERRUPT_FLAG = "the engine changes IF: CLI, STI, POPFQ"
    UNDEFINED = "UD2"


class UnsupportedInstruction(Exception):
    """The guest came to an instruction that the machine does not model, or to none."""

    def __init__(self, rip: int, text: str) -> None:
        told = f"guest instruction not modelled at {rip:#x}: {text}"
        if text == "int3":
            told = f"a guest program has run past its end, at {rip:#x}: hlt ends it"
        super().__init__(told)


class Segment(Enum):
    FLAT = "base 0"
    STACK = "base 0, by way of the stack: what is not canonical is #SS (SDM 3A 6.15)"
    FS = "FS.base"
    GS = "GS.base"


class RegisterValues(Protocol):
    """The general registers' values, in the order of REGISTERS."""

    def __getitem__(self, number: int, /) -> int: ...


@dataclass(frozen=True, slots=True)
class MemoryOperand:
    """One memory operand: base + index * scale + disp in a segment. `base`, `index`: numbers in REGISTERS."""

    access: Access
    size: int
    base: int | None
    index: int | None
    scale: int
    disp: int
    segment: Segment = Segment.FLAT
    bit: int | None = None  # BT and its like: the register whose bit offset selects the word

    def address(self, registers: RegisterValues, segment_base: int) -> VirtAddr:
        total = self.disp + segment_base
        if self.base is not None:
            total += registers[self.base]
        if self.index is not None:
            total += registers[self.index] * self.scale
        if self.bit is not None:
            # SDM 2A, BT: a register's bit offset is signed and reaches beyond the operand.
            bits = 8 * self.size
            offset = registers[self.bit] & ((1 << bits) - 1)
            total += ((offset - ((offset >> (bits - 1)) << bits)) // bits) * self.size
        return VirtAddr(total & WORD_MASK)


@dataclass(frozen=True, slots=True)
class Decoded:
    """One instruction at one address. `operands` are in the order they are asked for: reads first."""

    text: str
    length: int
    kind: InstructionKind
    operands: tuple[MemoryOperand, ...]
    repeats: bool  # REP: with RCX = 0 it touches nothing
    compares: bool  # CMPXCHG: a write access that may leave memory as it was
    may_stay: bool = False  # RIP may be the same afterwards: a branch, or a repeated instruction
    branch: Branch | None = None


_KINDS = {
    "hlt": InstructionKind.HALT,
    "pause": InstructionKind.PAUSE,
    "invlpg": InstructionKind.INVLPG,
    "cli": InstructionKind.INTERRUPT_FLAG,
    "sti": InstructionKind.INTERRUPT_FLAG,
    "popfq": InstructionKind.INTERRUPT_FLAG,
    "ud2": InstructionKind.UNDEFINED,
}

_NO_ACCESS = frozenset({"lea", "nop", "clflush", "prefetcht0", "prefetcht1", "prefetcht2", "prefetchnta"})
_READS_FIRST_OPERAND = frozenset({
    "cmp", "test", "push", "call", "jmp", "invlpg", "mul", "imul", "div", "idiv", "bt", "cmpsb", "cmpsw",
    "cmpsd", "cmpsq",
})  # fmt: skip
_WRITES_FIRST_OPERAND = frozenset({
    "mov", "movabs", "movnti", "movsb", "movsw", "movsd", "movsq", "stosb", "stosw", "stosd", "stosq",
    "movups", "movaps", "movdqu", "movdqa", "movq", "movd",
})  # fmt: skip
_CHANGES_FIRST_OPERAND = frozenset({
    "adc", "add", "and", "btc", "btr", "bts", "cmpxchg", "cmpxchg8b", "cmpxchg16b", "dec", "inc", "neg",
    "not", "or", "rcl", "rcr", "rol", "ror", "sar", "sbb", "shl", "shr", "sub", "xadd", "xchg", "xor",
})  # fmt: skip
_READS_SECOND_OPERAND = frozenset({
    "adc", "add", "and", "bsf", "bsr", "cmp", "imul", "lodsb", "lodsd", "lodsq", "lodsw", "mov", "movabs",
    "movsx", "movsxd", "movzx", "or", "popcnt", "sbb", "scasb", "scasd", "scasq", "scasw", "sub", "test",
    "tzcnt", "lzcnt", "xor", "movsb", "movsw", "movsd", "movsq", "cmpsb", "cmpsw", "cmpsd", "cmpsq",
    "movups", "movaps", "movdqu", "movdqa", "movq", "movd",
})  # fmt: skip
_BIT_STRING = frozenset({"bt", "btc", "btr", "bts"})
# Instructions that reach memory without naming it: the access, the base register, the displacement.
_IMPLICIT = {
    "push": (Access.WRITE, RSP, -8),
    "pushfq": (Access.WRITE, RSP, -8),
    "call": (Access.WRITE, RSP, -8),
    "pop": (Access.READ, RSP, 0),
    "popfq": (Access.READ, RSP, 0),
    "ret": (Access.READ, RSP, 0),
    "leave": (Access.READ, RBP, 0),
}
_BRANCHES = frozenset({"jmp", "jcc", "call", "ret", "loop", "loope", "loopne"})
# What the engine may run although it names no memory operand. Anything else is refused.
_REGISTER_ONLY = frozenset({
    "bswap", "cdq", "cdqe", "clc", "cld", "cmc", "cpuid", "cqo", "cwde", "lfence", "mfence", "sfence", "stc",
    "std", "nop", "shld", "shrd",
})  # fmt: skip


def _family(mnemonic: str) -> str:
    """One name for the conditional forms, which all behave alike."""
    for prefix, family in (("set", "setcc"), ("cmov", "cmovcc")):
        if mnemonic.startswith(prefix):
            return family
    return "jcc" if mnemonic.startswith("j") and mnemonic != "jmp" else mnemonic


def _intent(name: str, position: int) -> Access | None:
    """What the instruction does to a memory operand in that position; None = nothing."""
    if name in _NO_ACCESS:
        return None
    if position == 0:
        if name in _READS_FIRST_OPERAND:
            return Access.READ
        if name in _WRITES_FIRST_OPERAND | _CHANGES_FIRST_OPERAND or name == "setcc":
            return Access.WRITE
    elif name in ("xchg", "xadd"):
        return Access.WRITE
    elif name in _READS_SECOND_OPERAND or name == "cmovcc":
        return Access.READ
    raise KeyError(name)


def _register(number: int) -> int | None:
    if number == x86.X86_REG_INVALID:
        return None
    return _CAPSTONE_REGISTERS[number]


def _explicit(insn: CsInsn, name: str) -> list[MemoryOperand]:
    found = []
    for position, operand in enumerate(insn.operands):
        if operand.type != CS_OP_MEM:
            continue
        access = _intent(name, position)
        if access is None:
            continue
        mem = operand.mem
        disp, base = mem.disp, mem.base
        if base == x86.X86_REG_RIP:
            disp, base = disp + insn.address + insn.size, x86.X86_REG_INVALID
        usual = Segment.STACK if base in (x86.X86_REG_RSP, x86.X86_REG_RBP) else Segment.FLAT
        segment = {x86.X86_REG_FS: Segment.FS, x86.X86_REG_GS: Segment.GS}.get(mem.segment, usual)
        bit = None
        if name in _BIT_STRING and position == 0 and insn.operands[1].type == x86.X86_OP_REG:
            bit = _GENERAL[insn.reg_name(insn.operands[1].reg)]
        index = _register(mem.index)
        found.append(
            MemoryOperand(access, operand.size, _register(base), index, mem.scale, disp, segment, bit)
        )
    return found


@lru_cache(maxsize=4096)
def decode(code: bytes, rip: int) -> Decoded:
    """The first instruction in `code` (up to 15 bytes) as it stands at `rip`.

    Raises UnsupportedInstruction for one outside the table, or with a 32-bit address.
    """
    insn = next(_disassembler().disasm(code, rip, 1), None)
    if insn is None:
        raise UnsupportedInstruction(rip, f"undecodable bytes {code.hex()}")
    text = f"{insn.mnemonic} {insn.op_str}".strip()
    words = insn.mnemonic.split()
    name = _family(words[-1])
    repeats = words[0] in ("rep", "repe", "repne")
    try:
        if insn.addr_size != 8:
            raise KeyError("address size")
        operands = _explicit(insn, name)
        if not insn.operands and name not in _KINDS and name not in _IMPLICIT and name not in _REGISTER_ONLY:
            raise KeyError(name)
        _check_registers(insn)
    except KeyError:
        raise UnsupportedInstruction(rip, text) from None
    if name in _IMPLICIT:
        access, base, disp = _IMPLICIT[name]
        operands.append(MemoryOperand(access, 8, base, None, 1, disp, Segment.STACK))
    operands.sort(key=lambda operand: operand.access is Access.WRITE)
    kind = _KINDS.get(name, InstructionKind.ENGINE)
    may_stay = repeats or name in _BRANCHES
    compares = name.startswith("cmpxchg")
    return Decoded(text, insn.size, kind, tuple(operands), repeats, compares, may_stay, _branch(insn, name))


def _branch(insn: CsInsn, name: str) -> Branch | None:
    if name not in _BRANCHES:
        return None
    if name == "ret" or insn.operands[0].type == CS_OP_MEM:
        return ToLoaded()
    if insn.operands[0].type == x86.X86_OP_IMM:
        target = insn.operands[0].imm & WORD_MASK
        return ToAddress(target) if name in ("jmp", "call") else Conditional(target)
    return ToRegister(_GENERAL[insn.reg_name(insn.operands[0].reg)])


def is_whole(code: bytes) -> bool:
    """Whether the first instruction is complete within these bytes."""
    return next(_disassembler().disasm_lite(code, 0, 1), None) is not None


_FORBIDDEN_REGISTERS = frozenset({"cs", "ds", "es", "fs", "gs", "ss"})
_FORBIDDEN = frozenset({
    "in", "out", "int", "int3", "int1", "into", "syscall", "sysret", "sysenter", "sysexit", "iretq", "iretd",
    "iret", "rdmsr", "wrmsr", "rdtsc", "rdtscp", "rdrand", "rdseed", "lgdt", "lidt", "ltr", "lldt", "swapgs",
    "enter", "retf", "retfq", "lmsw", "smsw", "maskmovdqu", "maskmovq", "verr", "verw", "str", "sldt",
})  # fmt: skip
_OPERAND_SIZE_PREFIX, _REX_W = 0x66, 8
# With the REX bytes: one that is not the last prefix means nothing, and hides nothing either.
_PREFIXES = frozenset({0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3, *range(0x40, 0x50)})
_PREFIX_LOST = frozenset({"movnti", "movsb", "movsw", "movsd", "movsq"})


def _has_repeat_prefix(code: bytes) -> bool:
    """Whether F2 or F3 is among the prefixes the instruction begins with."""
    prefixes = takewhile(lambda byte: byte in _PREFIXES, code)
    return any(byte in (0xF2, 0xF3) for byte in prefixes)


def _check_registers(insn: CsInsn) -> None:
    """Refuse what would change privilege, control registers, or is not the same in every run."""
    name = insn.mnemonic.split()[-1]
    if name in _FORBIDDEN:
        raise KeyError(insn.mnemonic)
    if name in _IMPLICIT and insn.prefix[2] == _OPERAND_SIZE_PREFIX and not insn.rex & _REX_W:
        raise KeyError(insn.mnemonic)  # a 16-bit stack operation
    is_vector = "xmm" in insn.op_str
    told = insn.mnemonic.startswith("rep") or is_vector
    if name in _PREFIX_LOST and _has_repeat_prefix(insn.bytes) and not told:
        raise KeyError(insn.mnemonic)  # the engine obeys a prefix that capstone does not tell of
    both = insn.prefix[2] == _OPERAND_SIZE_PREFIX and insn.rex & _REX_W
    if both and not name.startswith("mov"):
        raise KeyError(insn.mnemonic)  # REX.W wins; capstone gives operands the size of the loser
    for operand in insn.operands:
        if operand.type != x86.X86_OP_REG:
            continue
        register = insn.reg_name(operand.reg)
        if register in _FORBIDDEN_REGISTERS or register.startswith(("cr", "dr")):
            raise KeyError(insn.mnemonic)


@lru_cache(maxsize=1)
def _disassembler() -> Cs:
    disassembler = Cs(CS_ARCH_X86, CS_MODE_64)
    disassembler.detail = True
    return disassembler


_CAPSTONE_REGISTERS = {
    x86.X86_REG_RAX: 0, x86.X86_REG_RBX: 1, x86.X86_REG_RCX: 2, x86.X86_REG_RDX: 3,
    x86.X86_REG_RSI: 4, x86.X86_REG_RDI: 5, x86.X86_REG_RBP: 6, x86.X86_REG_RSP: 7,
    x86.X86_REG_R8: 8, x86.X86_REG_R9: 9, x86.X86_REG_R10: 10, x86.X86_REG_R11: 11,
    x86.X86_REG_R12: 12, x86.X86_REG_R13: 13, x86.X86_REG_R14: 14, x86.X86_REG_R15: 15,
}  # fmt: skip
# Every name of a general register of 16, 32 or 64 bits, and its number in REGISTERS.
_GENERAL = {
    **{f"r{number}{suffix}": number for number in range(8, 16) for suffix in ("", "d", "w")},
    **{prefix + name[1:]: number for number, name in enumerate(REGISTERS[:8]) for prefix in ("r", "e", "")},
}
