"""What memory holds, as one number: equal contents have equal numbers, however they came about.

The number says how memory differs from what it was at time zero: a sum over the frames that have been stored
to. Of each store only its frame is looked at again, and that when somebody asks.
"""

from __future__ import annotations

from hashlib import blake2b

from emu.addr import PAGE_BYTES, PAGE_MASK, PAGE_SHIFT, Pfn
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
        if frame not in self._at_zero:
            self._look_back()
        return self._at_zero[frame]

    def _look_back(self) -> None:
        """What the frames that have been stored to held at time zero."""
        journal = self._memory.journal
        new = [frame for frame in journal.frames() if frame not in self._at_zero]
        contents = {frame: bytearray(self._memory.read_frame(Pfn(frame))) for frame in new}
        for store in journal.since(0):
            content = contents.get(store.pa >> PAGE_SHIFT)
            if content is not None:
                at = store.pa & PAGE_MASK
                content[at : at + len(store.old)] = store.old
        for frame, content in contents.items():
            self._at_zero[frame] = self._digest(frame, bytes(content))

    def _digest(self, frame: int, content: bytes) -> int:
        assert len(content) == PAGE_BYTES
        digest = blake2b(content, digest_size=_BYTES, salt=frame.to_bytes(8, "little"))
        return int.from_bytes(digest.digest(), "little")
