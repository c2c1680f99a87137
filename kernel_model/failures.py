"""Which page allocations fail, as data. Positions count all allocations since time zero, from 0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, assert_never

from emu.ops import Decide


@dataclass(frozen=True, slots=True)
class NoFailures:
    """Allocations fail only when memory is exhausted."""


@dataclass(frozen=True, slots=True)
class FailAt:
    """The allocations at these positions fail."""

    positions: frozenset[int]


@dataclass(frozen=True, slots=True)
class FailFrom:
    """Every allocation from this position on fails."""

    position: int


@dataclass(frozen=True, slots=True)
class EachMayFail:
    """Every allocation is a free choice: option 1 fails."""


AllocationFailures: TypeAlias = NoFailures | FailAt | FailFrom | EachMayFail


async def fails(failures: AllocationFailures, position: int, purpose: str) -> bool:
    """Whether the allocation at that position fails."""
    match failures:
        case NoFailures():
            return False
        case FailAt(positions=positions):
            return position in positions
        case FailFrom(position=first):
            return position >= first
        case EachMayFail():
            return await Decide(f"allocation {position}: {purpose}") == 1
        case _:
            assert_never(failures)
