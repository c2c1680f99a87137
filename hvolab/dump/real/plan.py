"""A list of operations made concrete: which folios join the pool and leave it, before anything runs.

The pool's free list is followed as the kernel keeps it: who joins last is given back first. So a list that
asks for what cannot be is refused here, and the same list is the same actors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, assert_never

from hvolab.checked.error import InputError
from hvolab.dump import FolioRow
from hvolab.dump.real.operations import Optimize, PoolOperation, Restore, Shrink, Sysctl
from kernel_model.mm.hstate import HSTATES, Hstate
from kernel_model.mm.image import HugePage

_BY_ORDER = {hstate.order: hstate for hstate in HSTATES}


@dataclass(frozen=True, slots=True)
class Join:
    """These folios of one size join the pool. `again`: those that it has had and given back."""

    hstate: Hstate
    pages: tuple[HugePage, ...]
    again: frozenset[int]


@dataclass(frozen=True, slots=True)
class Resize:
    """nr_hugepages of a size."""

    hstate: Hstate
    count: int


@dataclass(frozen=True, slots=True)
class Write:
    """vm.hugetlb_optimize_vmemmap"""

    enabled: int


PoolStep: TypeAlias = Join | Resize | Write


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps, and every folio that is not in the pool at time zero, in the order in which they join."""

    steps: tuple[PoolStep, ...]
    newcomers: tuple[HugePage, ...]


def plan_of(
    operations: Sequence[PoolOperation], pooled: Sequence[HugePage], huge_page: Callable[[FolioRow], HugePage]
) -> Plan:
    """The plan for a pool that has `pooled` at time zero, in the order of its free list. Raises InputError.

    `huge_page` checks a row of a dump and says which folio it is.
    """
    pool = _Pool({h: [page for page in pooled if page.hstate == h] for h in HSTATES}, set(pooled))
    steps = [step for operation in operations for step in pool.steps(operation, huge_page)]
    if steps and not pool.known:
        raise InputError(f"--do {operations[0].text}: no folio is in the pool, and none joins it")
    return Plan(tuple(steps), tuple(pool.newcomers))


@dataclass(slots=True)
class _Pool:
    """What the free lists hold, the first to be given back first; and everybody who was ever in."""

    free: dict[Hstate, list[HugePage]]
    known: set[HugePage]
    newcomers: list[HugePage] = field(default_factory=list)

    def steps(
        self, operation: PoolOperation, huge_page: Callable[[FolioRow], HugePage]
    ) -> Iterator[PoolStep]:
        match operation:
            case Optimize():
                yield from self._join(operation, [huge_page(row) for row in operation.dump.folios])
            case Restore(text=text):
                sizes = [h for h, pages in self.free.items() if pages]
                if not sizes:
                    raise InputError(f"--do {text}: the pool is empty, there is nothing to restore")
                for h in sizes:
                    self.free[h] = []
                    yield Resize(h, 0)
            case Shrink():
                yield self._shrink(operation)
            case Sysctl(enabled=enabled):
                yield Write(enabled)
            case _:
                assert_never(operation)

    def _join(self, operation: Optimize, listed: Sequence[HugePage]) -> Iterator[PoolStep]:
        in_pool = {page for pages in self.free.values() for page in pages}
        pages = [page for page in listed if page not in in_pool]
        if not pages:
            what = "lists no folios" if not listed else "lists no folio that the pool has not"
            raise InputError(f"--do optimize: the dump {operation.dump.state!r} {what}")
        for page in pages:
            self._check_free(page, in_pool)
        for h in HSTATES:
            joining = tuple(page for page in pages if page.hstate == h)
            if joining:
                again = frozenset(int(page.pfn) for page in joining if page in self.known)
                self.newcomers += [page for page in joining if page not in self.known]
                self.known.update(joining)
                self.free[h][:0] = joining
                yield Join(h, joining, again)

    def _check_free(self, page: HugePage, in_pool: set[HugePage]) -> None:
        for other in in_pool:
            if page.pfn < _end(other) and other.pfn < _end(page):
                raise InputError(f"folio {page.pfn:#x} overlaps folio {other.pfn:#x}, which is in the pool")

    def _shrink(self, operation: Shrink) -> Resize:
        h = self._size(operation)
        have = len(self.free[h])
        if operation.count >= have:
            raise InputError(f"--do {operation.text}: the pool has {have} folios of {h.name}, not more")
        del self.free[h][: have - operation.count]
        return Resize(h, operation.count)

    def _size(self, operation: Shrink) -> Hstate:
        if operation.order is not None:
            return _BY_ORDER[operation.order]
        sizes = [h for h, pages in self.free.items() if pages]
        if len(sizes) > 1:
            names = " and ".join(h.name for h in sizes)
            raise InputError(f"--do {operation.text}: the pool has {names}: say which, as shrink=SIZE:N")
        if not sizes:
            raise InputError(f"--do {operation.text}: the pool is empty")
        return sizes[0]


def _end(page: HugePage) -> int:
    return page.pfn + page.hstate.pages_per_huge_page
