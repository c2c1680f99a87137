"""How two dumps of the vmemmap page tables differ, in what matters to HVO.

Two boots, or a model and a real kernel, never agree on frame numbers. So places are compared by their
distance from `vmemmap_base`, and frames by their role (`hvolab.dump.compare.roles`, docs/dump-format.md).

Two generations of HVO map tails to different things, so that every tail would differ. That is said once, of
the whole dump, and what follows from it is left out (`hvolab.dump.compare.generation`).

Promised: `compare(d, d) == ()`; differences come in address order, each about one field of one row.
Not compared, on purpose: `kernel`, `state`, `cmdline`; which page a page table sits in; the bits of
`private` other than bit 4 (which is `optimized`); the `flags` word, `refcount` and `page_type` of folios.
Everything `Dump` has no field for, such as times, cannot be compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from hvolab.dump.compare.difference import MISSING, Difference, Placed, unequal
from hvolab.dump.compare.generation import Generation, TailPages, generation_of
from hvolab.dump.compare.leaves import LeafView, leaf_differences, without_pages, without_pse
from hvolab.dump.compare.structs import struct_differences
from hvolab.dump.model import MAX_BLOCK_ORDER, PTES_PER_TABLE, Dump, FolioRow, Pmd


def compare(a: Dump, b: Dump) -> tuple[Difference, ...]:
    """What differs from `a` (left) to `b` (right); () when nothing does.

    Dump-wide fields come first, then rows by address (at one address PMD, leaf, folio, struct), then
    counters. If a side has no leaves, the counts in the PMD rows are compared in their place. If a side has
    no counters at all, counters are not compared. Struct pages are compared where both dumps have the block.
    """
    generations = _Generations(generation_of(a), generation_of(b))
    rows = [*_pmds(a, b, generations), *_leaves(a, b, generations), *_folios(a, b, generations)]
    rows += struct_differences(a, b, generations.struct_pages)
    rows.sort(key=lambda placed: placed[0])
    return (*_whole(a, b), *generations.differences(), *(each for _, each in rows), *_counters(a, b))


@dataclass(frozen=True, slots=True)
class _Generations:
    """Those of the two dumps, None where nothing optimized says."""

    left: Generation | None
    right: Generation | None

    @property
    def tails_compare(self) -> bool:
        """Whether a tail of one dump may be compared with a tail of the other."""
        return self.left is self.right or self.left is None or self.right is None

    @property
    def struct_pages(self) -> int:
        """How many struct pages of a block may be compared: that of the head says nothing of tails."""
        return 1 << MAX_BLOCK_ORDER if self.tails_compare else 1

    def differences(self) -> Iterator[Difference]:
        if self.left is not None and self.right is not None:
            yield from unequal("dump", "generation", self.left.value, self.right.value)


def _whole(a: Dump, b: Dump) -> Iterator[Difference]:
    yield from unequal("dump", "ram_mb", a.ram_mb, b.ram_mb)
    yield from unequal("dump", "vmemmap_base", hex(a.vmemmap_base), hex(b.vmemmap_base))


def _leaves(a: Dump, b: Dump, generations: _Generations) -> Iterator[Placed]:
    if a.leaves is None or b.leaves is None:
        return
    skipped = TailPages() if generations.tails_compare else TailPages(a, b)
    left = LeafView(a.vmemmap_base, without_pages(a.vmemmap_base, a.leaves, skipped))
    right = LeafView(b.vmemmap_base, without_pages(b.vmemmap_base, b.leaves, skipped))
    yield from leaf_differences(a.vmemmap_base, left, right, skipped)


def _pmds(a: Dump, b: Dump, generations: _Generations) -> Iterator[Placed]:
    left = {pmd.va - a.vmemmap_base: pmd for pmd in a.pmds}
    right = {pmd.va - b.vmemmap_base: pmd for pmd in b.pmds}
    counts_only = a.leaves is None or b.leaves is None
    for offset in sorted(left.keys() | right.keys()):
        where = f"pmd {a.vmemmap_base + offset:#x}"
        one, other = left.get(offset), right.get(offset)
        for difference in _pmd(where, one, other):
            yield offset, difference
        if counts_only and one is not None and other is not None:
            for difference in _pmd_counts(where, one, other, generations):
                yield offset, difference


def _pmd(where: str, a: Pmd | None, b: Pmd | None) -> Iterator[Difference]:
    if a is None or b is None:
        yield from unequal(where, "pmd", _pmd_text(a), _pmd_text(b))
        return
    yield from unequal(where, "kind", a.kind, b.kind)
    yield from unequal(where, "flags", a.flags, b.flags)


def _pmd_text(pmd: Pmd | None) -> str:
    return MISSING if pmd is None else f"{pmd.kind}, {pmd.flags}"


@dataclass(frozen=True, slots=True)
class _Counts:
    """What a PMD row counts, of a 2 MiB leaf as of the PTEs it would split into."""

    pte_flags: Mapping[str, int]
    distinct_frames: int
    frames_mapped_8x: int


_NOTHING_MAPPED: Final = _Counts({}, 0, 0)


def _counts(pmd: Pmd) -> _Counts:
    if pmd.kind == "2M leaf":
        return _Counts({without_pse(pmd.flags): PTES_PER_TABLE}, PTES_PER_TABLE, 0)
    if pmd.kind == "absent":
        return _NOTHING_MAPPED
    return _Counts(pmd.pte_flags or {}, pmd.distinct_frames or 0, pmd.frames_mapped_8x or 0)


def _pmd_counts(where: str, a: Pmd, b: Pmd, generations: _Generations) -> Iterator[Difference]:
    left, right = _counts(a), _counts(b)
    yield from unequal(where, "hugetlb_folios", a.hugetlb_folios, b.hugetlb_folios)
    if not generations.tails_compare:
        return
    yield from unequal(where, "pte_flags", left.pte_flags, right.pte_flags)
    yield from unequal(where, "distinct_frames", left.distinct_frames, right.distinct_frames)
    yield from unequal(where, "frames_mapped_8x", left.frames_mapped_8x, right.frames_mapped_8x)


def _folios(a: Dump, b: Dump, generations: _Generations) -> Iterator[Placed]:
    left = {folio.pfn: (folio.vmemmap - a.vmemmap_base, folio) for folio in a.folios}
    right = {folio.pfn: (folio.vmemmap - b.vmemmap_base, folio) for folio in b.folios}
    for pfn in sorted(left.keys() | right.keys()):
        offset, _ = left.get(pfn) or right[pfn]
        one, other = left.get(pfn), right.get(pfn)
        for difference in _folio(f"folio {pfn:#x}", one and one[1], other and other[1], generations):
            yield offset, difference


def _folio(
    where: str, a: FolioRow | None, b: FolioRow | None, generations: _Generations
) -> Iterator[Difference]:
    if a is None or b is None:
        yield from unequal(where, "folio", _folio_text(a), _folio_text(b))
        return
    yield from unequal(where, "order", a.order, b.order)
    yield from unequal(where, "optimized", a.optimized, b.optimized)
    yield from unequal(where, "map", a.mapped_by, b.mapped_by)
    yield from unequal(where, "head_flags", a.head_flags, b.head_flags)
    yield from unequal(where, "tail_ptes", a.tail_ptes, b.tail_ptes)
    if not generations.tails_compare:
        return
    yield from unequal(where, "tail_distinct_frames", a.tail_distinct_frames, b.tail_distinct_frames)
    yield from unequal(where, "tail_same_as_head", a.tail_same_as_head, b.tail_same_as_head)
    yield from unequal(where, "tail_flags", a.tail_flags, b.tail_flags)


def _folio_text(folio: FolioRow | None) -> str:
    if folio is None:
        return MISSING
    return f"order {folio.order}, {'optimized' if folio.optimized else 'not optimized'}"


def _counters(a: Dump, b: Dump) -> Iterator[Difference]:
    if not a.counters or not b.counters:
        return
    for name in sorted(a.counters.keys() | b.counters.keys()):
        yield from unequal(f"counter {name}", "pages", a.counters.get(name), b.counters.get(name))
