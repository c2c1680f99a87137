"""What has been in a run, as far as its order matters, as a value: equal for orders nobody can tell apart.

A step has its place behind the one that its process made before, and behind those of others that it conflicts
with; beside all others it has none. So two runs that differ in the order of steps that do not conflict (two
linearizations of one Mazurkiewicz trace, "Trace Theory", 1986) have one value here. What conflicts is for
footprints to say, as it is for the search, which explores one of these two orders for both.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from enum import IntEnum
from typing import NamedTuple

from emu.kept import Kept
from hvolab.explore.footprint.conflict import Footprint
from hvolab.explore.states.values import Values
from hvolab.judge.sight.resource import Touched


class _How(IntEnum):
    """How a step touched a resource. Readers commute among themselves, and so do those that mark."""

    READ = 0
    MARKED = 1
    WROTE = 2


class _Latest(NamedTuple):
    """Of one resource: the steps that touched it last and commute, and those just before these."""

    how: _How
    steps: tuple[int, ...]
    before: tuple[int, ...] = ()


class PartialOrder(Kept):
    """Of one run, from time zero on. A step is a number of `values`: of what it did, and what came before."""

    kept = ("_last_of", "_latest", "_is_full")

    def __init__(self, values: Values) -> None:
        self._values = values
        self._last_of: dict[int, int] = {}
        self._latest: dict[Touched, _Latest] = {}
        self._is_full = False  # there is no room for what has been

    def add(self, process: int, did: Hashable, footprint: Footprint) -> None:
        """That process has done this, and it touched that."""
        before = {self._last_of[process]} if process in self._last_of else set()
        touched = [(one, how, self._latest.get(one)) for one, how in _how_touched(footprint)]
        for _, how, latest in touched:
            if latest is not None:
                before.update(latest.before if _commute(how, latest.how) else latest.steps)
        step = self._values.number((process, did, frozenset(before)))
        if step is None:
            self._is_full = True
            return
        self._last_of[process] = step
        for one, how, latest in touched:
            if latest is not None and _commute(how, latest.how):
                self._latest[one] = _Latest(how, (*latest.steps, step), latest.before)
            else:
                self._latest[one] = _Latest(how, (step,), () if latest is None else latest.steps)

    def state(self) -> Hashable | None:
        """All of it; None where there was no room."""
        return None if self._is_full else frozenset(self._last_of.items())


def _how_touched(footprint: Footprint) -> Iterable[tuple[Touched, _How]]:
    """Who reads and marks the same commutes with nobody."""
    both = footprint.reads & footprint.marks
    wrote = footprint.writes | both if both else footprint.writes
    yield from ((one, _How.WROTE) for one in wrote)
    yield from ((one, _How.READ) for one in footprint.reads - wrote)
    yield from ((one, _How.MARKED) for one in footprint.marks - wrote)


def _commute(one: _How, other: _How) -> bool:
    return one is other and one is not _How.WROTE
