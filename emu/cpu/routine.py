"""Kernel routines: what is sent the results of its ops, and how one is begun.

`Anew` runs the coroutine each time. That a routine's next op depends only on how it began and on the results
of its ops is what `emu.cpu.recall` builds on, and checks.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from types import CoroutineType
from typing import Any, Protocol, TypeAlias

from emu.guest.known import KnownInstructions

# What kernel code is: it yields ops and is sent their results.
Code: TypeAlias = Coroutine[Any, Any, Any]


class Routine(Protocol):
    """A routine under way."""

    def send(self, result: Any, /) -> Any:
        """Give it the result of its op (None to begin with). Returns its next one.

        Raises StopIteration when it returns, and what its code raises.
        """
        ...

    def close(self) -> None:
        """It is gone."""
        ...


class ContextKilled(Exception):
    """Raised by kernel code to end its own context (after a BUG, say). The machine records it as killed."""


@dataclass(frozen=True, slots=True)
class Root:
    """How a routine began: on which CPU, for what, and all that it was given."""

    cpu: int
    name: str
    given: Hashable = None

    def __str__(self) -> str:
        return f"{self.name} on cpu{self.cpu}"


class Routines(Protocol):
    """How routines are begun, and what is known of instructions.

    `code` makes the coroutine of what begins so.
    """

    @property
    def instructions(self) -> KnownInstructions | None: ...

    def begin(self, root: Root, code: Callable[[], Code]) -> Routine: ...


class Anew:
    """Each time the coroutine itself, and the engine."""

    instructions = None

    def begin(self, root: Root, code: Callable[[], Code]) -> Routine:
        del root
        return code()


def functions_of(code: object) -> tuple[str, ...]:
    """The names of the functions a suspended coroutine is in, outermost first."""
    names = []
    while isinstance(code, CoroutineType):
        names.append(code.cr_code.co_name)
        code = code.cr_await
    return tuple(names)
