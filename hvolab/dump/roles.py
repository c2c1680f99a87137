"""What a frame is to the vmemmap, said without its number.

Frame numbers differ from boot to boot and from machine to machine; what a frame does there does not. The
frame that backed page i of vmemmap before anything was remapped is `original i`; every other frame is
`fresh`, and one mapped by several PTEs is also shared, named after the first page that maps it.

Promised: roles do not change when fresh frames are renumbered. One PTE changed leaves alone the roles of
groups of PTEs that it neither leaves nor joins. Not promised: to recognise the original frames
of 2 MiB of split vmemmap with fewer than `MIN_ORIGINALS` of them left in place and mapped once; there
every frame counts as fresh.
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
        self._first_page: dict[int, int] = {}
        self._ptes: Counter[int] = Counter()
        self._large: Counter[int] = Counter()
        for number in sorted(regions):
            self._count(regions[number])
        self._blocks_with_ptes = {_block(pfn) for pfn in self._ptes}
        self._first_page_of_block: dict[int, int] = {}
        self._find_originals(regions)

    def of_frame(self, pfn: int) -> Role:
        """The role of a frame that some leaf of the dump maps."""
        return self._role(pfn, times_mapped=self._times_mapped(pfn))

    def of_large(self, leaf: Leaf) -> Role:
        """The role of a 2 MiB leaf: that of its first frame, shared when any of its frames is."""
        block = _block(leaf.pfn)
        return self._role(leaf.pfn, times_mapped=self._large[block] + (block in self._blocks_with_ptes))

    def _count(self, region: Region) -> None:
        if isinstance(region, Leaf):
            self._large[_block(region.pfn)] += 1
            return
        for page in sorted(region):
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

    def _times_mapped(self, pfn: int) -> int:
        return self._ptes[pfn] + self._large[_block(pfn)]

    def _role(self, pfn: int, times_mapped: int) -> Role:
        shared = times_mapped > 1
        start = self._first_page_of_block.get(_block(pfn))
        if start is not None:
            original = start + pfn % PTES_PER_TABLE
            return Role(original, original if shared else None)
        return Role(None, self._first_page[pfn] if shared else None)


def _block(pfn: int) -> int:
    """The number of the aligned 2 MiB of memory a frame lies in."""
    return pfn // PTES_PER_TABLE


def _winner(votes: Sequence[tuple[int, int]]) -> int | None:
    if not votes or votes[0][1] < MIN_ORIGINALS:
        return None
    if len(votes) > 1 and votes[1][1] == votes[0][1]:
        return None
    return votes[0][0]
