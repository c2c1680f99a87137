"""Which page allocations fail, as data.

Positions count the allocations of every order and purpose since time zero, from 0: pages of vmemmap and page
tables, huge pages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, assert_never

from emu.cpu.ops import Decide


@dataclass(frozen=True, slots=True)
class NoFailures:
    """Allocations fail only when memory is exhausted."""


@dataclass(frozen=True, slots=True)
class FailAt:
    """The allocations at these positions fail, and no other."""

    positions: frozenset[int]


@dataclass(frozen=True, slots=True)
class FailFrom:
    """Every allocation from this position on fails, for ever."""

    position: int


@dataclass(frozen=True, slots=True)
class FailUntilFreed:
    """Every allocation from this position on fails until somebody frees a page or block.

    What was freed before the first of them failed does not help.
    """

    position: int


@dataclass(frozen=True, slots=True)
class EachMayFail:
    """Every allocation is a free choice: option 1 fails."""


AllocationFailures: TypeAlias = NoFailures | FailAt | FailFrom | FailUntilFreed | EachMayFail


async def fails(failures: AllocationFailures, position: int, freed_at: int, purpose: str) -> bool:
    """Whether the allocation at that position fails.

    `freed_at`: how many allocations had been asked for when something was last freed; 0 before the first.
    """
    match failures:
        case NoFailures():
            return False
        case FailAt(positions=positions):
            return position in positions
        case FailUntilFreed(position=first):
            return position >= first >= freed_at
        case FailFrom(position=first):
            return position >= first
        case EachMayFail():
            return await Decide(f"allocation {position}: {purpose}") == 1
        case _:
            assert_never(failures)
