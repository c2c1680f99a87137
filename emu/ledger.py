"""What software knows beside memory: values by name, with a journal, so that a machine is put back whole.

An allocator's lists, its counts of generations: what a real kernel keeps in structures that nobody here looks
at. Kept here, a routine's next op depends on nothing but the results of its ops. Entries are read and changed
by transactions (`emu.cpu.ops.Transact`) alone, which are no scheduling point.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol, TypeVar

T = TypeVar("T", bound=Hashable)
R_co = TypeVar("R_co", covariant=True)


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """The name of a value: like a word's."""

    name: str
    index: int = 0

    def __str__(self) -> str:
        return self.name if self.index == 0 else f"{self.name}[{self.index}]"


class Ledger:
    """The values. One that was never set is what its reader takes it for."""

    def __init__(self) -> None:
        self._values: dict[LedgerEntry, Hashable] = {}
        self._journal: list[
            tuple[LedgerEntry, bool, Hashable]
        ] = []  # what each change overwrote, if anything

    @property
    def values(self) -> Mapping[LedgerEntry, Hashable]:
        """As they are now."""
        return MappingProxyType(self._values)

    def get(self, entry: LedgerEntry, default: T) -> T:
        """Its value, which is of the kind of `default`."""
        return self._values.get(entry, default)  # type: ignore[return-value]

    def set(self, entry: LedgerEntry, value: Hashable) -> None:
        self._journal.append((entry, entry in self._values, self._values.get(entry)))
        self._values[entry] = value

    def remove(self, entry: LedgerEntry) -> None:
        """It is as if it had never been set."""
        if entry in self._values:
            self._journal.append((entry, True, self._values.pop(entry)))

    def state(self) -> Hashable:
        """All of it: a value."""
        return frozenset(self._values.items())

    @property
    def now(self) -> int:
        """How many changes there have been: a moment to come back to."""
        return len(self._journal)

    def undo(self, moment: int) -> None:
        """Put everything back to what it was at that moment."""
        while len(self._journal) > moment:
            entry, was_set, old = self._journal.pop()
            if was_set:
                self._values[entry] = old
            else:
                del self._values[entry]

    def forget(self) -> None:
        """Start again: this is the new moment 0."""
        self._journal.clear()


class Transaction(Protocol[R_co]):
    """Reads and changes a ledger. A value: equal ones do the same to equal ledgers."""

    def __call__(self, ledger: Ledger) -> R_co: ...
