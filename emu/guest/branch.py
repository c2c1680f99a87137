"""Where a branch goes: a target that is not canonical is the branch's own fault, before anything happens.

#GP(0) is raised at the CALL, JMP, RET, Jcc or LOOP, and nothing is pushed or popped (SDM 2A, each of them
under 64-Bit Mode Exceptions). Code that merely runs on past the last canonical address faults at its fetch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class ToAddress:
    """JMP and CALL with a displacement."""

    va: int


@dataclass(frozen=True, slots=True)
class ToRegister:
    """JMP and CALL through a register: its number in REGISTERS."""

    number: int


@dataclass(frozen=True, slots=True)
class ToLoaded:
    """JMP and CALL through memory, and RET: to what the instruction reads."""


@dataclass(frozen=True, slots=True)
class Conditional:
    """Jcc, JRCXZ and LOOP: there, or on to the next instruction."""

    va: int


Branch: TypeAlias = ToAddress | ToRegister | ToLoaded | Conditional
