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
from typing import TypeAlias

from emu.addr import PageSize, VirtAddr
from emu.paging.tlb import Invalidation, Port, Rule, TlbEntry, Usable, removes


class Replacement(Enum):
    LRU = "least recently used"
    TREE_PLRU = "tree pseudo-LRU; ways are a power of two"


class SetHash(Enum):
    LOW_BITS = "the low bits of the page number"
    XOR_7 = "the low 7 bits of the page number XOR the next 7"


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """One array. `sets` times `ways` entries for pages of the given sizes, looked up by the given ports.

    Raises ValueError for a tree of ways that is no power of two.
    """

    name: str
    level: int
    ports: frozenset[Port]
    sizes: frozenset[PageSize]
    sets: int
    ways: int
    replacement: Replacement = Replacement.LRU
    set_hash: SetHash = SetHash.LOW_BITS

    def __post_init__(self) -> None:
        if self.replacement is Replacement.TREE_PLRU and self.ways & (self.ways - 1):
            raise ValueError(f"{self.name}: a tree of {self.ways} ways; their number must be a power of two")

    def set_of(self, va: VirtAddr, size: PageSize) -> int:
        number = va // size
        if self.set_hash is SetHash.XOR_7:
            number = (number ^ (number >> 7)) & 127
        return number % self.sets


@dataclass(frozen=True, slots=True)
class Geometry:
    """The arrays of one CPU's TLBs. Every port needs a level-1 array that holds 4 KiB pages."""

    arrays: tuple[ArraySpec, ...]


# How an entry is found in its set: page size, page number, PCID (None for a global entry, which matches all).
_Tag: TypeAlias = tuple[PageSize, int, int | None]


