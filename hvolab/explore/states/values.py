"""Values by number: what is compared often, and is part of other values, as a number."""

from __future__ import annotations

from collections.abc import Hashable


class Values:
    """Equal values have one number, those beyond the first `most` none."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._numbers: dict[Hashable, int] = {}

    def number(self, value: Hashable) -> int | None:
        found = self._numbers.get(value)
        if found is None and len(self._numbers) < self._most:
            found = self._numbers[value] = len(self._numbers) + 1
        return found

    def forget(self) -> None:
        self._numbers.clear()
