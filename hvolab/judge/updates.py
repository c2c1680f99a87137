"""Lost updates: stores to struct pages that did not arrive.

A store through a vmemmap address is a candidate when it lands in a frame after the copy that replaces that
frame there was made, or after the frame stopped backing the address. It is lost when, at the end of the
operation, the frame that backs the address does not hold its value. No stale entry is needed for that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from emu.addr import PAGE_BYTES, VirtAddr, page_start
from emu.events import Copied, Stored
from emu.memory import PhysicalMemory
from emu.paging.walk import Walk, Walked


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
        # Byte by byte: the store that may have been lost there, and the value it left.
        self._candidates: dict[int, tuple[Candidate, int]] = {}

    def copied(self, number: int, event: Copied) -> None:
        """A whole page was read through a vmemmap address: the copy may replace it there."""
        if event.length == PAGE_BYTES:
            self._copies[event.source_va, event.source_entry.frame_of(event.source_va)] = number

    def stored(self, number: int, event: Stored, backing: int | None) -> None:
        """A store through a vmemmap address that frame `backing` backs now. The last store decides."""
        page = page_start(event.va)
        frame = event.entry.frame_of(event.va)
        copied_at = self._copies.get((page, frame))
        candidate = None
        if copied_at is not None or frame != backing:
            candidate = Candidate(number, event, copied_at)
        for offset, value in enumerate(event.value.to_bytes(event.size, "little")):
            self._candidates.pop(event.va + offset, None)
            if candidate is not None:
                self._candidates[event.va + offset] = (candidate, value)

    def overwritten(self, va: VirtAddr, length: int) -> None:
        """A bulk store: what was stored there before no longer counts. It is no candidate itself."""
        for gone in [at for at in self._candidates if va <= at < va + length]:
            del self._candidates[gone]

    def lost(self) -> list[Candidate]:
        """The stores of which a byte is not where its address leads now. They are candidates no more."""
        lost = {
            candidate.event: candidate
            for va, (candidate, value) in self._candidates.items()
            if not self._arrived(VirtAddr(va), value)
        }
        self._candidates = {va: held for va, held in self._candidates.items() if held[0].event not in lost}
        return list(lost.values())

    def forget(self) -> None:
        """No operation is under way: no copy is about to replace anything."""
        self._candidates.clear()
        self._copies.clear()

    def _arrived(self, va: VirtAddr, value: int) -> bool:
        """Whether the byte is in the backing frame, or nothing backs the address."""
        found = self._peek(va)
        return not isinstance(found, Walk) or self._memory.read(found.pa, 1)[0] == value
