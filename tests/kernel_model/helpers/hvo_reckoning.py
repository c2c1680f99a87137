"""What must come of HVO and the pool when memory runs out, reckoned from the rules, without the kernel model.

The rules are told in pages: who asks for a page and what for, what is given back when there is none, which
frame is mapped where in the end. Which frame an allocation gets is the allocator's affair: the frames are
those of the trace, in order, and everything else is reckoned. Without a trace they are numbers of no frame.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import count
from typing import assert_never

from hvo_lab import (
    ENOMEM,
    PAGE,
    REGION,
    RO,
    RW,
    STRUCT,
    Leaf,
    frames,
    pages_of,
    regions_of,
    restored_tail,
    split,
)

from emu.addr import Pfn
from kernel_model.mm.failures import (
    AllocationFailures,
    EachMayFail,
    FailAt,
    FailFrom,
    FailUntilFreed,
    NoFailures,
)
from kernel_model.mm.hstate import Hstate
from kernel_model.mm.image import HugePage

HEAD, TABLE, TAIL, HUGE = "vmemmap head page", "page table", "vmemmap tail page", "huge page"

_FLAGS, _HEAD_FLAG, _HUGETLB, _NO_TYPE = 0x000F_FFFF_C000_0000, 1 << 6, 0xF400_0000, 0xFFFF_FFFF
_TAIL_MAPPING = 0xDEAD_0000_0000_0400
_STRUCT = struct.Struct("<6QIIQ")


class Shortage:
    """Says of each allocation whether it is granted."""

    def __init__(self, failures: AllocationFailures) -> None:
        self.asked = 0
        self._failures = failures
        self._over = False

    def granted(self) -> bool:
        position = self.asked
        self.asked += 1
        match self._failures:
            case NoFailures():
                return True
            case FailAt(positions=positions):
                return position not in positions
            case FailUntilFreed(position=first):
                return position < first or self._over
            case FailFrom(position=first):
                return position < first
            case EachMayFail():
                raise ValueError("nobody decides here")
            case _:
                assert_never(self._failures)

    def freed(self) -> None:
        """Something was freed: what had begun by then is over."""
        if isinstance(self._failures, FailUntilFreed) and self.asked > self._failures.position:
            self._over = True


@dataclass
class World:
    """Vmemmap and the pool, as they are reckoned to be. Lists are in the order of their links."""

    leaves: dict[int, Leaf]
    """Never changed, but replaced."""
    reserved: set[int]
    """The frames behind vmemmap that memblock handed out."""
    optimized: dict[HugePage, bool]
    free: int
    """How many frames are free, of all sizes."""
    folio_list: list[HugePage] = field(default_factory=list)
    non_hvo: list[HugePage] = field(default_factory=list)
    free_list: list[HugePage] = field(default_factory=list)
    nr: int = 0
    surplus: int = 0
    most: int = 0
    tables: dict[int, int] = field(default_factory=dict)
    copied: set[int] = field(default_factory=set)
    """The vmemmap pages that were restored: what is in them is a copy of their head's."""
    gone: list[HugePage] = field(default_factory=list)
    log: list[tuple[str, bool]] = field(default_factory=list)
    """What each allocation was for, and whether there was a page."""
    memory: Shortage = field(default_factory=lambda: Shortage(NoFailures()))
    frames: Iterator[int] = field(default_factory=lambda: count(-1, -1))

    def copy(self) -> World:
        """Another one to go on from here."""
        return replace(
            self,
            reserved=set(self.reserved),
            optimized=dict(self.optimized),
            folio_list=list(self.folio_list),
            non_hvo=list(self.non_hvo),
            free_list=list(self.free_list),
            tables=dict(self.tables),
            copied=set(self.copied),
            gone=[],
            log=[],
            frames=count(-1, -1),
        )

    # -- memory --------------------------------------------------------------------------------------

    def ask(self, purpose: str, pages: int = 1) -> int | None:
        granted = self.memory.granted()
        self.log.append((purpose, granted))
        if not granted:
            return None
        self.free -= pages
        return next(self.frames, 0)

    def give_back(self, some: Iterable[int]) -> None:
        for pfn in some:
            self.reserved.discard(pfn)
            self.free += 1
            self.memory.freed()

    def counters(self) -> dict[str, int]:
        backing = set(frames(self.leaves))
        boot = len(backing & self.reserved)
        return {"nr_memmap_pages": len(backing) - boot, "nr_memmap_boot_pages": boot}

    # -- HVO -----------------------------------------------------------------------------------------

    def split(self, region: int) -> bool:
        """A leaf needs a page table to be split; what is split stays so."""
        if region not in self.leaves or self.leaves[region].level == 1:
            return True
        table = self.ask(TABLE)
        if table is None:
            return False
        self.leaves = split(self.leaves, [region])
        self.tables[region] = table
        return True

    def optimize(self, huge: HugePage, hand: list[int]) -> bool:
        """One folio. `hand`: the frames to be freed when the caller gets to it."""
        fresh = self.ask(HEAD)
        walked: list[int] = []
        for region in regions_of(huge):
            if not self.split(region):
                self._roll_back(walked, fresh, hand)
                return False
            walked += [va for va in pages_of(huge) if va & ~(REGION - 1) == region]
        old = [self.leaves[va].pfn for va in walked]
        head = old[0] if fresh is None else fresh
        hand += [pfn for pfn in old if pfn != head]
        self.leaves = self.leaves | dict.fromkeys(walked, Leaf(1, head, RO)) | {walked[0]: Leaf(1, head, RW)}
        self.optimized[huge] = True
        return True

    def _roll_back(self, walked: list[int], fresh: int | None, hand: list[int]) -> None:
        """Tails get back the frames that were taken out, last out first in. A fresh head stays, if mapped."""
        old = [self.leaves[va].pfn for va in walked]
        back = zip(walked[1:], old[:0:-1], strict=True)
        self.leaves = self.leaves | {va: Leaf(1, pfn, RW) for va, pfn in back}
        self.copied.update(walked[1:])
        if fresh is None:
            return
        if walked:
            self.leaves = self.leaves | {walked[0]: Leaf(1, fresh, RW)}
        hand.append(old[0] if walked else fresh)

    def optimize_singly(self, huge: HugePage) -> None:
        if not self.optimized[huge]:
            hand: list[int] = []
            self.optimize(huge, hand)
            self.give_back(hand)

    def optimize_list(self, folios: Iterable[HugePage]) -> None:
        """All are split until there is no table; each is remapped, with one retry while there is a hand."""
        todo = [huge for huge in folios if not self.optimized[huge]]
        all(self.split(region) for huge in todo for region in regions_of(huge))
        hand: list[int] = []
        for huge in todo:
            if not self.optimize(huge, hand) and hand:
                self.give_back(hand)
                hand.clear()
                self.optimize(huge, hand)
        self.give_back(hand)

    def restore(self, huge: HugePage) -> int:
        """One folio: a frame for each tail, all or none; the one allocated last is mapped first."""
        if not self.optimized[huge]:
            return 0
        tails = pages_of(huge)[1:]
        got: list[int] = []
        for _ in tails:
            frame = self.ask(TAIL)
            if frame is None:
                self.give_back(got)
                return ENOMEM
            got.append(frame)
        back = zip(tails, reversed(got), strict=True)
        self.leaves = self.leaves | {va: Leaf(1, pfn, RW) for va, pfn in back}
        self.copied.update(tails)
        self.optimized[huge] = False
        return 0

    def restore_list(self, folios: list[HugePage], done: list[HugePage]) -> int:
        """Until one fails. Those that have their vmemmap are moved to the head of the other list."""
        restored = 0
        while folios:
            was = self.optimized[folios[0]]
            if self.restore(folios[0]):
                return ENOMEM
            restored += was
            done.insert(0, folios.pop(0))
        return restored

    # -- the pool ------------------------------------------------------------------------------------

    def numbers(self) -> tuple[int, int, int, int]:
        return self.nr, len(self.free_list), self.surplus, self.most

    def add(self, huge: HugePage, surplus: int = 0) -> None:
        self.nr += 1
        self.surplus += surplus
        self.free_list.insert(0, huge)

    def free_huge(self, huge: HugePage) -> None:
        self.gone.append(huge)
        del self.optimized[huge]
        self.free += huge.hstate.pages_per_huge_page
        self.memory.freed()

    def grow(self, h: Hstate, number: int) -> None:
        """As many as there is memory for; all of those enter the pool, optimized or not."""
        new: list[HugePage] = []
        for _ in range(number):
            pfn = self.ask(HUGE, h.pages_per_huge_page)
            if pfn is None:
                break
            # Without a trace: anywhere in the first section, each in a place of its own.
            new.insert(0, HugePage(Pfn(pfn if pfn >= 0 else 0x1000 - pfn * h.pages_per_huge_page), h))
        self.optimized |= dict.fromkeys(new, False)
        self.optimize_list(new)
        for huge in new:
            self.add(huge)
        self.most = self.nr - self.surplus

    def shrink(self) -> None:
        """To nothing. What stays is surplus."""
        leaving: list[HugePage] = []
        while self.free_list:
            leaving.insert(0, self.free_list.pop(0))
            self.nr -= 1
        while leaving:
            restored: list[HugePage] = []
            self.restore_list(leaving, restored)
            for huge in restored:
                self.free_huge(huge)
            if leaving and not restored:
                self._singly(leaving)
        self.most = 0

    def _singly(self, leaving: list[HugePage]) -> None:
        """Surplus each, until one can be freed."""
        while leaving:
            huge = leaving.pop(0)
            if not self.restore(huge):
                self.free_huge(huge)
                return
            self.add(huge, surplus=1)

    def free_one(self, huge: HugePage) -> int:
        """One that the pool has let go of: freed, or surplus."""
        if self.restore(huge):
            self.add(huge, surplus=1)
            return ENOMEM
        self.free_huge(huge)
        return 0


