"""What the page allocator knows by itself, and each thing that it does to that, as one transaction.

The free blocks (`free_area`), each CPU's list of single pages, how often a frame was freed. What is to be
seen of it in memory is told by the results.
"""

from __future__ import annotations

from dataclasses import dataclass

from emu.addr import Pfn
from emu.ledger import Ledger, LedgerEntry
from kernel_model.mm.free_area import MAX_PAGE_ORDER, FreeArea, Relisted

PCP_BATCH = 16

_GENERATION = "generation"
_LARGEST_LIST = 1 << 32


def pcp_count(cpu: int) -> LedgerEntry:
    """How many single pages are on that CPU's list. Only that CPU takes from it or adds to it."""
    return LedgerEntry("pcp count", cpu)


def pcp_page(cpu: int, place: int) -> LedgerEntry:
    """The page in that place of the CPU's list, counted from its end: it grows and shrinks at its front.

    An entry for each, so that a change costs the same however long the list is.
    """
    return LedgerEntry("pcp", cpu * _LARGEST_LIST + place)


def on_a_list(pfn: int) -> LedgerEntry:
    """Whether that frame is on the list of some CPU."""
    return LedgerEntry("on a list", pfn)


def generation(pfn: int) -> LedgerEntry:
    """How often the block that begins at that frame was freed."""
    return LedgerEntry(_GENERATION, pfn)


@dataclass(frozen=True, slots=True)
class GenerationOf:
    pfn: Pfn

    def __call__(self, ledger: Ledger) -> int:
        return ledger.get(generation(self.pfn), 0)


@dataclass(frozen=True, slots=True)
class IsFree:
    """Whether the allocator holds that frame, on any list."""

    pfn: Pfn

    def __call__(self, ledger: Ledger) -> bool:
        return ledger.get(on_a_list(self.pfn), False) or self.pfn in FreeArea(ledger)


@dataclass(frozen=True, slots=True)
class TakeSingle:
    """The first page of the CPU's list; None when it is empty."""

    cpu: int

    def __call__(self, ledger: Ledger) -> Pfn | None:
        left = ledger.get(pcp_count(self.cpu), 0) - 1
        if left < 0:
            return None
        pfn = ledger.get(pcp_page(self.cpu, left), Pfn(0))
        ledger.set(pcp_count(self.cpu), left)
        ledger.remove(pcp_page(self.cpu, left))
        ledger.remove(on_a_list(pfn))
        return pfn


@dataclass(frozen=True, slots=True)
class Refill:
    """rmqueue_bulk(): put a batch of single pages on the CPU's list, the lowest in front."""

    cpu: int

    def __call__(self, ledger: Ledger) -> Relisted:
        area = FreeArea(ledger)
        for pfn in reversed(area.take_singles(PCP_BATCH)):
            _put_in_front(ledger, self.cpu, pfn)
        return area.enter()


@dataclass(frozen=True, slots=True)
class GiveSingle:
    """A page is free, and its CPU's next one: it is of that generation now."""

    cpu: int
    pfn: Pfn
    generation: int

    def __call__(self, ledger: Ledger) -> None:
        ledger.set(generation(self.pfn), self.generation)
        _put_in_front(ledger, self.cpu, self.pfn)


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


def _put_in_front(ledger: Ledger, cpu: int, pfn: Pfn) -> None:
    count = ledger.get(pcp_count(cpu), 0)
    ledger.set(pcp_count(cpu), count + 1)
    ledger.set(pcp_page(cpu, count), pfn)
    ledger.set(on_a_list(pfn), True)


def forget_generations(ledger: Ledger) -> None:
    """From here on nothing was ever freed; what is free stays so."""
    for entry in [entry for entry in ledger.values if entry.name == _GENERATION]:
        ledger.remove(entry)
