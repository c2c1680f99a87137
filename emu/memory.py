"""Physical memory: one host buffer, shared by every CPU and by the engine, and the journal of its changes.

The buffer is anonymous memory that nobody reserves swap for, so it costs only what is touched; mapping all
of it into the engine costs the same at 32 GiB as at 128 MiB, less than 2 ms and no memory. Nothing is
translated here and nothing is refused except what lies outside: an address beyond the end is
`OutsideMemory`, never handed on.

The journal keeps what each store overwrote. It answers three questions that otherwise need three
mechanisms: what did this word hold at that moment, which store ended a translation, and how is the
machine put back to where it was.
"""

from __future__ import annotations

import ctypes
import mmap
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

from emu.addr import PAGE_BYTES, PAGE_SHIFT, Pfn, PhysAddr

MIB = 1 << 20
SMALLEST = 16 * MIB
LARGEST = 32768 * MIB

# Linux's MAP_NORESERVE, which the mmap module of Python 3.11 does not name: without it a kernel that counts
# what is promised refuses a buffer larger than the memory it has.
_MAP_NORESERVE = 0x4000

# A moment: the number of stores the journal held then. Store i happened between moments i and i + 1.
Moment = int


class OutsideMemory(Exception):
    """A physical access beyond the end of memory: a bus error on real hardware."""

    def __init__(self, pa: int, length: int, size: int) -> None:
        super().__init__(f"physical {pa:#x}+{length} is outside the {size:#x} bytes of memory")
        self.pa = pa


@dataclass(frozen=True, slots=True)
class Overwritten:
    """One store: where, and the bytes that were there before."""

    pa: PhysAddr
    old: bytes


class Journal:
    """What every store overwrote, oldest first. A store never leaves its frame.

    Indexed by frame as it happens, and by word where somebody asks about that word: then each store to its
    frame is looked at once, however often the word is asked about.
    """

    __slots__ = ("_by_frame", "_by_word", "_entries", "_looked_at")

    def __init__(self) -> None:
        self._entries: list[Overwritten] = []
        self._by_frame: dict[int, list[int]] = {}
        self._by_word: dict[int, list[int]] = {}
        self._looked_at: dict[int, int] = {}  # word -> how many of the stores to its frame

    @property
    def now(self) -> Moment:
        return len(self._entries)

    def frames(self) -> Iterator[int]:
        """The frames that have been stored to."""
        return (frame for frame, indexes in self._by_frame.items() if indexes)

    def stores_to(self, pfn: int) -> int:
        """How many stores the frame has seen."""
        return len(self._by_frame.get(pfn, ()))

    def record(self, pa: PhysAddr, old: bytes) -> None:
        self._by_frame.setdefault(pa >> PAGE_SHIFT, []).append(len(self._entries))
        self._entries.append(Overwritten(pa, old))

    def next_change(self, pa: PhysAddr, length: int, since: Moment) -> Moment | None:
        """Index of the first store at or after moment `since` that touched any of the bytes."""
        found: Moment | None = None
        for word in range(pa & ~7, pa + length, 8):
            indexes = self._touching(word)
            for at in range(bisect_left(indexes, since), len(indexes)):
                if found is not None and indexes[at] >= found:
                    break
                if _overlap(self._entries[indexes[at]], pa, length):
                    found = indexes[at]
                    break
        return found

    def last_change(self, pa: PhysAddr, length: int, before: Moment) -> Moment | None:
        """Index of the last store before moment `before` that touched any of the bytes."""
        found: Moment | None = None
        for word in range(pa & ~7, pa + length, 8):
            indexes = self._touching(word)
            for at in range(bisect_left(indexes, before) - 1, -1, -1):
                if found is not None and indexes[at] <= found:
                    break
                if _overlap(self._entries[indexes[at]], pa, length):
                    found = indexes[at]
                    break
        return found

    def stores_to_word(self, pa: PhysAddr, since: Moment) -> Iterator[Overwritten]:
        """The stores at or after `since` that touched the aligned 8-byte word, oldest first."""
        indexes = self._touching(pa)
        for at in range(bisect_left(indexes, since), len(indexes)):
            yield self._entries[indexes[at]]

    def since(self, moment: Moment) -> Iterator[Overwritten]:
        """The stores since `moment`, newest first."""
        return reversed(self._entries[moment:])

    def cut(self, moment: Moment) -> None:
        """Forget what was stored since then."""
        for entry in self._entries[: moment - 1 if moment else None : -1]:
            self._by_frame[entry.pa >> PAGE_SHIFT].pop()
        del self._entries[moment:]
        for word, indexes in self._by_word.items():
            del indexes[bisect_left(indexes, moment) :]
            seen = len(self._by_frame.get(word >> PAGE_SHIFT, ()))
            self._looked_at[word] = min(self._looked_at.get(word, 0), seen)

    def forget(self) -> None:
        """Start again: this is the new moment 0."""
        self._entries.clear()
        self._by_frame.clear()
        self._by_word.clear()
        self._looked_at.clear()

    def _touching(self, word: int) -> list[int]:
        """The indexes of the stores that touched an aligned word."""
        indexes = self._by_frame.get(word >> PAGE_SHIFT)
        if indexes is None:
            return []
        looked_at = self._looked_at.get(word, 0)
        found = self._by_word.setdefault(word, [])
        if looked_at < len(indexes):
            for at in range(looked_at, len(indexes)):
                if _overlap(self._entries[indexes[at]], word, 8):
                    found.append(indexes[at])
            self._looked_at[word] = len(indexes)
        return found