# --- contents of struct pages -----------------------------------------------------------------------------


@lru_cache(maxsize=8192)
def ordinary(huge: HugePage, page: int) -> bytes:
    """Vmemmap page number `page` of a folio, as it was written when it became one."""
    structs = []
    for number in range(page * PAGE // STRUCT, (page + 1) * PAGE // STRUCT):
        link = huge.folio + number * STRUCT + 8
        structs.append((_FLAGS, huge.folio + 1, link, _TAIL_MAPPING, 0, 0, _NO_TYPE, 0, 0))
    if page == 0:
        order = huge.hstate.order
        structs[0] = (_FLAGS | _HEAD_FLAG, 0, 0, 0, 0, 0, _HUGETLB, 0, 0)
        structs[1] = (_FLAGS | order, huge.folio + 1, (1 << 64) - 1, 0, 1 << order, 0, _NO_TYPE, 0, 0)
        structs[2] = (_FLAGS, huge.folio + 1, 0, 0, 0, 0, _NO_TYPE, 0, 0)
    return b"".join(_STRUCT.pack(*words) for words in structs)


def unlinked(head_page: bytes) -> bytes:
    """A head page without what changes: the links and the flags of the head."""
    return head_page[:8] + bytes(16) + head_page[24:40] + bytes(8) + head_page[48:]


def contents(huge: HugePage, copied: set[int]) -> Iterator[tuple[int, bytes]]:
    """What must be in each vmemmap page that has a frame of its own, by address."""
    head = ordinary(huge, 0)
    for number, va in enumerate(pages_of(huge)):
        yield va, restored_tail(head) if va in copied else ordinary(huge, number)
