"""Which invalidations close a window: where one removes nothing, its order against accesses does not matter.

A window is what a CPU may still use of a page: the versions since its last invalidation of it. While there is
one version in it, an access before an invalidation and the same access after it use the same translation, and
leave the same behind. So an invalidation disturbs accesses only if the translation has changed since the last
one; what changes it is ordered against both anyway.
"""

from __future__ import annotations

from collections.abc import Iterable

from emu.kept import Kept
from emu.paging.models import CpuModel
from emu.paging.tlb import ALL_RULES, FaultedAt, InvalidateAll, Invalidation, Invlpg
from hvolab.explore.footprint.tables import PAGES_OF_ALL


class Windows(Kept):
    """The open windows of every CPU, in one run. Pages by number, a large page by its first as ~page."""

    kept = ("_open", "_all_open", "_expected")

    def __init__(self, cpus: int, model: CpuModel) -> None:
        self._open: list[set[int]] = [set() for _ in range(cpus)]
        self._obeys = model.rules == ALL_RULES
        self._all_open = False
        self._expected: dict[int, set[int]] = {}  # by broadcast: what has changed since it was sent

    def changed(self, pages: Iterable[int]) -> None:
        """These have another translation now; ~page: that large page has been split."""
        found = set(pages)
        self._all_open = self._all_open or PAGES_OF_ALL in found
        for held in self._open:
            held |= found
        for changed in self._expected.values():
            changed |= found

    def expect(self, broadcast: int) -> None:
        """It has been sent, by that event: what it is of is invalidated later, as it is now."""
        self._expected[broadcast] = set()

    def carry_out(self, broadcast: int, pages: Iterable[int]) -> list[set[int]]:
        """It is of these pages. Returns for each CPU those of which it has had more than one version."""
        found, changed = set(pages), self._expected.pop(broadcast)
        closed = [found if self._all_open else found & held for held in self._open]
        if self._obeys:
            for held, some in zip(self._open, closed, strict=True):
                held -= some - changed
        return closed

    def is_open(self, cpu: int, page: int) -> bool:
        """Whether the CPU may use more than one version of the page."""
        return self._all_open or page in self._open[cpu]

    def close(self, cpu: int, what: Invalidation, pages: Iterable[int]) -> set[int]:
        """The CPU invalidates these pages. Returns those of which it has had more than one version."""
        found = set(pages)
        closed = found if self._all_open else found & self._open[cpu]
        if not isinstance(what, Invlpg | InvalidateAll | FaultedAt):
            return found  # globals may stay
        if self._obeys:
            self._open[cpu] -= closed
        return closed
