"""Going back to where a run was: what has changed since then is put to what it was.

A part of a run that changes names the attributes in which it does. A *mark* has their values, containers
copied, and coming back to it any number of times gives the same. Containers stay the objects that they are:
who else holds one sees it put back.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Bookmark:
    """What a part of a run was: the values of its own attributes, and the marks of its parts."""

    values: tuple[object, ...]
    parts: tuple[Bookmark, ...]


class Kept:
    """`kept`: the attributes that change. What they hold is a value, or a container of values or containers.

    `parts`: those that hold a part which is kept in its turn, the same one all the time.
    """

    __slots__ = ()
    kept: ClassVar[tuple[str, ...]] = ()
    parts: ClassVar[tuple[str, ...]] = ()

    def mark(self) -> Bookmark:
        """What to come back to."""
        values = tuple(_copied(getattr(self, name)) for name in self.kept)
        return Bookmark(values, tuple(getattr(self, name).mark() for name in self.parts))

    def back(self, mark: Bookmark) -> None:
        """To what it was when the mark was made."""
        for name, value in zip(self.kept, mark.values, strict=True):
            if not _put_back(getattr(self, name), value):
                setattr(self, name, _copied(value))
        for name, part in zip(self.parts, mark.parts, strict=True):
            getattr(self, name).back(part)


_CONTAINERS = frozenset({dict, Counter, OrderedDict, list, deque, set})


def _copied(value: object) -> object:
    if isinstance(value, dict):
        copy = value.copy()
        for key, held in value.items():
            if type(held) in _CONTAINERS:
                copy[key] = _copied(held)
        return copy
    if isinstance(value, list):
        return [_copied(held) if type(held) in _CONTAINERS else held for held in value]
    if isinstance(value, deque):
        return value.copy()
    return value.copy() if isinstance(value, set) else value


def _put_back(container: object, value: object) -> bool:
    """Give a container the contents of another of its kind. False for what is none."""
    copy = _copied(value)
    if isinstance(container, dict | set) and isinstance(copy, dict | set):
        container.clear()
        container.update(copy)
    elif isinstance(container, list | deque) and isinstance(copy, list | deque):
        container.clear()
        container.extend(copy)
    else:
        return False
    return True