def _overlap(store: Overwritten, pa: int, length: int) -> bool:
    return store.pa < pa + length and pa < store.pa + len(store.old)


class PhysicalMemory:
    """`size` bytes from physical address 0, a multiple of 2 MiB between 16 MiB and 32 GiB."""

    def __init__(self, size: int) -> None:
        if not SMALLEST <= size <= LARGEST or size % (2 * MIB):
            raise ValueError(f"memory size {size:#x}: want a multiple of 2 MiB, 16 MiB to 32 GiB")
        self.size = size
        self.journal = Journal()
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        self._map = mmap.mmap(-1, size, flags=flags)

    @property
    def frames(self) -> int:
        """Number of 4 KiB frames."""
        return self.size >> PAGE_SHIFT

    def host_address(self) -> int:
        """Where the buffer lies in this process, for the engine to map. Valid while this object lives."""
        return ctypes.addressof(ctypes.c_char.from_buffer(self._map))

    def read(self, pa: PhysAddr, length: int) -> bytes:
        if pa < 0 or pa + length > self.size:
            raise OutsideMemory(pa, length, self.size)
        return self._map[pa : pa + length]

    def read_word(self, pa: PhysAddr) -> int:
        """The 8 bytes at `pa`, little-endian."""
        return int.from_bytes(self.read(pa, 8), "little")

    def write(self, pa: PhysAddr, data: bytes) -> None:
        """Store `data`, which must not cross a frame boundary, and journal what it overwrote."""
        length = len(data)
        if pa < 0 or pa + length > self.size:
            raise OutsideMemory(pa, length, self.size)
        if (pa & (PAGE_BYTES - 1)) + length > PAGE_BYTES:
            raise ValueError(f"store of {length} bytes at {pa:#x} crosses a frame boundary")
        self.journal.record(pa, self._map[pa : pa + length])
        self._map[pa : pa + length] = data

    def word_at(self, pa: PhysAddr, moment: Moment) -> int:
        """The aligned 8-byte word as it was at that moment."""
        word = bytearray(self.read(pa, 8))
        later: list[Overwritten] = []
        for store in self.journal.stores_to_word(pa, moment):
            later.append(store)
            if store.pa <= pa and pa + 8 <= store.pa + len(store.old):
                break  # it overwrote all of it: what came after does not matter
        for store in reversed(later):
            first, last = max(pa, store.pa), min(pa + 8, store.pa + len(store.old))
            word[first - pa : last - pa] = store.old[first - store.pa : last - store.pa]
        return int.from_bytes(word, "little")

    def write_word(self, pa: PhysAddr, value: int) -> None:
        self.write(pa, value.to_bytes(8, "little"))

    def read_frame(self, pfn: Pfn) -> bytes:
        return self.read(PhysAddr(pfn << PAGE_SHIFT), PAGE_BYTES)

    def load_image(self, pa: PhysAddr, data: bytes | bytearray) -> None:
        """Put bytes of any length there without journaling: for building the state at time zero."""
        if pa < 0 or pa + len(data) > self.size:
            raise OutsideMemory(pa, len(data), self.size)
        self._map[pa : pa + len(data)] = data

    def undo(self, moment: Moment) -> None:
        """Put memory back to what it was at `moment`. Only moment 0 may be followed by `journal.forget()`."""
        for entry in self.journal.since(moment):
            self._map[entry.pa : entry.pa + len(entry.old)] = entry.old
