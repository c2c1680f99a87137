"""Paging-structure caches: directory entries a CPU remembers, from which a walk may start (SDM 3A 4.10.3).

They hold the rights accumulated on the path so far, never those of a table (rule R6). What empties them is
`drops`; with the lazy TLB there is no such cache, it asks `drops` about the past instead.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from emu.addr import PAGE_SHIFT, Pfn, VirtAddr
from emu.kept import Kept
from emu.memory import Moment
from emu.paging.tlb import Invalidation, Invlpg, InvpcidAddress, Rule
from emu.paging.walk import ALL_RIGHTS, TOP_LEVEL, Walk, WalkStart


@dataclass(frozen=True, slots=True)
class PscSpec:
    """Capacity in entries per level of directory; 0 = that level is not cached."""

    pml4e: int
    pdpte: int
    pde: int


NO_PSC = PscSpec(0, 0, 0)


def drops(what: Invalidation, rules: frozenset[Rule]) -> bool:
    """Whether this invalidation empties the paging-structure caches of the context it is executed in.

    INVLPG does so whatever its address (R8); every other one by its own definition. The caches here serve
    one context at a time, so a fault or an INVPCID of an address is taken to drop what it might use.
    """
    if isinstance(what, Invlpg | InvpcidAddress):
        return Rule.INVLPG_EMPTIES_PSC in rules
    return True


class PagingStructureCache(Kept):
    """Least-recently-used caches of PML4, PDPT and PD entries of one CPU."""

    kept = ("_held",)

    def __init__(self, spec: PscSpec, rules: frozenset[Rule]) -> None:
        self._capacity = {4: spec.pml4e, 3: spec.pdpte, 2: spec.pde}
        self._rules = rules
        self._held: dict[int, OrderedDict[tuple[int, int], WalkStart]] = {}
        self.clear()

    def start(self, root: Pfn, va: VirtAddr, pcid: int) -> WalkStart:
        """The lowest table from which a walk for `va` may start."""
        for level in (2, 3, 4):
            held = self._held[level]
            key = (pcid, _tag(va, level))
            if key in held:
                held.move_to_end(key)
                return held[key]
        return WalkStart(TOP_LEVEL, root)

    def fill(self, found: Walk, pcid: int, moment: Moment) -> None:
        """A walk found this, and read the oldest of its entries after so many stores."""
        rights = ALL_RIGHTS
        for index, step in enumerate(found.steps[:-1]):
            rights = rights.and_entry(step.entry)
            held = self._held[step.level]
            key = (pcid, _tag(found.va, step.level))
            held[key] = WalkStart(step.level - 1, step.entry.pfn, rights, found.steps[: index + 1], moment)
            held.move_to_end(key)
            while len(held) > self._capacity[step.level]:
                held.popitem(last=False)

    def invalidate(self, what: Invalidation) -> None:
        if drops(what, self._rules):
            self.clear()

    def clear(self) -> None:
        self._held = {level: OrderedDict() for level in (2, 3, 4)}


def _tag(va: VirtAddr, level: int) -> int:
    """The part of the address that selects the entry at that level."""
    return va >> (PAGE_SHIFT + 9 * (level - 1))
