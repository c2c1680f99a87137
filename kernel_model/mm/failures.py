"""Which page allocations fail, as data; and what the allocator knows of those that are asked for.

Positions count the allocations of every order and purpose since time zero, from 0: pages of vmemmap and page
tables, huge pages. An allocation learns its own only where it fails, or where somebody chooses: what nothing
depends on is no part of a routine's history.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, assert_never

from emu.cpu.condition import Word
from emu.cpu.ops import AddWords, Decide, ThisCpu, Transact
from emu.ledger import Ledger, LedgerEntry

ALLOCATIONS = Word("allocations so far")
_ASKED = LedgerEntry("allocations asked for")
_FREED_AT = LedgerEntry("allocations asked for when something was last freed")


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


ByPosition: TypeAlias = FailAt | FailFrom | FailUntilFreed
AllocationFailures: TypeAlias = NoFailures | ByPosition | EachMayFail


async def fails(failures: AllocationFailures, purpose: str) -> bool:
    """One more allocation is asked for on this CPU. Whether it fails. `settled` must follow."""
    cpu = await ThisCpu()
    match failures:
        case NoFailures():
            await Transact(AskFor(cpu))
            return False
        case FailAt() | FailFrom() | FailUntilFreed():
            # Which allocation fails depends on their order on all CPUs: a step that says so.
            await AddWords(((ALLOCATIONS, 1),))
            await Transact(AskFor(cpu))
            found = await Transact(FailsNow(cpu, failures))
            return found  # noqa: RET504 - mypy takes a returned await for Any
        case EachMayFail():
            await Transact(AskFor(cpu))
            position = await Transact(PositionOf(cpu))
            return await Decide(f"allocation {position}: {purpose}") == 1
        case _:
            assert_never(failures)


async def own_position() -> int:
    """Of the allocation asked for on this CPU."""
    position = await Transact(PositionOf(await ThisCpu()))
    return position  # noqa: RET504


async def settled() -> None:
    """The allocation asked for on this CPU has come to its end."""
    await Transact(Settle(await ThisCpu()))


async def note_free(failures: AllocationFailures) -> None:
    """Memory is about to come back, which may end a shortage."""
    if isinstance(failures, FailUntilFreed):
        # Which allocations fail depends on their order with this free: a step that says so.
        await AddWords(((ALLOCATIONS, 0),))
        await Transact(NoteFree())


def forget_allocations(ledger: Ledger) -> None:
    """From here on none was ever asked for."""
    ledger.remove(_ASKED)
    ledger.remove(_FREED_AT)


# -- what is known, and changed by transactions ------------------------------------------------------


def _own(cpu: int) -> LedgerEntry:
    """The position of the allocation that the CPU has asked for."""
    return LedgerEntry("position", cpu)


def _position(ledger: Ledger, cpu: int) -> int:
    position = ledger.get(_own(cpu), -1)
    assert position >= 0, f"cpu{cpu} has asked for no allocation"
    return position


@dataclass(frozen=True, slots=True)
class AskFor:
    cpu: int

    def __call__(self, ledger: Ledger) -> None:
        position = ledger.get(_ASKED, 0)
        ledger.set(_ASKED, position + 1)
        ledger.set(_own(self.cpu), position)


@dataclass(frozen=True, slots=True)
class FailsNow:
    """Whether the one that the CPU has asked for is one that fails."""

    cpu: int
    failures: ByPosition

    def __call__(self, ledger: Ledger) -> bool:
        position = _position(ledger, self.cpu)
        match self.failures:
            case FailAt(positions=positions):
                return position in positions
            case FailUntilFreed(position=first):
                return position >= first >= ledger.get(_FREED_AT, 0)
            case FailFrom(position=first):
                return position >= first
            case _:
                assert_never(self.failures)


@dataclass(frozen=True, slots=True)
class PositionOf:
    cpu: int

    def __call__(self, ledger: Ledger) -> int:
        return _position(ledger, self.cpu)


@dataclass(frozen=True, slots=True)
class Settle:
    cpu: int

    def __call__(self, ledger: Ledger) -> None:
        ledger.remove(_own(self.cpu))


@dataclass(frozen=True, slots=True)
class NoteFree:
    def __call__(self, ledger: Ledger) -> None:
        ledger.set(_FREED_AT, ledger.get(_ASKED, 0))
