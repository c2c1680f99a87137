"""The assembly language programs are written in: a checked subset of Intel syntax, one statement a line.

The assembler behind `firmware.assemble` must not see arbitrary text: it reads files (`.incbin`), never
returns or crashes on some malformed lines, and quietly encodes something else for others (`mov rax, [rdi`,
`mov al, 300`, `[rdi + 0x100000000]`, `jmp 5`). So every line is parsed here first and handed on rewritten.

A line is `label:` (any number of them), then at most one statement, then a comment from `#` or `;`. A
statement is

- `[lock] mnemonic operand, operand, ...` or `[rep|repe|repne]` and a string instruction without operands, or
- `.byte`, `.long` or `.quad` with numbers; `.quad` also takes labels.

An operand is an integer register, a number (decimal or 0x), a label, or one of

- `[size ptr] [fs:|gs:] [base + index*scale + number]` with 64-bit registers,
- `[size ptr] [fs:|gs:] [rip + label]`.

A label may stand only after a jump or `call`, in `[rip + label]`, in `movabs` and in `.quad`; jumps and
`call` take no number. `loop` and `jrcxz` are left out: they reach 127 bytes, and a label further away is
encoded as some other place.

Promises: every name in the result is a register or a label that is defined, every number fits where it
stands, no label is defined twice. Does not know which mnemonics exist or which operands they take.
"""

import re
from dataclasses import dataclass

from firmware.assembly_error import AssemblyError
from firmware.operand import NAME, Operand, RefusedStatement, check_fits, is_register, parse_operand

LONGEST_SOURCE = 65536
"""Characters of source text that are read; a program has one page of code, so more is a wrong file."""

_DATA_BITS = {".byte": 8, ".long": 32, ".quad": 64}

# A number that stands alone (ret 8, int 0x80, push 5) has no operand to take its size from.
_UNSIZED_BITS = 16

_LABEL_RE = re.compile(rf"\s*({NAME})\s*:")
_STATEMENT_RE = re.compile(
    r"(?:(?P<prefix>lock|repne|repe|rep)\s+)?(?P<mnemonic>[a-z][a-z0-9]*|\.[a-z]+)(?:\s+(?P<operands>\S.*))?",
    re.IGNORECASE,
)
# The assembler takes any operands for these, ignores them, and complains on standard error.
_FIXED_OPERANDS = frozenset(
    f"{stem}{size}"
    for stem in ("movs", "cmps", "scas", "lods", "stos", "ins", "outs", "xlat")
    for size in ("", "b", "w", "d", "q")
)
_SHORT_BRANCHES = ("loop", "loope", "loopz", "loopne", "loopnz", "jcxz", "jecxz", "jrcxz")


@dataclass(frozen=True, slots=True)
class SourceLine:
    """One line that holds something.

    `number` counts from 1; `written` is the line without comment and indentation; `statement` is its
    rewritten statement, empty when the line has labels only; `uses` are the labels that statement names,
    unprefixed.
    """

    number: int
    written: str
    labels: tuple[str, ...]
    statement: str
    uses: tuple[str, ...]


def parse(source: str, program: str) -> tuple[SourceLine, ...]:
    """The lines of `source` that hold something, in order; `program` is the name errors carry.

    Raises AssemblyError with the line at fault, or without one when the text is too long or has no statement.
    """
    if len(source) > LONGEST_SOURCE:
        reason = f"the source has {len(source)} characters; at most {LONGEST_SOURCE} are read"
        raise AssemblyError(program, reason)
    lines = _parse_lines(source, program)
    defined: dict[str, int] = {}
    for line in lines:
        for label in line.labels:
            if label in defined:
                reason = f"label {label!r} is already defined in line {defined[label]}"
                raise AssemblyError(program, reason, line.number, line.written)
            defined[label] = line.number
    for line in lines:
        for label in line.uses:
            if label not in defined:
                reason = f"no register or label is called {label!r}"
                raise AssemblyError(program, reason, line.number, line.written)
    if not any(line.statement for line in lines):
        raise AssemblyError(program, "the program is empty")
    return lines


