"""Who is told what judges ask of Sight, and what Sight's own memory takes in."""

from __future__ import annotations

from typing import Protocol

from hvolab.judge.sight.resource import Touched


class Watcher(Protocol):
    """Told during the step in which something is asked. Pages are by number, flushes in bytes."""

    def reads(self, touched: Touched) -> None: ...

    def writes(self, touched: Touched) -> None: ...

    def marks(self, touched: Touched) -> None:
        """Something was added that commutes with other additions: a sum, a set."""
        ...

    def reads_translation(self, page: int) -> None:
        """What the page tables say of that page, now and in the past."""
        ...

    def lost(self, frame: int) -> None:
        """Who had that frame has lost it: what maps it, and what walks through it as a table, came before."""
        ...

    def flush_begun(self, start: int, end: int) -> None:
        """A flush request for [start, end): it counts for changes made before."""
        ...

    def flush_completed(self, start: int, end: int) -> None: ...


class Nobody:
    """Nobody watches."""

    def reads(self, touched: Touched) -> None: ...

    def writes(self, touched: Touched) -> None: ...

    def marks(self, touched: Touched) -> None: ...

    def reads_translation(self, page: int) -> None: ...

    def lost(self, frame: int) -> None: ...

    def flush_begun(self, start: int, end: int) -> None: ...

    def flush_completed(self, start: int, end: int) -> None: ...
