"""A judge's memory: cells, each with a name, whose reading and writing is told like that of a word.

What a judge remembers is a *state* too: two runs that have come to equal ones are judged alike from there on.
Numbers of events are no part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Generic, Protocol, TypeVar

from emu.kept import Bookmark, Kept
from hvolab.judge.sight.resource import CellName
from hvolab.judge.sight.watcher import Watcher

V = TypeVar("V")


def itself(value: object) -> Hashable:
    """The state of a cell that holds a value without numbers of events."""
    return value


class Remembering(Protocol):
    """What judges remember of a run: kept, and a state."""

    def mark(self) -> Bookmark: ...

    def back(self, mark: Bookmark) -> None: ...

    def state(self) -> Hashable:
        """What further verdicts depend on."""
        ...


class Cells(Kept, Generic[V]):
    """The cells of one kind of one judge, by two numbers; a cell holds `empty` until it is set.

    `counts` says what further verdicts depend on of a value.
    """

    kept = ("_values",)

    def __init__(
        self, kind: str, empty: V, watch: Watching, counts: Callable[[V], Hashable] = itself
    ) -> None:
        self._kind = kind
        self._empty = empty
        self._counts = counts
        self._watch = watch
        self._values: dict[CellName, V] = {}

    def get(self, a: int = 0, b: int = 0) -> V:
        name = CellName(self._kind, a, b)
        self._watch.watcher.reads(name)
        return self._values.get(name, self._empty)

    def peek(self, a: int = 0, b: int = 0) -> V:
        """The same without a word: for who is ordered by something else wherever it matters."""
        return self._values.get(CellName(self._kind, a, b), self._empty)

    def holding(self) -> list[int]:
        """The first numbers of those that hold something, in order; without a word, as `peek`."""
        return sorted(name.a for name, value in self._values.items() if value != self._empty)

    def state(self) -> Hashable:
        return frozenset(
            (name, self._counts(value)) for name, value in self._values.items() if value != self._empty
        )

    def state_of(self, name: CellName) -> Hashable:
        """What further verdicts depend on of one of them."""
        return self._counts(self._values.get(name, self._empty))

    def set(self, value: V, a: int = 0, b: int = 0) -> None:
        name = CellName(self._kind, a, b)
        self._watch.watcher.writes(name)
        self._values[name] = value


class Bags(Kept, Generic[V]):
    """Sets of one kind of one judge, by a number. To add commutes; to look, or take out, does not."""

    kept = ("_values",)

    def __init__(self, kind: str, watch: Watching) -> None:
        self._kind = kind
        self._watch = watch
        self._values: dict[CellName, dict[V, None]] = {}

    def add(self, value: V, a: int = 0) -> None:
        name = CellName(self._kind, a)
        self._watch.watcher.marks(name)
        self._values.setdefault(name, {})[value] = None

    def all(self, a: int = 0) -> tuple[V, ...]:
        """What is in it, in the order it was put in."""
        name = CellName(self._kind, a)
        self._watch.watcher.reads(name)
        return tuple(self._values.get(name, ()))

    def clear(self, a: int = 0) -> None:
        name = CellName(self._kind, a)
        self._watch.watcher.writes(name)
        self._values.pop(name, None)

    def state(self) -> Hashable:
        """In whatever order they were put in."""
        return frozenset((name, frozenset(values)) for name, values in self._values.items() if values)

    def state_of(self, name: CellName) -> Hashable:
        """What is in one of them."""
        return frozenset(self._values.get(name, ()))

    def numbers(self) -> Iterator[int]:
        """The numbers of the bags that were ever added to, for the end of a run: nothing comes after."""
        return iter([name.a for name in self._values])


class Watching:
    """Who watches now. Cells and Sight share one."""

    def __init__(self, watcher: Watcher) -> None:
        self.watcher = watcher