def _tag(entry: TlbEntry) -> _Tag:
    return (entry.size, entry.page // entry.size, None if entry.is_global else entry.pcid)


class _Set:
    """One set: its ways, where each tag is, and what the replacement policy remembers."""

    __slots__ = ("_lru", "_order", "_ways", "where")

    def __init__(self, spec: ArraySpec) -> None:
        self._lru = spec.replacement is Replacement.LRU
        self._ways: list[TlbEntry | None] = [None] * spec.ways
        self.where: dict[_Tag, int] = {}
        # LRU: way numbers, least recent first. Tree PLRU: the bits of the tree, heap order.
        self._order = list(range(spec.ways)) if self._lru else [0] * spec.ways

    def find(self, tag: _Tag) -> TlbEntry | None:
        way = self.where.get(tag)
        if way is None:
            return None
        self._touch(way)
        return self._ways[way]

    def insert(self, entry: TlbEntry) -> None:
        """Replace the entry of the same tag, or else the policy's victim."""
        tag = _tag(entry)
        way = self.where.get(tag)
        if way is None:
            way = self._victim()
            victim = self._ways[way]
            if victim is not None:
                del self.where[_tag(victim)]
        self._ways[way] = entry
        self.where[tag] = way
        self._touch(way)

    def drop(self, doomed: Callable[[TlbEntry], bool]) -> None:
        for tag, way in list(self.where.items()):
            entry = self._ways[way]
            if entry is not None and doomed(entry):
                self._ways[way] = None
                del self.where[tag]

    def entries(self) -> list[TlbEntry]:
        return [entry for entry in self._ways if entry is not None]

    def _touch(self, way: int) -> None:
        if self._lru:
            if self._order[-1] != way:
                self._order.remove(way)
                self._order.append(way)
            return
        node = way + len(self._ways)
        while node > 1:
            self._order[node >> 1] = 1 - (node & 1)  # point away from the way just used
            node >>= 1

    def _victim(self) -> int:
        if None in self._ways:
            return self._ways.index(None)
        if self._lru:
            return self._order[0]
        node = 1
        while node < len(self._ways):
            node = 2 * node + self._order[node]
        return node - len(self._ways)


class _Array:
    """One array of sets. Only sets that hold something are visited by an invalidation."""

    def __init__(self, spec: ArraySpec) -> None:
        self.spec = spec
        self._sizes = sorted(spec.sizes)
        self._sets = [_Set(spec) for _ in range(spec.sets)]
        self._used: set[int] = set()  # the sets that have ever held something

    def clear(self) -> None:
        for index in self._used:
            self._sets[index] = _Set(self.spec)
        self._used.clear()

    def find(self, va: VirtAddr, pcid: int) -> list[TlbEntry]:
        """The entries for `va`: at most one of each size."""
        found = []
        for size in self._sizes:
            chosen = self._sets[self.spec.set_of(va, size)]
            if not chosen.where:
                continue
            number = va // size
            entry = chosen.find((size, number, None)) or chosen.find((size, number, pcid))
            if entry is not None:
                found.append(entry)
        return found

    def insert(self, entry: TlbEntry) -> None:
        index = self.spec.set_of(entry.page, entry.size)
        self._used.add(index)
        self._sets[index].insert(entry)

    def drop(self, doomed: Callable[[TlbEntry], bool]) -> None:
        for index in self._used:
            if self._sets[index].where:
                self._sets[index].drop(doomed)

    def entries(self) -> list[TlbEntry]:
        return [entry for index in sorted(self._used) for entry in self._sets[index].entries()]


class GeometryTlb:
    """A `Tlb` of a given shape. `usable` offers the hits of the first level that has any; else a walk.

    More than one entry is offered only where pages of different sizes are cached for the address (R5).
    """

    def __init__(self, geometry: Geometry, rules: frozenset[Rule]) -> None:
        self._rules = rules
        self._hit_level = 1
        self._arrays = [_Array(spec) for spec in geometry.arrays]
        self._sides = {
            (level, port): [a for a in self._arrays if a.spec.level == level and port in a.spec.ports]
            for level in (1, 2)
            for port in Port
        }
        for port in Port:
            if not any(PageSize.KIB4 in array.spec.sizes for array in self._sides[1, port]):
                raise ValueError(f"no level-1 array holds 4 KiB pages for {port.value} accesses")

    def usable(self, va: VirtAddr, pcid: int, port: Port) -> Usable:
        for level in (1, 2):
            hits = []
            for array in self._sides[level, port]:
                hits += array.find(va, pcid)
            if hits:
                self._hit_level = level
                return Usable(hits, walk=False)
        return Usable((), walk=True)

    def used(self, entry: TlbEntry, va: VirtAddr, port: Port) -> None:
        if self._hit_level > 1:
            self._insert(self._sides[1, port], entry, va)

    def fill(self, entry: TlbEntry, va: VirtAddr, port: Port) -> None:
        for level in (1, 2):
            self._insert(self._sides[level, port], entry, va)

    def expect(self, event: int) -> int:
        del event
        return 0  # carried out at its end, as late as it may be

    def carry_out(self, what: Invalidation, place: int, event: int) -> None:
        del place
        self.invalidate(what, event)

    def invalidate(self, what: Invalidation, event: int) -> None:
        del event
        for array in self._arrays:
            array.drop(lambda entry: removes(what, entry, self._rules))

    def evict(self, entry: TlbEntry) -> None:
        for array in self._arrays:
            array.drop(entry.__eq__)

    def entries(self) -> tuple[TlbEntry, ...]:
        held = {entry for array in self._arrays for entry in array.entries()}
        return tuple(sorted(held, key=lambda entry: (entry.page, entry.size, entry.pcid, entry.filled_at)))

    def clear(self) -> None:
        self._hit_level = 1
        for array in self._arrays:
            array.clear()

    @staticmethod
    def _insert(side: list[_Array], entry: TlbEntry, va: VirtAddr) -> None:
        """Into the array of this level and port that keeps the largest part of the page."""
        fitting = [(size, array) for array in side for size in array.spec.sizes if size <= entry.size]
        if fitting:
            size, array = max(fitting, key=lambda pair: pair[0])
            array.insert(entry.at(va, size))
