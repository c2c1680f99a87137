"""One operand of a statement: what it may be, and how it is handed to the assembler.

An operand is an integer register (no ah, bh, ch, dh: together with a REX prefix they end the assembler's
process), a number, a label, or a memory operand in one of the forms of `firmware.syntax`. Promises: a
memory operand is encodable and means what it says; a number is known exactly. Does not know whether an
instruction takes the operand.
"""

import re
from dataclasses import dataclass

LABEL_PREFIX = "at_"
"""Put before every label in rewritten text: no name a user picks can then be a register or an operator."""

NAME = r"[A-Za-z_][A-Za-z0-9_]*"
"""Pattern of a label's name."""

_LEGACY = ("ax", "bx", "cx", "dx", "si", "di", "bp", "sp")
_NUMBERED = tuple(f"r{n}" for n in range(8, 16))
_ADDRESS_REGISTERS = (*(f"r{name}" for name in _LEGACY), *_NUMBERED)
_CONTROL_REGISTERS = ("cr0", "cr2", "cr3", "cr4", "cr8")
_DEBUG_REGISTERS = ("dr0", "dr1", "dr2", "dr3", "dr6", "dr7")
_SEGMENT_REGISTERS = ("cs", "ds", "es", "fs", "gs", "ss")
_BITS: dict[str, int] = (
    dict.fromkeys((*_ADDRESS_REGISTERS, *_CONTROL_REGISTERS, *_DEBUG_REGISTERS), 64)
    | dict.fromkeys((*(f"e{name}" for name in _LEGACY), *(f"{name}d" for name in _NUMBERED)), 32)
    | dict.fromkeys((*_LEGACY, *(f"{name}w" for name in _NUMBERED), *_SEGMENT_REGISTERS), 16)
    | dict.fromkeys(("al", "bl", "cl", "dl", "sil", "dil", "bpl", "spl"), 8)
    | dict.fromkeys((f"{name}b" for name in _NUMBERED), 8)
)
_POINTER_BITS = {"byte": 8, "word": 16, "dword": 32, "qword": 64}

# No leading zeros: the assembler reads them as octal.
_NUMBER = r"(?:0x[0-9a-fA-F]{1,16}|0|[1-9][0-9]{0,19})"
_BASE = "|".join(_ADDRESS_REGISTERS)
_INDEX = "|".join(name for name in _ADDRESS_REGISTERS if name != "rsp")

_NAME_RE = re.compile(NAME)
_NUMBER_RE = re.compile(rf"-?{_NUMBER}")
_MEMORY_RE = re.compile(
    rf"(?:(?P<size>byte|word|dword|qword)\s+ptr\s*)?(?:(?P<segment>fs|gs)\s*:\s*)?"
    rf"\[\s*(?:rip\s*\+\s*(?P<label>{NAME})"
    rf"|(?P<base>{_BASE})(?:\s*\+\s*(?P<index>{_INDEX})(?:\s*\*\s*(?P<scale>[1248]))?)?"
    rf"(?:\s*(?P<sign>[+-])\s*(?P<displacement>{_NUMBER}))?)\s*\]",
    re.IGNORECASE,
)


class RefusedStatement(Exception):
    """Carries the reason from the parts of a line to `firmware.syntax.parse`, which knows where the line
    is."""


@dataclass(frozen=True, slots=True)
class Operand:
    """`text` as rewritten; `bits` of data it names, None where it does not say; `number` if it is one; the
    `label` it names, unprefixed, which is all there is to it if `is_bare_label`.
    """

    text: str
    bits: int | None = None
    number: int | None = None
    label: str | None = None
    is_bare_label: bool = False


def is_register(name: str) -> bool:
    """True for every name, in whichever case, that an operand can use as a register."""
    return name.lower() in _BITS or name.lower() == "rip"


def parse_operand(text: str) -> Operand:
    """The operand `text` stands for; raises RefusedStatement when it is none."""
    if text.lower() in _BITS:
        return Operand(text.lower(), bits=_BITS[text.lower()])
    if _NUMBER_RE.fullmatch(text):
        value = int(text, 0)
        return Operand(f"{value:#x}", number=value)
    if _NAME_RE.fullmatch(text):
        return Operand(LABEL_PREFIX + text, label=text, is_bare_label=True)
    match = _MEMORY_RE.fullmatch(text)
    if match is None:
        raise RefusedStatement(f"{text!r} is not an operand")
    return _memory_operand(match)


def check_fits(number: int, bits: int) -> None:
    """Raises RefusedStatement unless `number` is a signed or an unsigned number of that many bits."""
    if not -(1 << (bits - 1)) <= number < 1 << bits:
        raise RefusedStatement(f"{number:#x} does not fit {bits} bits")


def _memory_operand(match: re.Match[str]) -> Operand:
    inside = f"rip + {LABEL_PREFIX}{match['label']}" if match["label"] else match["base"].lower()
    if match["index"]:
        inside += f" + {match['index'].lower()}*{match['scale'] or 1}"
    if match["displacement"]:
        displacement = int(match["sign"] + match["displacement"], 0)
        # Unlike an immediate, it is always sign-extended: 0x80000000 would mean -0x80000000.
        if not -(1 << 31) <= displacement < 1 << 31:
            raise RefusedStatement(f"displacement {displacement:#x} does not fit 32 signed bits")
        inside += f" {match['sign']} {abs(displacement):#x}"
    segment = "" if match["segment"] is None else match["segment"].lower() + ":"
    text = f"{segment}[{inside}]"
    if match["size"] is None:
        return Operand(text, label=match["label"])
    size = match["size"].lower()
    return Operand(f"{size} ptr {text}", bits=_POINTER_BITS[size], label=match["label"])
