"""A watcher of Sight that notes what it is told, in order."""

from __future__ import annotations

from hvolab.judge.sight.resource import Touched


class Noting:
    """`noted`: (verb, what) for each call since it was last `taken`."""

    def __init__(self) -> None:
        self.noted: list[tuple[str, object]] = []

    def taken(self) -> list[tuple[str, object]]:
        """What was noted; from now on it begins anew."""
        noted, self.noted = self.noted, []
        return noted

    def reads(self, touched: Touched) -> None:
        self.noted.append(("reads", touched))

    def writes(self, touched: Touched) -> None:
        self.noted.append(("writes", touched))

    def marks(self, touched: Touched) -> None:
        self.noted.append(("marks", touched))

    def reads_translation(self, page: int) -> None:
        self.noted.append(("reads translation", page))

    def lost(self, frame: int) -> None:
        self.noted.append(("lost", frame))

    def flush_begun(self, start: int, end: int) -> None:
        self.noted.append(("flush begun", (start, end)))

    def flush_completed(self, start: int, end: int) -> None:
        self.noted.append(("flush completed", (start, end)))
