"""What memory holds, as one number: equal contents have equal numbers, however they came about.

The number says how memory differs from what it was at time zero: a sum over the frames that have been stored
to. Of each store only its frame is looked at again, and that when somebody asks.
"""

from __future__ import annotations

from hashlib import blake2b

from emu.addr import PAGE_BYTES, PAGE_SHIFT, Pfn, frame_start
from emu.memory import PhysicalMemory

_BYTES = 16  # of a digest: two contents that share one are not to be expected
_MODULUS = 1 << 8 * _BYTES


class Contents:
    """Of one memory. What it was at time zero must stay what it is."""

    def __init__(self, memory: PhysicalMemory) -> None:
        self._memory = memory
        self._at_zero: dict[int, int] = {}
        self._known: dict[int, tuple[int, int]] = {}  # frame -> (stores it had seen, what it adds)
        self._sum = 0

    def number(self) -> int:
        """What memory differs by from time zero. 0: not at all."""
        journal = self._memory.journal
        for frame in journal.frames():
            stores = journal.stores_to(frame)
            known, adds = self._known.get(frame, (0, 0))
            if known != stores:
                now = self._digest(frame, self._memory.read_frame(Pfn(frame))) - self._zero(frame)
                self._known[frame] = (stores, now)
                self._sum = (self._sum + now - adds) % _MODULUS
        return self._sum

    def forget(self) -> None:
        """Memory has been put back to what it was."""
        self._known.clear()
        self._sum = 0

    def _zero(self, frame: int) -> int:
        found = self._at_zero.get(frame)
        if found is None:
            content = bytearray(self._memory.read_frame(Pfn(frame)))
            for store in self._memory.journal.since(0):
                if store.pa >> PAGE_SHIFT == frame:
                    at = store.pa - frame_start(Pfn(frame))
                    content[at : at + len(store.old)] = store.old
            found = self._at_zero[frame] = self._digest(frame, bytes(content))
        return found

    def _digest(self, frame: int, content: bytes) -> int:
        assert len(content) == PAGE_BYTES
        digest = blake2b(content, digest_size=_BYTES, salt=frame.to_bytes(8, "little"))
        return int.from_bytes(digest.digest(), "little")
