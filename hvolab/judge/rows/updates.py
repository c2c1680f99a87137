"""Lost updates, row 5: stores to struct pages that did not arrive.

A store through a vmemmap address is a candidate when it lands in a frame after the copy that replaces that
frame there was made, or after the frame stopped backing the address. It is lost when, at the end of the
operation that copied the page or changed its translation, or at the end of the run, the frame that backs the
address does not hold its value. No stale entry is needed for that.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TypeAlias

from emu.addr import PAGE_BYTES, PAGE_SHIFT, VirtAddr
from emu.events import Annotated, Copied, Filled, MachineEvent, Stored
from emu.paging.tlb import TlbEntry
from hvolab.judge.describe import place_of
from hvolab.judge.sight.cells import Bags
from hvolab.judge.sight.sight import Sight
from hvolab.judge.tlb_rows import tlb_rows
from hvolab.judge.told import Told
from hvolab.judge.verdict import Finding, Verdict
from kernel_model.core.events import OperationReturned


@dataclass(frozen=True, slots=True)
class Candidate:
    """A store that may get lost. `copied_at` is the event of the copy that had read the word before."""

    event: int
    store: Stored
    copied_at: int | None


@dataclass(frozen=True, slots=True)
class _Byte:
    """What a candidate left at one address."""

    va: VirtAddr
    candidate: Candidate
    value: int

    def state(self) -> Hashable:
        """Where it must arrive, and who stored it; whether the word had been copied is told in words."""
        store = self.candidate.store
        return (self.va, self.value, store.cpu, store.va, store.size, store.value, store.site)


_Bytes: TypeAlias = tuple[_Byte, ...]
_NO_COPY: int | None = None
_NO_BYTES: _Bytes = ()


def _was_copied(event: int | None) -> Hashable:
    return event is not None


def _states(stored: _Bytes) -> Hashable:
    return tuple(one.state() for one in stored)


class Updates:
    """Follows copies of vmemmap pages and stores into what they replace."""

    def __init__(self, sight: Sight, told: Told) -> None:
        self._sight = sight
        self._told = told
        # By page number and the frame it showed: the event in which it was copied.
        self._copied = sight.cells("pages copied", _NO_COPY, _was_copied)
        # By address / 8: the bytes there that a candidate stored last.
        self._bytes = sight.cells("stores that may get lost", _NO_BYTES, _states)
        # By page number: the words (address / 8) in it that have such bytes.
        self._words: Bags[int] = sight.bags("words with stores that may get lost")
        # By CPU: the (page number, frame) it has copied since an operation of its returned.
        self._copies: Bags[tuple[int, int]] = sight.bags("pages copied by a CPU")

    def observe(self, number: int, event: MachineEvent) -> None:
        match event:
            case Stored(va=va) if self._sight.is_judged(va):
                self._stored(number, event)
            case Copied():
                if self._sight.is_judged(event.to):
                    self._overwritten(event.to, event.length)
                if self._sight.is_judged(event.source_va) and event.length == PAGE_BYTES:
                    page, frame = event.source_va >> PAGE_SHIFT, event.source_entry.frame_of(event.source_va)
                    self._copied.set(number, page, frame)
                    self._copies.add((page, frame), event.cpu)
            case Filled(va=va, length=length) if self._sight.is_judged(va):
                self._overwritten(va, length)
            case Annotated(payload=OperationReturned(function=function, begun=begun)):
                self._returned(event.cpu, function, begun)
            case _:
                pass  # no store to a struct page, no copy of one, no end of an operation

    def finish(self) -> None:
        """The run is over: settle what was left open."""
        for page in self._words.numbers():
            self._settle(page, "at the end of the run")

    def _stored(self, number: int, event: Stored) -> None:
        """The last store to a byte decides what must arrive there."""
        frame = event.entry.frame_of(event.va)
        copied_at = self._copied.get(event.va >> PAGE_SHIFT, frame)
        candidate = None
        if copied_at is not None or frame != self._backing(event.va, event.entry):
            candidate = Candidate(number, event, copied_at)
        stored = {
            event.va + offset: value
            for offset, value in enumerate(event.value.to_bytes(event.size, "little"))
        }
        for word in range(event.va >> 3, (event.va + event.size + 7) >> 3):
            before = self._bytes.get(word)
            kept = tuple(one for one in before if one.va not in stored)
            if candidate is not None:
                kept += tuple(
                    _Byte(VirtAddr(va), candidate, value) for va, value in stored.items() if va >> 3 == word
                )
                self._words.add(word, (word << 3) >> PAGE_SHIFT)
            if kept != before:
                self._bytes.set(kept, word)

    def _backing(self, va: VirtAddr, entry: TlbEntry) -> int | None:
        """The frame that backs the address now, without a walk where the entry used is current."""
        if self._sight.ending_of(va, entry) is None:
            return entry.frame_of(va)
        found = self._sight.walk(va)
        return None if found is None else found.pa >> PAGE_SHIFT

    def _overwritten(self, va: VirtAddr, length: int) -> None:
        """A bulk store: what was stored there before no longer counts. It is no candidate itself."""
        for word in self._words.all(va >> PAGE_SHIFT):
            before = self._bytes.get(word)
            kept = tuple(one for one in before if not va <= one.va < va + length)
            if kept != before:
                self._bytes.set(kept, word)

    def _returned(self, cpu: int, function: str, begun: int) -> None:
        """An operation is over: what it copied and what it remapped is as it will be."""
        copies = self._copies.all(cpu)
        for page in sorted({page for page, _ in copies} | self._sight.changed_by(begun)):
            self._settle(page, f"when {function} returned")
        for page, frame in copies:
            self._copied.set(None, page, frame)
        if copies:
            self._copies.clear(cpu)

    def _settle(self, page: int, when: str) -> None:
        """Tell what is lost in that page. What has arrived is no candidate any more either."""
        words = self._words.all(page)
        if not words:
            return
        lost: dict[int, Candidate] = {}
        for word in words:
            for one in self._bytes.get(word):
                if not self._arrived(one):
                    lost[one.candidate.event] = one.candidate
            self._bytes.set(_NO_BYTES, word)
        self._words.clear(page)
        for event in sorted(lost):
            self._tell(lost[event], when)

    def _arrived(self, one: _Byte) -> bool:
        """Whether the byte is in the backing frame, or nothing backs the address."""
        found = self._sight.walk(one.va)
        return found is None or self._sight.read(found.pa, 1)[0] == one.value

    def _tell(self, candidate: Candidate, when: str) -> None:
        store = candidate.store
        frame = store.entry.frame_of(store.va)
        why = [f"cpu{store.cpu} stored {store.value:#x} over {store.old:#x} in pfn {frame:#x}"]
        if candidate.copied_at is not None:
            why.append(f"the page had been copied at event {candidate.copied_at}, before the store")
        found = self._sight.walk(store.va)
        if found is not None:
            now = int.from_bytes(self._sight.read(found.pa, store.size), "little")
            why.append(f"{when} the address leads to pfn {found.pa >> PAGE_SHIFT:#x}, which holds {now:#x}")
        where = place_of(store.cpu, store.va, store.site)
        cause = "the store went to a frame that no longer backs the address"
        rows = tlb_rows(self._sight, store.va)
        self._told.finding(
            Finding(
                Verdict.LOST_UPDATE,
                (),
                where,
                candidate.event,
                cause,
                tuple(why),
                frame,
                tlbs=rows,
                used=store.entry,
            )
        )
