"""What follows from the leaves: the PMD rows, how each folio is mapped, the summary.

Promised: the same rows, for the same leaves, as the dumps of a real kernel have (tests rebuild them).
Not promised: any opinion on whether the leaves are right; a table with holes is counted as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from hvolab.checked.error import InputError
from hvolab.dump.model import (
    PAGE_SIZE,
    PMD_SIZE,
    PTES_PER_TABLE,
    RAM_PER_PMD,
    STRUCT_PAGE_SIZE,
    TABLE_FLAGS,
    Dump,
    FolioRow,
    Leaf,
    Pmd,
)

_NO_FLAGS: Final[Mapping[int, str]] = MappingProxyType({})
_PTES_OF_AN_OPTIMIZED_2M_FOLIO: Final = 8


def dump_of(
    kernel: str,
    state: str,
    ram_mb: int,
    vmemmap_base: int,
    leaves: Iterable[Leaf],
    folios: Iterable[FolioRow],
    counters: Mapping[str, int],
    table_pfn_of: Mapping[int, int],
    table_flags_of: Mapping[int, str] = _NO_FLAGS,
) -> Dump:
    """A dump with leaves, whose PMD rows are derived from them; all rows in address order.

    `ram_mb` in MiB, `vmemmap_base` in bytes, `counters` in pages. `table_pfn_of` gives, by the address
    in bytes of each split 2 MiB of vmemmap, the pfn of its page-table page; `table_flags_of` the flags of
    the PMD entry pointing there, `TABLE_FLAGS` where it has none. 2 MiB of vmemmap within `ram_mb` that
    have neither leaf nor table become an "absent" row. The folio rows are taken as they are (see
    `with_mappings`). Raises `InputError` when tables and leaves contradict each other.
    """
    ordered = tuple(sorted(leaves, key=lambda leaf: leaf.va))
    rows = tuple(sorted(folios, key=lambda folio: folio.pfn))
    tables = {va: (pfn, table_flags_of.get(va, TABLE_FLAGS)) for va, pfn in table_pfn_of.items()}
    _check_tables(tables)
    pmds = _pmd_rows(_Regions(vmemmap_base, _by_region(ordered), tables, _folios_by_region(rows)), ram_mb)
    return Dump(kernel, state, ram_mb, vmemmap_base, pmds, rows, ordered, dict(counters))


@dataclass(frozen=True, slots=True)
class _Regions:
    """What is known of each 2 MiB of vmemmap, by its address."""

    vmemmap_base: int
    leaves: Mapping[int, Sequence[Leaf]]
    tables: Mapping[int, tuple[int, str]]
    folios: Mapping[int, int]


def _check_tables(tables: Mapping[int, object]) -> None:
    for va in tables:
        if va % PMD_SIZE:
            raise InputError(f"page table at va {va:#x}: not aligned to {PMD_SIZE} bytes")


def _by_region(leaves: Iterable[Leaf]) -> dict[int, list[Leaf]]:
    regions: dict[int, list[Leaf]] = {}
    for leaf in leaves:
        regions.setdefault(_region(leaf.va), []).append(leaf)
    return regions


def _folios_by_region(folios: Iterable[FolioRow]) -> Counter[int]:
    return Counter(_region(folio.vmemmap) for folio in folios)


def _region(va: int) -> int:
    return va - va % PMD_SIZE


def _pmd_rows(regions: _Regions, ram_mb: int) -> tuple[Pmd, ...]:
    described = -(-(ram_mb << 20) // RAM_PER_PMD)
    expected = {regions.vmemmap_base + number * PMD_SIZE for number in range(described)}
    present = expected | regions.leaves.keys() | regions.tables.keys()
    return tuple(_pmd_row(regions, va) for va in sorted(present))


def _pmd_row(regions: _Regions, va: int) -> Pmd:
    leaves = regions.leaves.get(va, ())
    table = regions.tables.get(va)
    ram = _ram(va - regions.vmemmap_base)
    folios = regions.folios.get(va, 0)
    if len(leaves) == 1 and leaves[0].level == 2:
        if table is not None:
            raise InputError(f"va {va:#x}: both a 2 MiB leaf and a page table")
        return Pmd(va, "2M leaf", leaves[0].pfn, leaves[0].flags, ram, folios)
    if any(leaf.level == 2 for leaf in leaves):
        raise InputError(f"va {va:#x}: a 2 MiB leaf overlaps other leaves")
    if table is not None:
        return _split_row(Pmd(va, "split", table[0], table[1], ram, folios), leaves)
    if leaves:
        raise InputError(f"va {va:#x}: 4 KiB leaves, but no page-table page is given for them")
    return Pmd(va, "absent", 0, "", ram, folios)


def _split_row(pmd: Pmd, leaves: Iterable[Leaf]) -> Pmd:
    flags = Counter(leaf.flags for leaf in leaves)
    mapped = Counter(leaf.pfn for leaf in leaves)
    eight = sum(times == _PTES_OF_AN_OPTIMIZED_2M_FOLIO for times in mapped.values())
    return replace(pmd, pte_flags=dict(flags), distinct_frames=len(mapped), frames_mapped_8x=eight)


def _ram(offset: int) -> str:
    start = offset // PMD_SIZE * RAM_PER_PMD
    return f"{start:#x}-{start + RAM_PER_PMD:#x}"


def with_mappings(folios: Iterable[FolioRow], leaves: Iterable[Leaf]) -> tuple[FolioRow, ...]:
    """The folio rows with the mapping fields (`mapped_by` to `tail_flags`) filled in from the leaves.

    A folio whose head is not mapped gets `mapped_by` "absent"; unmapped tails are not counted.
    """
    by_va = {leaf.va: leaf for leaf in leaves}
    return tuple(_with_mapping(folio, by_va) for folio in folios)


def _with_mapping(folio: FolioRow, by_va: Mapping[int, Leaf]) -> FolioRow:
    bare = FolioRow(
        folio.pfn,
        folio.order,
        folio.vmemmap,
        folio.optimized,
        folio.private,
        folio.flags,
        folio.refcount,
        folio.page_type,
    )
    head_page = folio.vmemmap - folio.vmemmap % PAGE_SIZE
    if (large := by_va.get(_region(head_page))) is not None and large.level == 2:
        return replace(bare, mapped_by="PMD leaf")
    head = by_va.get(head_page)
    if head is None:
        return replace(bare, mapped_by="absent")
    end = folio.vmemmap + (STRUCT_PAGE_SIZE << folio.order)
    pages = range(head_page + PAGE_SIZE, end, PAGE_SIZE)
    tails = [by_va[va] for va in pages if va in by_va]
    return replace(
        bare,
        head_frame=head.pfn,
        head_flags=head.flags,
        tail_ptes=len(tails),
        tail_distinct_frames=len({tail.pfn for tail in tails}),
        tail_same_as_head=sum(tail.pfn == head.pfn for tail in tails),
        tail_flags=dict(Counter(tail.flags for tail in tails)),
    )


def summary_of(dump: Dump) -> dict[str, object]:
    """The `summary` of the format: totals over the rows, all of them counts.

    Without leaves `distinct_vmemmap_frames` is the sum over the PMDs, which counts a frame once for each
    PMD that maps it.
    """
    kinds = Counter(pmd.kind for pmd in dump.pmds)
    return {
        "pmds": len(dump.pmds),
        "pmd_split": kinds["split"],
        "pmd_leaf": kinds["2M leaf"],
        "hugetlb_folios": len(dump.folios),
        "optimized_flag": sum(folio.optimized for folio in dump.folios),
        "maps": dict(sorted(Counter(_map_name(folio) for folio in dump.folios).items())),
        "distinct_vmemmap_frames": _distinct_frames(dump),
        "vmemmap_pages": sum(_pages(pmd) for pmd in dump.pmds),
    }


def _map_name(folio: FolioRow) -> str:
    if folio.mapped_by is not None:
        return folio.mapped_by
    if folio.tail_ptes and folio.tail_same_as_head == folio.tail_ptes:
        return "tails->head frame"
    return "other"


def _pages(pmd: Pmd) -> int:
    return PTES_PER_TABLE if pmd.kind == "2M leaf" else sum((pmd.pte_flags or {}).values())


def _distinct_frames(dump: Dump) -> int:
    if dump.leaves is None:
        whole = sum(pmd.kind == "2M leaf" for pmd in dump.pmds) * PTES_PER_TABLE
        return whole + sum(pmd.distinct_frames or 0 for pmd in dump.pmds)
    blocks = {leaf.pfn // PTES_PER_TABLE for leaf in dump.leaves if leaf.level == 2}
    small = {leaf.pfn for leaf in dump.leaves if leaf.level == 1}
    return len(blocks) * PTES_PER_TABLE + sum(pfn // PTES_PER_TABLE not in blocks for pfn in small)
