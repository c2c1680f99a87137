"""One difference between two dumps. `hvolab.dump.compare` is the module to import from.

Promised: both sides as text of one line. Not promised: frame numbers; they are never compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

MISSING: Final = "missing"
"""Stands for a row or a field that one of the two dumps does not have."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One field of one row, on both sides, as text.

    `where` is "dump", "pmd VA", "leaf VA", "folio PFN" or "counter NAME", addresses being those of the
    left dump. A row that one side lacks is "missing" there and told in one text on the other side.
    """

    where: str
    field: str
    left: str
    right: str

    def __str__(self) -> str:
        return f"{self.where}: {self.field}: {self.left} | {self.right}"


Placed: TypeAlias = tuple[int, Difference]
"""A difference, after the offset in vmemmap, in bytes, that it is about."""


def unequal(where: str, field: str, left: object, right: object) -> Iterator[Difference]:
    """The difference of two values, if there is one; None is a missing value."""
    if left != right:
        yield Difference(where, field, _text(left), _text(right))


def _text(value: object) -> str:
    if value is None:
        return MISSING
    if isinstance(value, Mapping):
        return "; ".join(f"{count} x {flags}" for flags, count in sorted(value.items())) or "none"
    return str(value) or "none"
