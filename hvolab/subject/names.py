"""Choosing by name: one look-up, one answer to a slip, for scenarios and for every axis of what is run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Generic, TypeVar

T = TypeVar("T")


MOST_LISTED = 12  # on one line


class UnknownName(ValueError):
    """There is nothing of that name: says what is like it, or what there is. One line."""


class Table(Generic[T]):
    """Things of one kind by name, in their order. `listed_by`: the command that tells them all.

    `aliases`: other names, each with the name that it stands for.
    """

    def __init__(
        self,
        kind: str,
        entries: Mapping[str, T],
        listed_by: str = "hvolab list",
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        self.kind = kind
        self._listed_by = listed_by
        self._entries = dict(entries)
        self._aliases = dict(aliases or {})

    @classmethod
    def of(
        cls,
        kind: str,
        things: Iterable[T],
        name_of: Callable[[T], str],
        listed_by: str = "hvolab list",
        aliases: Mapping[str, str] | None = None,
    ) -> Table[T]:
        """Raises ValueError where two have one name."""
        entries: dict[str, T] = {}
        for thing in things:
            if name_of(thing) in entries:
                raise ValueError(f"two of kind {kind} are called {name_of(thing)!r}")
            entries[name_of(thing)] = thing
        return cls(kind, entries, listed_by, aliases)

    def and_also(self, things: Iterable[T], name_of: Callable[[T], str]) -> Table[T]:
        """These too. Raises ValueError where one of them has a name that is taken."""
        more = Table.of(self.kind, things, name_of)
        taken = [name for name in more.names if name in self]
        if taken:
            raise ValueError(f"there is a {self.kind} {taken[0]!r} already")
        return Table(self.kind, {**self._entries, **more._entries}, self._listed_by, self._aliases)

    @property
    def things(self) -> tuple[T, ...]:
        return tuple(self._entries.values())

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._entries)

    def __contains__(self, name: str) -> bool:
        return name in self._entries or name in self._aliases

    @property
    def aliases(self) -> tuple[str, ...]:
        return tuple(self._aliases)

    def aliases_of(self, name: str) -> tuple[str, ...]:
        """What else it is called."""
        return tuple(alias for alias, known in self._aliases.items() if known == name)

    def find(self, name: str) -> T:
        """Raises UnknownName."""
        if name in self:
            return self._entries[self._aliases.get(name, name)]
        near = get_close_matches(name, (*self._entries, *self._aliases))
        all_of_them = f"there are: {', '.join(self._entries)}"
        if len(self._entries) > MOST_LISTED:
            all_of_them = f"`{self._listed_by}` has all {len(self._entries)}"
        said = f"did you mean {' or '.join(near)}?" if near else all_of_them
        raise UnknownName(f"there is no {self.kind} {name!r}; {said}")
