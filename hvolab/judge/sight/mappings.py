"""Which addresses lead to which frame, followed store by store, and which pages have ever changed.

A frame that no address leads to any more, and that then is mapped for somebody else, or becomes a page table,
has changed hands as if it had been freed. One that comes back to the folio it was taken from has not, nor has
one that is shared on purpose: that was never without a mapping.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from struct import Struct

from emu.addr import PAGE_SHIFT, Pfn, PhysAddr
from emu.kept import Kept
from emu.memory import PhysicalMemory
from emu.paging.pte import Pte, PteBit
from emu.paging.walk import TOP_LEVEL
from hvolab.judge.sight.endings import NO_VERSION

_ENTRIES = 512
_WORDS = Struct("<512Q")
_TABLE = "a page table"


@dataclass(frozen=True, slots=True)
class AddressRange:
    """Virtual addresses [start, end), in bytes, whose uses are judged."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Remapped:
    """A frame that one entry more, or one less, leads to, and whether it has changed hands by that."""

    pfn: int
    changed_hands: bool = False


class Mappings(Kept):
    """Of one run, from time zero on. `holders`: (first page, end) of each folio's struct pages, by number."""

    kept = ("changed", "latest", "_tables", "_mapped", "_taken_from", "_holders")

    def __init__(
        self,
        memory: PhysicalMemory,
        root: Pfn,
        ranges: Iterable[AddressRange],
        holders: Iterable[tuple[int, int]],
    ) -> None:
        self.changed: set[int] = set()  # pages that have had more than one translation
        self.latest: set[int] = set()  # pages that the latest store has given another one
        self._memory = memory
        self._directories: dict[int, int] = {}  # frame of a page directory -> first page it translates
        self._tables: dict[int, int] = {}  # frame of a page table -> first page it translates
        self._blocks: list[int] = []  # first frames of the 2 MiB leaves of time zero
        self._mapped: Counter[int] = Counter()  # frame -> mappings, beside those of the blocks
        self._taken_from: dict[int, object] = {}  # frame -> who had it when its last mapping went
        self._holders = sorted(holders)
        for one in ranges:
            self._look_at(root, TOP_LEVEL, 0, one)

    def directories(self) -> tuple[int, ...]:
        """The first page, by number, that each page directory of the ranges translates."""
        return tuple(self._directories.values())

    def tables(self) -> tuple[int, ...]:
        """The first page that each page table translates."""
        return tuple(self._tables.values())

    def page_of(self, pa: PhysAddr) -> int | None:
        """The first page, by number, that an entry of a page table or page directory translates."""
        frame, index = pa >> PAGE_SHIFT, (pa >> 3) % _ENTRIES
        if frame in self._tables:
            return self._tables[frame] + index
        if frame in self._directories:
            return self._directories[frame] + index * _ENTRIES
        return None

    def add_holder(self, first: int, end: int) -> None:
        """These pages hold the struct pages of a folio from now on."""
        self._holders = sorted({*self._holders, (first, end)})

    def freed(self, pfn: int) -> None:
        """Who gets the frame next has it from the allocator."""
        self._taken_from.pop(pfn, None)

    def stored(self, pa: PhysAddr, before: bytes) -> list[Remapped]:
        """The latest store overwrote these bytes. `latest` then has the pages it has changed."""
        self.latest = set()
        frame = pa >> PAGE_SHIFT
        if frame not in self._tables and frame not in self._directories:
            return []
        found: list[Remapped] = []
        lost: list[tuple[Pfn, int]] = []
        for index, old, new in self._changes(pa, before):
            if frame in self._tables:
                found += self._leaf(self._tables[frame] + index, old, new, lost)
            else:
                found += self._directory(self._directories[frame] + index * _ENTRIES, old, new, lost)
        self.changed |= self.latest
        # Last: what one store moves from page to page was never without a mapping.
        return [self._loses(pfn, page) for pfn, page in lost] + found

    def _look_at(self, table: Pfn, level: int, first: int, wanted: AddressRange) -> None:
        span = _ENTRIES ** (level - 1)
        low, high = (wanted.start >> PAGE_SHIFT) & _PAGES, ((wanted.end - 1) >> PAGE_SHIFT) & _PAGES
        for index, word in enumerate(_WORDS.unpack(self._memory.read_frame(table))):
            page, entry = first + index * span, Pte(word)
            if not entry.present or page > high or page + span <= low:
                continue
            if level == 2:
                self._directories[table] = _sign_extended(first)
                self._attach(_sign_extended(page), entry)
            elif level > 2 and not entry.page_size:
                self._look_at(entry.pfn, level - 1, page, wanted)

    def _attach(self, page: int, entry: Pte) -> None:
        if entry.page_size:
            self._blocks.append(entry.pfn & ~(_ENTRIES - 1))
            return
        self._tables[entry.pfn] = page
        self._mapped.update(one.pfn for one in self._entries(entry.pfn) if one.present)

    def _entries(self, table: Pfn) -> Iterator[Pte]:
        return map(Pte, _WORDS.unpack(self._memory.read_frame(table)))

    def _changes(self, pa: PhysAddr, before: bytes) -> Iterator[tuple[int, Pte, Pte]]:
        """(index of the entry, old, new) of the entries that the store has changed so that it counts."""
        start, end = pa & ~7, (pa + len(before) + 7) & ~7
        now = self._memory.read(PhysAddr(start), end - start)
        then = now[: pa - start] + before + now[pa - start + len(before) :]
        for offset in range(0, end - start, 8):
            old = int.from_bytes(then[offset : offset + 8], "little")
            new = int.from_bytes(now[offset : offset + 8], "little")
            if (old ^ new) & ~NO_VERSION:
                yield ((start + offset) >> 3) & (_ENTRIES - 1), Pte(old), Pte(new)

    def _leaf(self, page: int, old: Pte, new: Pte, lost: list[tuple[Pfn, int]]) -> Iterator[Remapped]:
        self.latest.add(page)
        if old.present and new.present and old.pfn == new.pfn:
            return
        if old.present:
            lost.append((old.pfn, page))
        if new.present:
            yield self._gains(new.pfn, page)

    def _directory(self, first: int, old: Pte, new: Pte, lost: list[tuple[Pfn, int]]) -> Iterator[Remapped]:
        was, becomes = self._leaves(old), self._leaves(new)
        if old.present and not old.page_size:
            self._tables.pop(old.pfn, None)
            yield Remapped(old.pfn)
        if new.present and not new.page_size:
            self._tables[new.pfn] = first
            taken = self._count(new.pfn) == 0 and self._taken_from.get(new.pfn, _TABLE) != _TABLE
            yield Remapped(new.pfn, changed_hands=taken)
        for index, (one, other) in enumerate(zip(was, becomes, strict=True)):
            if one is not None and other is not None and not (one ^ other) & ~NO_VERSION:
                continue
            self.latest.add(first + index)
            if one is None or other is None or one.pfn != other.pfn:
                if one is not None:
                    lost.append((one.pfn, first + index))
                if other is not None:
                    yield self._gains(other.pfn, first + index)

    def _leaves(self, entry: Pte) -> list[Pte | None]:
        """What a directory entry makes of each of its 512 pages: the PTE that says the same."""
        if not entry.present:
            return [None] * _ENTRIES
        if entry.page_size:
            base = int(entry) & ~int(PteBit.PAGE_SIZE)
            return [Pte(base + (index << PAGE_SHIFT)) for index in range(_ENTRIES)]
        return [one if one.present else None for one in self._entries(entry.pfn)]

    def _count(self, pfn: int) -> int:
        return self._mapped[pfn] + sum(first <= pfn < first + _ENTRIES for first in self._blocks)

    def _loses(self, pfn: int, page: int) -> Remapped:
        self._mapped[pfn] -= 1
        if self._count(pfn) == 0:
            self._taken_from[pfn] = self._holder(page)
        return Remapped(pfn)

    def _gains(self, pfn: int, page: int) -> Remapped:
        holder = self._holder(page)
        hands = self._count(pfn) == 0 and self._taken_from.get(pfn, holder) != holder
        self._mapped[pfn] += 1
        return Remapped(pfn, hands)

    def _holder(self, page: int) -> object:
        """Whose struct pages lie there: a folio's, or nobody's but the page itself."""
        at = bisect_right(self._holders, (page, 1 << 64)) - 1
        if at >= 0 and self._holders[at][0] <= page < self._holders[at][1]:
            return self._holders[at]
        return page


_PAGES = (1 << 36) - 1  # of 48 bits of address


def _sign_extended(page: int) -> int:
    """The number of a page of the upper half, as addresses have it."""
    return page | (0xFFFF << 36) if page >> 35 else page
