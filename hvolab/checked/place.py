"""A place in a JSON document that knows its name, and turns into checked values.

Promised: an `InputError` names the file, the place ("pmds[3].va") and what is wrong there, in one line.
Not promised: that fields agree with each other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Final, Self

from hvolab.checked.error import InputError

MAX_COUNT: Final = (1 << 63) - 1

_HEX: Final = re.compile(r"0x[0-9a-fA-F]{1,16}")
_SHOWN_CHARACTERS: Final = 60


@dataclass(frozen=True, slots=True)
class Place:
    """The value at `where` in `file`; `where` is empty for the whole document."""

    WHOLE: ClassVar[str] = "the whole file"

    file: str
    where: str
    value: object

    def error(self, problem: str) -> InputError:
        """The error to raise for what is wrong at this place."""
        return InputError(f"{self.file}: {self.where or self.WHOLE}: {problem}")

    def wanted(self, what: str) -> InputError:
        """The error for a value that is not `what`."""
        shown = repr(self.value)
        if len(shown) > _SHOWN_CHARACTERS:
            shown = shown[:_SHOWN_CHARACTERS] + "..."
        return self.error(f"expected {what}, found {shown}")

    def field(self, name: str) -> Self:
        """The member `name` of this object, which must be there."""
        member = self.optional(name)
        if member is None:
            raise self.error(f"missing field {name!r}")
        return member

    def optional(self, name: str) -> Self | None:
        """The member `name` of this object, or None."""
        if not isinstance(self.value, dict):
            raise self.wanted("an object")
        if name not in self.value:
            return None
        where = f"{self.where}.{name}" if self.where else name
        return type(self)(self.file, where, self.value[name])

    def items(self) -> tuple[Self, ...]:
        """The elements of this array."""
        if not isinstance(self.value, list):
            raise self.wanted("an array")
        at = enumerate(self.value)
        return tuple(type(self)(self.file, f"{self.where}[{index}]", value) for index, value in at)

    def text(self) -> str:
        """A string."""
        if not isinstance(self.value, str):
            raise self.wanted("a string")
        return self.value

    def integer(self, low: int, high: int) -> int:
        """A JSON integer from `low` to `high`, both included."""
        # type() and not isinstance(): true and false are no numbers here.
        if type(self.value) is not int:
            raise self.wanted("an integer")
        if not low <= self.value <= high:
            raise self.wanted(f"an integer from {low} to {high}")
        return self.value

    def integers(self) -> list[int]:
        """An array of integers that 63 bits hold."""
        return [one.integer(-MAX_COUNT, MAX_COUNT) for one in self.items()]

    def count(self) -> int:
        """A number of things."""
        return self.integer(0, MAX_COUNT)

    def word(self) -> int:
        """A 64-bit word, written as a hex string."""
        if not isinstance(self.value, str) or not _HEX.fullmatch(self.value):
            raise self.wanted('a hex string like "0x1f" of at most 64 bits')
        return int(self.value, 16)
