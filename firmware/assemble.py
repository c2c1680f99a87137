"""From program text to machine code: the only module that knows the assembler, Keystone.

Promises: the code is that of the text alone, linked at the origin; the label addresses are the assembler's
own; the same text and origin give the same bytes; every refusal is an AssemblyError. The language is that
of `firmware.syntax`. Does not promise every x86 instruction: Keystone has none younger than 2016 (`rdpid`,
`endbr64`); write them with `.byte`.
"""

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from keystone import KS_ARCH_X86, KS_MODE_64, Ks, KsError
from keystone.keystone_const import KS_ERR_ASM_INVALIDOPERAND, KS_ERR_ASM_MNEMONICFAIL

from firmware.assembly_error import AssemblyError
from firmware.operand import LABEL_PREFIX
from firmware.program import PAGE_SIZE
from firmware.syntax import SourceLine, parse

__all__ = ["Assembled", "AssemblyError", "assemble"]

_REASONS: Mapping[int, str] = MappingProxyType(
    {
        KS_ERR_ASM_MNEMONICFAIL: "the assembler knows no such instruction",
        KS_ERR_ASM_INVALIDOPERAND: "these operands do not fit the instruction",
    }
)


@dataclass(frozen=True, slots=True)
class Assembled:
    """Machine code and the absolute virtual address of each label, in source order."""

    code: bytes
    labels: Mapping[str, int] = field(hash=False)


def assemble(source: str, origin: int, name: str = "<source>") -> Assembled:
    """Assemble `source` to run at virtual address `origin`, a page start; `name` is what errors call it.

    Raises AssemblyError when the origin is not a 64-bit page start, the text is not in the language of
    `firmware.syntax`, has no statement, defines a label twice or uses one it does not define, the assembler
    refuses a statement, or the code does not fit one page.
    """
    if not 0 <= origin < 1 << 64 or origin % PAGE_SIZE:
        raise AssemblyError(name, f"origin {origin:#x} is not the start of a {PAGE_SIZE}-byte page")
    lines = parse(source, name)
    text = "\n".join(_labelled(line.labels, line.statement) for line in lines)
    try:
        code = _keystone(text, origin)
        labels = _addresses(text, origin, code, [label for line in lines for label in line.labels])
    except _RefusedText as refused:
        raise _at_fault(lines, origin, name, refused) from None
    if len(code) > PAGE_SIZE:
        raise AssemblyError(name, f"{len(code)} bytes of code; one page of {PAGE_SIZE} is all there is")
    return Assembled(code, MappingProxyType(labels))


class _RefusedText(Exception):
    """Keystone did not assemble a text; carries the reason in our words."""


def _keystone(text: str, origin: int) -> bytes:
    # A fresh engine each time, so that nothing of one text can reach the next.
    try:
        code, _ = Ks(KS_ARCH_X86, KS_MODE_64).asm(text, origin, as_bytes=True)
    except KsError as error:
        reason = _REASONS.get(error.errno, f"the assembler says: {error}")
        raise _RefusedText(reason) from None
    if not code:
        # Keystone's way to say that it gave up without an error.
        raise _RefusedText("the assembler made nothing of it")
    return bytes(code)


def _labelled(labels: Iterable[str], statement: str) -> str:
    return "".join(f"{LABEL_PREFIX}{label}: " for label in labels) + statement


def _addresses(text: str, origin: int, code: bytes, labels: list[str]) -> dict[str, int]:
    """The virtual address of each label.

    Keystone has no symbol table to ask, so the labels are assembled as data behind the code and cut off
    again; code that comes out different would show that the question changed the answer.
    """
    if not labels:
        return {}
    table = "".join(f"\n.quad {LABEL_PREFIX}{label}" for label in labels)
    both = _keystone(text + table, origin)
    if both[: len(code)] != code or len(both) != len(code) + 8 * len(labels):
        raise RuntimeError("the assembler gave other code when asked for the label addresses")
    return dict(zip(labels, struct.unpack(f"<{len(labels)}Q", both[len(code) :]), strict=True))


def _at_fault(lines: tuple[SourceLine, ...], origin: int, name: str, whole: _RefusedText) -> AssemblyError:
    """The error for the first statement that Keystone refuses: Keystone itself does not say which."""
    for line in lines:
        if not line.statement:
            continue
        # The labels it uses stand on the statement itself: it can then fail only for what it says.
        try:
            _keystone(_labelled(dict.fromkeys(line.uses), line.statement), origin)
        except _RefusedText as refused:
            return AssemblyError(name, str(refused), line.number, line.written)
    return AssemblyError(name, str(whole))
