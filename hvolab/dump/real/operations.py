"""What `--do` asks for, as values: a list of operations on the pool of a machine whose layout was read.

Each is what a kernel does when its pool is resized or its sysctl is written. Promised: what is wrong with
one is an `InputError` line. Not promised: that the list makes sense as a whole; `hvolab.dump.real.plan` sees
to that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from hvolab.checked.error import InputError
from hvolab.dump import Dump
from kernel_model.mm.hstate import HSTATES

MOST_OPERATIONS: Final = 32
MOST_PAGES: Final = 1 << 22
"""More huge pages than any machine here has."""
WORDS: Final = "optimize:FILE, restore, sysctl=0, sysctl=1, shrink=N, shrink=SIZE:N"

_SIZES: Final = {hstate.name: hstate.order for hstate in HSTATES}
_SHRINK: Final = re.compile(r"shrink=(?:([^:]*):)?(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Optimize:
    """The folios that `dump` lists and the pool has not join it, optimized if the sysctl lets them."""

    text: str
    dump: Dump


@dataclass(frozen=True, slots=True)
class Restore:
    """The pool gives every folio back, each restored: nr_hugepages = 0 for every size."""

    text: str


@dataclass(frozen=True, slots=True)
class Sysctl:
    """vm.hugetlb_optimize_vmemmap = `enabled`, 0 or 1."""

    text: str
    enabled: int


@dataclass(frozen=True, slots=True)
class Shrink:
    """nr_hugepages = `count`, of the size with that order, or None for the only one that the pool has."""

    text: str
    order: int | None
    count: int


PoolOperation: TypeAlias = Optimize | Restore | Sysctl | Shrink


def operations_from(texts: Sequence[str], read: Callable[[str], Dump]) -> tuple[PoolOperation, ...]:
    """What each `--do` says; `read` gives the dump in a file. Raises InputError, also that of `read`."""
    if len(texts) > MOST_OPERATIONS:
        raise InputError(f"--do: {len(texts)} operations; at most {MOST_OPERATIONS}")
    return tuple(_operation(text, read) for text in texts)


def _operation(text: str, read: Callable[[str], Dump]) -> PoolOperation:
    if text.startswith("optimize:"):
        return Optimize(text, read(text.removeprefix("optimize:")))
    if text == "restore":
        return Restore(text)
    if text in ("sysctl=0", "sysctl=1"):
        return Sysctl(text, int(text[-1]))
    if (shrink := _SHRINK.fullmatch(text)) is not None:
        return Shrink(text, _order(text, shrink[1]), _count(text, shrink[2]))
    raise InputError(f"--do {_shown(text)}: no such operation; there are {WORDS}")


def _order(text: str, size: str | None) -> int | None:
    if size is None:
        return None
    if size not in _SIZES:
        raise InputError(f"--do {_shown(text)}: no such size; there are {', '.join(_SIZES)}")
    return _SIZES[size]


def _count(text: str, number: str) -> int:
    if not re.fullmatch(r"[0-9]{1,7}", number) or int(number) > MOST_PAGES:
        raise InputError(f"--do {_shown(text)}: a number of huge pages is 0 to {MOST_PAGES}")
    return int(number)


def _shown(text: str) -> str:
    return text if text.isprintable() and " " not in text and text else repr(text)
