"""Lost updates: stores to struct pages that did not arrive.

A store through a vmemmap address is a candidate when it lands in a frame after the copy that replaces that
frame there was made, or after the frame stopped backing the address. It is lost when, at the end of the
operation, the frame that backs the address does not hold its value. No stale entry is needed for that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from emu.addr import PAGE_BYTES, PhysAddr, VirtAddr, page_start
from emu.events import Copied, Stored
from emu.memory import PhysicalMemory
from emu.walk import Walk, Walked


@dataclass(frozen=True, slots=True)
class Candidate:
    """A store that may get lost. `copied_at` is the event of the copy that had read the word before."""

    event: int
    store: Stored
    copied_at: int | None


class Updates:
    """Follows copies of vmemmap pages and stores into what they replace. `peek` has no side effects."""

    def __init__(self, memory: PhysicalMemory, peek: Callable[[VirtAddr], Walked]) -> None:
        self._memory = memory
        self._peek = peek
        # (page of vmemmap, frame it showed when it was copied) -> event of the copy
        self._copies: dict[tuple[int, int], int] = {}
        self._candidates: dict[int, Candidate] = {}

    def copied(self, number: int, event: Copied) -> None:
        """A whole page was read through a vmemmap address: the copy may replace it there."""
        if event.length == PAGE_BYTES:
            self._copies[event.source_va, event.source_entry.frame_of(event.source_va)] = number

    def stored(self, number: int, event: Stored, backing: int | None) -> None:
        """A store through a vmemmap address that frame `backing` backs now. The last store decides."""
        page = page_start(event.va)
        frame = event.entry.frame_of(event.va)
        copied_at = self._copies.get((page, frame))
        self._candidates.pop(event.va, None)
        if copied_at is not None or frame != backing:
            self._candidates[event.va] = Candidate(number, event, copied_at)

    def lost(self) -> list[Candidate]:
        """The candidates whose value is not where the address leads now. They are candidates no more."""
        lost = [c for c in self._candidates.values() if self._arrived(c.store) is False]
        for candidate in lost:
            del self._candidates[candidate.store.va]
        return lost

    def forget(self) -> None:
        """No operation is under way: no copy is about to replace anything."""
        self._candidates.clear()
        self._copies.clear()

    def _arrived(self, store: Stored) -> bool | None:
        """Whether the value is in the backing frame; None when nothing backs the address."""
        found = self._peek(store.va)
        if not isinstance(found, Walk):
            return None
        return int.from_bytes(self._memory.read(PhysAddr(found.pa), store.size), "little") == store.value
