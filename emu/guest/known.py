"""What instructions do, looked up where it is known.

An instruction that the engine runs is a function of the registers, its own bytes, and what its operands hold:
it accesses nothing else. A search has the same ones run again and again, others around them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from emu.addr import PhysAddr
from emu.kept import Bookmark


class Given(NamedTuple):
    """All that an instruction depends on. `operands`: where each piece of one lies, and what is there."""

    registers: Bookmark
    code: bytes
    operands: tuple[tuple[PhysAddr, bytes], ...]


@dataclass(frozen=True, slots=True)
class Ran:
    """What it has done: the registers then, and what is in those pieces."""

    registers: Bookmark
    left: tuple[bytes, ...]


class KnownInstructions:
    """Of a search; at most so many."""

    def __init__(self, most: int = 1 << 16) -> None:
        self._most = most
        self._known: dict[Given, Ran] = {}

    def find(self, given: Given) -> Ran | None:
        return self._known.get(given)

    def learn(self, given: Given, ran: Ran) -> None:
        if len(self._known) < self._most:
            self._known[given] = ran
