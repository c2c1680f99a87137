"""A TLB with a geometry: arrays of sets and ways on two levels, with a replacement policy.

For cost, measurement and demonstration: it holds what a CPU of that shape would hold after the accesses
made so far, and nothing is chosen. A walk fills level 1 and level 2; a hit in level 2 fills level 1 again;
the levels are otherwise independent (neither inclusive nor exclusive). A page whose size no array can
hold is cached in parts of the largest size that fits (rule R4).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from emu.addr import PageSize, VirtAddr
from emu.tlb import Invalidation, Port, Rule, TlbEntry, Usable, removes


class Replacement(Enum):
    LRU = "least recently used"
    TREE_PLRU = "tree pseudo-LRU; ways are a power of two"


class SetHash(Enum):
    LOW_BITS = "the low bits of the page number"
    XOR_7 = "the low 7 bits of the page number XOR the next 7"


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """One array. `sets` times `ways` entries for pages of the given sizes, looked up by the given ports."""

    name: str
    level: int
    ports: frozenset[Port]
    sizes: frozenset[PageSize]
    sets: int
    ways: int
    replacement: Replacement = Replacement.LRU
    set_hash: SetHash = SetHash.LOW_BITS

    def set_of(self, va: VirtAddr, size: PageSize) -> int:
        number = va // size
        if self.set_hash is SetHash.XOR_7:
            number = (number ^ (number >> 7)) & 127
        return number % self.sets


@dataclass(frozen=True, slots=True)
class Geometry:
    """The arrays of one CPU's TLBs. Every port needs a level-1 array that holds 4 KiB pages."""

    arrays: tuple[ArraySpec, ...]


class _Set:
    """One set: its ways, and what the replacement policy remembers about them."""

    __slots__ = ("_spec", "order", "ways")

    def __init__(self, spec: ArraySpec) -> None:
        self._spec = spec
        self.ways: list[TlbEntry | None] = [None] * spec.ways
        # LRU: way numbers, least recent first. Tree PLRU: the bits of the tree, heap order.
        self.order = list(range(spec.ways)) if spec.replacement is Replacement.LRU else [0] * spec.ways

    def touch(self, way: int) -> None:
        if self._spec.replacement is Replacement.LRU:
            self.order.remove(way)
            self.order.append(way)
            return
        node = way + self._spec.ways
        while node > 1:
            self.order[node >> 1] = 1 - (node & 1)  # point away from the way just used
            node >>= 1

    def victim(self) -> int:
        if None in self.ways:
            return self.ways.index(None)
        if self._spec.replacement is Replacement.LRU:
            return self.order[0]
        node = 1
        while node < self._spec.ways:
            node = 2 * node + self.order[node]
        return node - self._spec.ways


class _Array:
    def __init__(self, spec: ArraySpec) -> None:
        self.spec = spec
        self._sets = [_Set(spec) for _ in range(spec.sets)]

    def find(self, va: VirtAddr, pcid: int) -> list[TlbEntry]:
        """The entries for `va`: at most one of each size."""
        found = []
        for size in self.spec.sizes:
            chosen = self._sets[self.spec.set_of(va, size)]
            for way, entry in enumerate(chosen.ways):
                if entry is not None and _matches(entry, va, size, pcid):
                    chosen.touch(way)
                    found.append(entry)
        return found

    def insert(self, entry: TlbEntry) -> None:
        chosen = self._sets[self.spec.set_of(entry.page, entry.size)]
        way = next(
            (w for w, old in enumerate(chosen.ways) if _matches(old, entry.page, entry.size, entry.pcid)),
            None,
        )
        if way is None:
            way = chosen.victim()
        chosen.ways[way] = entry
        chosen.touch(way)

    def drop(self, doomed: Callable[[TlbEntry], bool]) -> None:
        for one in self._sets:
            for way, entry in enumerate(one.ways):
                if entry is not None and doomed(entry):
                    one.ways[way] = None

    def entries(self) -> list[TlbEntry]:
        return [entry for one in self._sets for entry in one.ways if entry is not None]


def _matches(entry: TlbEntry | None, va: VirtAddr, size: PageSize, pcid: int) -> bool:
    return (
        entry is not None
        and entry.size == size
        and entry.holds(va)
        and (entry.is_global or entry.pcid == pcid)
    )


class GeometryTlb:
    """A `Tlb` of a given shape. `usable` offers the hits of the first level that has any; else a walk.

    More than one entry is offered only where pages of different sizes are cached for the address (R5).
    """

    def __init__(self, geometry: Geometry, rules: frozenset[Rule]) -> None:
        self._geometry = geometry
        self._rules = rules
        self.clear()
        for port in Port:
            if not any(PageSize.KIB4 in array.spec.sizes for array in self._sides[1, port]):
                raise ValueError(f"no level-1 array holds 4 KiB pages for {port.value} accesses")

    def usable(self, va: VirtAddr, pcid: int, port: Port) -> Usable:
        for level in (1, 2):
            hits = [entry for array in self._sides[level, port] for entry in array.find(va, pcid)]
            if hits:
                return Usable(hits, walk=False)
        return Usable((), walk=True)

    def used(self, entry: TlbEntry, port: Port) -> None:
        self._insert(self._sides[1, port], entry, entry.page)

    def fill(self, entry: TlbEntry, va: VirtAddr, port: Port) -> None:
        for level in (1, 2):
            self._insert(self._sides[level, port], entry, va)

    def invalidate(self, what: Invalidation) -> None:
        for array in self._arrays:
            array.drop(lambda entry: removes(what, entry, self._rules))

    def evict(self, entry: TlbEntry) -> None:
        for array in self._arrays:
            array.drop(entry.__eq__)

    def entries(self) -> tuple[TlbEntry, ...]:
        held = {entry for array in self._arrays for entry in array.entries()}
        return tuple(sorted(held, key=lambda entry: (entry.page, entry.size, entry.pcid, entry.filled_at)))

    def clear(self) -> None:
        self._arrays = [_Array(spec) for spec in self._geometry.arrays]
        self._sides = {
            (level, port): [a for a in self._arrays if a.spec.level == level and port in a.spec.ports]
            for level in (1, 2)
            for port in Port
        }

    @staticmethod
    def _insert(side: list[_Array], entry: TlbEntry, va: VirtAddr) -> None:
        """Into the array of this level and port that keeps the largest part of the page."""
        fitting = [(size, array) for array in side for size in array.spec.sizes if size <= entry.size]
        if fitting:
            size, array = max(fitting, key=lambda pair: pair[0])
            array.insert(entry.at(va, size))