def _parse_lines(source: str, program: str) -> tuple[SourceLine, ...]:
    lines: list[SourceLine] = []
    for number, raw in enumerate(source.splitlines(), start=1):
        written = re.split("[#;]", raw, maxsplit=1)[0].strip()
        if not written:
            continue
        try:
            lines.append(_parse_line(number, written))
        except RefusedStatement as refused:
            raise AssemblyError(program, str(refused), number, written) from None
    return tuple(lines)


def _parse_line(number: int, written: str) -> SourceLine:
    labels: list[str] = []
    rest = written
    while match := _LABEL_RE.match(rest):
        if is_register(match[1]):
            raise RefusedStatement(f"{match[1]!r} is a register and cannot be a label")
        labels.append(match[1])
        rest = rest[match.end() :]
    statement, uses = _parse_statement(rest.strip())
    return SourceLine(number, written, tuple(labels), statement, uses)


def _parse_statement(text: str) -> tuple[str, tuple[str, ...]]:
    if not text:
        return "", ()
    match = _STATEMENT_RE.fullmatch(text)
    if match is None:
        raise RefusedStatement("neither a label nor a statement")
    mnemonic = match["mnemonic"].lower()
    prefix = "" if match["prefix"] is None else match["prefix"].lower()
    _check_offered(prefix, mnemonic)
    parts = match["operands"].split(",") if match["operands"] else []
    operands = tuple(parse_operand(part.strip()) for part in parts)
    if mnemonic in _DATA_BITS:
        _check_data(mnemonic, operands)
    else:
        _check_instruction(mnemonic, operands)
    rewritten = f"{prefix} {mnemonic} {', '.join(operand.text for operand in operands)}".strip()
    return rewritten, tuple(operand.label for operand in operands if operand.label is not None)


def _check_offered(prefix: str, mnemonic: str) -> None:
    if mnemonic.startswith(".") and mnemonic not in _DATA_BITS:
        raise RefusedStatement(f"there is no directive {mnemonic}, only {', '.join(_DATA_BITS)}")
    if mnemonic in _SHORT_BRANCHES:
        raise RefusedStatement(f"{mnemonic} is not offered; use cmp or test and a jump")
    # Before anything else, these prefixes make another instruction: rep lfence is incsspd.
    if prefix.startswith("rep") and mnemonic not in _FIXED_OPERANDS:
        raise RefusedStatement(f"{prefix} stands only before a string instruction")
    if prefix and mnemonic in _DATA_BITS:
        raise RefusedStatement(f"{prefix} cannot stand before {mnemonic}")


def _check_data(directive: str, operands: tuple[Operand, ...]) -> None:
    wants = "numbers or labels" if directive == ".quad" else "numbers"
    if not operands:
        raise RefusedStatement(f"{directive} wants {wants}")
    for operand in operands:
        if operand.number is not None:
            check_fits(operand.number, _DATA_BITS[directive])
        elif not (operand.is_bare_label and directive == ".quad"):
            raise RefusedStatement(f"{directive} wants {wants}")


def _no_register(name: str) -> str:
    """What to say of a word that stands where a register must."""
    if re.fullmatch(r"[xyz]?mm\d{1,2}|st\d?|k[0-7]", name, re.IGNORECASE):
        return f"there is no SSE, AVX or x87 here, so no {name}: integer registers only"
    return f"no register is called {name!r}, and a label cannot stand here"


def _check_instruction(mnemonic: str, operands: tuple[Operand, ...]) -> None:
    if mnemonic in _FIXED_OPERANDS and operands:
        raise RefusedStatement(f"{mnemonic} has fixed operands and is written without them")
    branches = mnemonic.startswith(("j", "call"))
    bits = next((operand.bits for operand in operands if operand.bits is not None), _UNSIZED_BITS)
    for operand in operands:
        if operand.is_bare_label and not branches and mnemonic != "movabs":
            raise RefusedStatement(_no_register(operand.label or ""))
        if operand.number is not None:
            if branches:
                raise RefusedStatement(f"{mnemonic} wants a label, not a number")
            check_fits(operand.number, bits)
