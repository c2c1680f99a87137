"""What the page allocator knows by itself, and each thing that it does to that, as one transaction.

The free blocks (`free_area`), each CPU's list of single pages, how often a frame was freed, how many
allocations have been asked for. What is to be seen of it in memory is told by the results.
"""

from __future__ import annotations

from dataclasses import dataclass

from emu.addr import Pfn
from emu.ledger import Ledger, LedgerEntry
from kernel_model.mm.free_area import MAX_PAGE_ORDER, FreeArea, Relisted

PCP_BATCH = 16

ASKED = LedgerEntry("allocations asked for")
FREED_AT = LedgerEntry("allocations asked for when something was last freed")
_GENERATION = "generation"
_NONE: tuple[Pfn, ...] = ()


def pcp(cpu: int) -> LedgerEntry:
    """That CPU's list of single pages, the next one first. Only that CPU takes from it or adds to it."""
    return LedgerEntry("pcp", cpu)


def generation(pfn: int) -> LedgerEntry:
    """How often the block that begins at that frame was freed."""
    return LedgerEntry(_GENERATION, pfn)


@dataclass(frozen=True, slots=True)
class Position:
    """Of an allocation among all; and what the next one's was when something was last freed."""

    number: int
    freed_at: int


@dataclass(frozen=True, slots=True)
class NextPosition:
    """One more allocation is asked for."""

    def __call__(self, ledger: Ledger) -> Position:
        number = ledger.get(ASKED, 0)
        ledger.set(ASKED, number + 1)
        return Position(number, ledger.get(FREED_AT, 0))


@dataclass(frozen=True, slots=True)
class NoteFree:
    """Memory is about to come back."""

    def __call__(self, ledger: Ledger) -> None:
        ledger.set(FREED_AT, ledger.get(ASKED, 0))


@dataclass(frozen=True, slots=True)
class GenerationOf:
    pfn: Pfn

    def __call__(self, ledger: Ledger) -> int:
        return ledger.get(generation(self.pfn), 0)


@dataclass(frozen=True, slots=True)
class IsFree:
    """Whether the allocator holds that frame, on any list."""

    pfn: Pfn
    cpus: int

    def __call__(self, ledger: Ledger) -> bool:
        listed = any(self.pfn in ledger.get(pcp(cpu), _NONE) for cpu in range(self.cpus))
        return listed or self.pfn in FreeArea(ledger)


@dataclass(frozen=True, slots=True)
class TakeSingle:
    """The first page of the CPU's list; None when it is empty."""

    cpu: int

    def __call__(self, ledger: Ledger) -> Pfn | None:
        pages = ledger.get(pcp(self.cpu), _NONE)
        if not pages:
            return None
        ledger.set(pcp(self.cpu), pages[1:])
        return pages[0]


@dataclass(frozen=True, slots=True)
class Refill:
    """rmqueue_bulk(): put a batch of single pages on the CPU's list."""

    cpu: int

    def __call__(self, ledger: Ledger) -> Relisted:
        area = FreeArea(ledger)
        ledger.set(pcp(self.cpu), ledger.get(pcp(self.cpu), _NONE) + tuple(area.take_singles(PCP_BATCH)))
        return area.enter()


@dataclass(frozen=True, slots=True)
class GiveSingle:
    """A page is free, and its CPU's next one: it is of that generation now."""

    cpu: int
    pfn: Pfn
    generation: int

    def __call__(self, ledger: Ledger) -> None:
        ledger.set(generation(self.pfn), self.generation)
        ledger.set(pcp(self.cpu), (self.pfn, *ledger.get(pcp(self.cpu), _NONE)))


@dataclass(frozen=True, slots=True)
class TakenFrames:
    """The first frame, None where there was nothing to take; and what memory must be told."""

    pfn: Pfn | None
    relisted: Relisted


@dataclass(frozen=True, slots=True)
class TakeBlock:
    """A block of 2**`order` frames; above MAX_PAGE_ORDER any aligned run."""

    order: int

    def __call__(self, ledger: Ledger) -> TakenFrames:
        area = FreeArea(ledger)
        pfn = area.take(self.order) if self.order <= MAX_PAGE_ORDER else area.take_run(self.order)
        return TakenFrames(pfn, area.enter())


@dataclass(frozen=True, slots=True)
class TakeRange:
    """Just these frames, aligned, if they are all free."""

    pfn: Pfn
    order: int

    def __call__(self, ledger: Ledger) -> TakenFrames:
        area = FreeArea(ledger)
        pfn = self.pfn if area.take_range(self.pfn, self.order) else None
        return TakenFrames(pfn, area.enter())


@dataclass(frozen=True, slots=True)
class GiveBlock:
    """A block is free again, merged with what is free beside it: it is of that generation now."""

    pfn: Pfn
    order: int
    generation: int

    def __call__(self, ledger: Ledger) -> Relisted:
        area, size = FreeArea(ledger), min(self.order, MAX_PAGE_ORDER)
        ledger.set(generation(self.pfn), self.generation)
        for first in range(self.pfn, self.pfn + (1 << self.order), 1 << size):
            area.give(first, size)
        return area.enter()


def forget_history(ledger: Ledger) -> None:
    """From here on nothing was ever asked for or freed; what is free stays so."""
    ledger.remove(ASKED)
    ledger.remove(FREED_AT)
    for entry in [entry for entry in ledger.values if entry.name == _GENERATION]:
        ledger.remove(entry)
