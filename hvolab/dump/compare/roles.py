"""What a frame is to the vmemmap, said without its number.

Frame numbers differ from boot to boot and from machine to machine; what a frame does there does not. A frame
that has backed page i of vmemmap since boot is `original i`; every other frame is `fresh`: it came from the
page allocator. One mapped by several PTEs is also shared, named after the first page that maps it.

A frame of vmemmap that was given back and came in again is as fresh as any: which frames the allocator hands
out is its own affair. So an original is one *in place*, mapped where it was at boot; and where most tails of
eight pages are not in place, all eight were given back, and what is in place there came back by chance.

Promised: roles do not change when fresh frames are renumbered, whether they were vmemmap's or not. One PTE
changed leaves alone the roles of groups of PTEs that it neither leaves nor joins, but where it makes a
majority. Not promised: to recognise the original frames of 2 MiB of split vmemmap with fewer than
`MIN_ORIGINALS` of them left in place and mapped once; there every frame counts as fresh.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from hvolab.dump.model import PAGE_SIZE, PTES_PER_TABLE, Leaf

MIN_ORIGINALS: Final = 8
"""Frames in place that make a block believable: one 2 MiB folio not optimized leaves as many.

One alone is no evidence: where all is fresh, 512 PTEs have a chance of 1 in 512 each to point at a frame
that lies as the page does.
"""
GIVEN_BACK_TOGETHER: Final = 8
"""Pages of vmemmap that HVO frees and brings back as one: those of 2 MiB."""
MOST_TAILS: Final = 4
"""Of the seven tails of eight pages."""


@dataclass(frozen=True, slots=True)
class Role:
    """What a frame is: `original` is the page it first backed, or None for a fresh frame.

    `shared` is None for a frame mapped once; otherwise the page the sharing is named after: the original
    page, or for a fresh frame the first page mapping it. Pages are 4 KiB of vmemmap counted from its base.
    """

    original: int | None
    shared: int | None

    def __str__(self) -> str:
        if self.original is not None:
            return f"original {self.original}" + (", shared" if self.shared is not None else "")
        return "fresh" if self.shared is None else f"fresh, shared from page {self.shared}"


Region: TypeAlias = Leaf | Mapping[int, Leaf]
"""2 MiB of vmemmap: its one leaf of level 2, or its leaves of level 1 by page index."""


def regions_of(vmemmap_base: int, leaves: Iterable[Leaf]) -> dict[int, Region]:
    """The leaves by the number of the 2 MiB of vmemmap they map; regions with no leaf are left out."""
    large: dict[int, Leaf] = {}
    small: dict[int, dict[int, Leaf]] = {}
    for leaf in leaves:
        page = (leaf.va - vmemmap_base) // PAGE_SIZE
        if leaf.level == 2:
            large[page // PTES_PER_TABLE] = leaf
        else:
            small.setdefault(page // PTES_PER_TABLE, {})[page] = leaf
    return {**small, **large}


class Roles:
    """The roles of all frames in one dump's regions; built once, then only asked."""

    def __init__(self, regions: Mapping[int, Region]) -> None:
        self._pages: dict[int, int] = {}
        self._first_page: dict[int, int] = {}
        self._ptes: Counter[int] = Counter()
        self._large: Counter[int] = Counter()
        for number in sorted(regions):
            self._count(regions[number])
        self._blocks_with_ptes = {_block(pfn) for pfn in self._ptes}
        self._first_page_of_block: dict[int, int] = {}
        self._find_originals(regions)
        self._given_back = self._find_given_back()
        self._known: dict[int, Role] = {}

    def of_frame(self, pfn: int) -> Role:
        """The role of a frame that some leaf of the dump maps."""
        if pfn not in self._known:
            self._known[pfn] = self._role(pfn)
        return self._known[pfn]

    def _role(self, pfn: int) -> Role:
        shared = self._times_mapped(pfn) > 1
        original = self._original(pfn)
        if original is None or not self._still_there(pfn, original):
            return Role(None, self._first_page[pfn] if shared else None)
        return Role(original, original if shared else None)

    def of_large(self, leaf: Leaf) -> Role:
        """The role of a 2 MiB leaf: that of its first frame, shared when any of its frames is."""
        block = _block(leaf.pfn)
        shared = self._large[block] + (block in self._blocks_with_ptes) > 1
        first = self._first_page_of_block[block]
        return Role(first, first if shared else None)

    def _count(self, region: Region) -> None:
        if isinstance(region, Leaf):
            self._large[_block(region.pfn)] += 1
            return
        for page in sorted(region):
            self._pages[page] = region[page].pfn
            self._ptes[region[page].pfn] += 1
            self._first_page.setdefault(region[page].pfn, page)

    def _find_originals(self, regions: Mapping[int, Region]) -> None:
        for number in sorted(regions):
            block = self._original_block(regions[number])
            if block is not None:
                self._first_page_of_block.setdefault(block, number * PTES_PER_TABLE)

    def _original_block(self, region: Region) -> int | None:
        if isinstance(region, Leaf):
            return _block(region.pfn)
        # A 2 MiB leaf's block was aligned, so a frame in place has its page's offset. Only frames mapped
        # once count: a shared one in place may be a fresh head that happens to lie there.
        in_place = Counter(
            _block(leaf.pfn)
            for page, leaf in region.items()
            if (leaf.pfn - page) % PTES_PER_TABLE == 0 and self._times_mapped(leaf.pfn) == 1
        )
        return _winner(in_place.most_common(2))

    def _find_given_back(self) -> frozenset[int]:
        """The groups of eight pages that HVO took, by number: most tails are not where they were at boot."""
        moved = Counter(
            page // GIVEN_BACK_TOGETHER
            for page, pfn in self._pages.items()
            if page % GIVEN_BACK_TOGETHER and self._ptes[pfn] == 1 and self._original(pfn) != page
        )
        return frozenset(group for group, tails in moved.items() if tails >= MOST_TAILS)

    def _times_mapped(self, pfn: int) -> int:
        return self._ptes[pfn] + self._large[_block(pfn)]

    def _original(self, pfn: int) -> int | None:
        """The page this frame backed at boot, if it is one of vmemmap's."""
        start = self._first_page_of_block.get(_block(pfn))
        return None if start is None else start + pfn % PTES_PER_TABLE

    def _still_there(self, pfn: int, original: int) -> bool:
        """Whether the page that a frame backed at boot has had it ever since."""
        if original not in self._pages:
            return self._large[_block(pfn)] > 0
        if self._pages[original] != pfn:
            return False
        first = self._first_page[pfn]
        if first < original:
            # The head of a folio, taken from what was given back, that one of its tails happens to have had.
            return any(self._pages.get(page) != pfn for page in range(first, original))
        return self._times_mapped(pfn) > 1 or original // GIVEN_BACK_TOGETHER not in self._given_back


def _block(pfn: int) -> int:
    """The number of the aligned 2 MiB of memory a frame lies in."""
    return pfn // PTES_PER_TABLE


def _winner(votes: Sequence[tuple[int, int]]) -> int | None:
    if not votes or votes[0][1] < MIN_ORIGINALS:
        return None
    if len(votes) > 1 and votes[1][1] == votes[0][1]:
        return None
    return votes[0][0]
