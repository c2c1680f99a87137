"""Whose a frame is, and since when it is not somebody's any more."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from emu.kept import Kept
from emu.memory import Moment


class Loss(Enum):
    """How a frame was lost by who had it."""

    FREED = "was freed"
    REUSED = "was put to another use"


@dataclass(frozen=True, slots=True)
class Lost:
    """A frame was lost by its holder, after so many stores, at that event."""

    how: Loss
    moment: Moment
    event: int


class Frames(Kept):
    """What has become of each frame in one run. What never was allocated or freed in it is not known here."""

    kept = ("_lost", "_free")

    def __init__(self) -> None:
        self._lost: dict[int, Lost] = {}
        self._free: set[int] = set()

    def allocated(self, frames: range) -> None:
        self._free.difference_update(frames)

    def freed(self, frames: range, moment: Moment, event: int) -> None:
        self._lost.update(dict.fromkeys(frames, Lost(Loss.FREED, moment, event)))
        self._free.update(frames)

    def reused(self, pfn: int, moment: Moment, event: int) -> None:
        """It was taken from one use and put to another, without having been freed."""
        self._lost[pfn] = Lost(Loss.REUSED, moment, event)

    def last_lost(self, pfn: int) -> Lost | None:
        """When the frame was last lost by who had it."""
        return self._lost.get(pfn)

    def freed_and_free(self, pfn: int) -> Lost | None:
        """When the frame was freed, if nobody has allocated it since."""
        return self._lost[pfn] if pfn in self._free else None
