"""From a JSON document to a `Dump`: the checks that need more than one field.

Promised: a `Dump` that comes out obeys docs/dump-format.md, rows in the document's order; otherwise a
`InputError` of one line. Not promised: that the rows agree with the leaves; `summary` is not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, get_args

from hvolab.dump.decode_structs import struct_blocks_from
from hvolab.dump.model import COUNTERS, HPG_VMEMMAP_OPTIMIZED, PMD_SIZE, Dump, FolioRow, Leaf, Pmd, PmdKind
from hvolab.dump.place import DumpPlace

COLUMNS: Final = ("va", "level", "pfn", "flags")
VMSTAT: Final = "## vmstat"
"""The line of `guest` after which the /proc/vmstat lines stand."""

_KINDS: Final[dict[str, PmdKind]] = {kind: kind for kind in get_args(PmdKind)}
_RAM: Final = re.compile(r"0x[0-9a-f]{1,16}-0x[0-9a-f]{1,16}")
_MAX_RAM_MB: Final = 1 << 32
_MAX_ORDER: Final = 40
_MAX_REFCOUNT: Final = (1 << 31) - 1


def dump_from(document: DumpPlace) -> Dump:
    """The dump this document is. Raises `InputError`."""
    labels = {name: document.field(name).text() for name in ("kernel", "state")}
    cmdline = document.optional("cmdline")
    vmemmap_base = document.field("vmemmap_base").va(level=2)
    return Dump(
        kernel=labels["kernel"],
        state=labels["state"],
        ram_mb=document.field("ram_mb").integer(1, _MAX_RAM_MB),
        vmemmap_base=vmemmap_base,
        pmds=_pmds(document.field("pmds"), vmemmap_base),
        folios=_folios(document.field("folios"), vmemmap_base),
        leaves=_leaves(document, vmemmap_base),
        counters=_counters(document.optional("guest")),
        cmdline=cmdline.text() if cmdline else "",
        struct_blocks=struct_blocks_from(document),
    )


def _pmds(rows: DumpPlace, vmemmap_base: int) -> tuple[Pmd, ...]:
    places = rows.items()
    pmds = tuple(_pmd(place) for place in places)
    _check_addresses([place.field("va") for place in places], [pmd.va for pmd in pmds], vmemmap_base)
    return pmds


def _pmd(row: DumpPlace) -> Pmd:
    kind = _KINDS.get(row.field("kind").text())
    if kind is None:
        raise row.field("kind").wanted(f"one of {', '.join(repr(known) for known in _KINDS)}")
    split = kind == "split"
    return Pmd(
        va=row.field("va").va(level=2),
        kind=kind,
        pfn=row.field("pfn").leaf_pfn(level=2) if kind == "2M leaf" else row.field("pfn").pfn(),
        flags=row.field("flags").flags(),
        ram=_ram(row.field("ram")),
        hugetlb_folios=row.field("hugetlb_folios").count(),
        pte_flags=row.field("pte_flags").flag_counts() if split else None,
        distinct_frames=row.field("distinct_frames").count() if split else None,
        frames_mapped_8x=row.field("frames_mapped_8x").count() if split else None,
    )


def _ram(place: DumpPlace) -> str:
    text = place.text()
    if not _RAM.fullmatch(text):
        raise place.wanted('a range of bytes like "0x0-0x8000000"')
    return text


def _folios(rows: DumpPlace, vmemmap_base: int) -> tuple[FolioRow, ...]:
    places = rows.items()
    folios = tuple(_folio(place) for place in places)
    _check_addresses(
        [place.field("vmemmap") for place in places], [folio.vmemmap for folio in folios], vmemmap_base
    )
    seen: set[int] = set()
    for place, folio in zip(places, folios, strict=True):
        if folio.pfn in seen:
            raise place.field("pfn").error(f"duplicate folio {folio.pfn:#x}")
        seen.add(folio.pfn)
    return folios


def _folio(row: DumpPlace) -> FolioRow:
    mapped_by = row.optional("map")
    head_frame = row.optional("head_frame")
    mapped = head_frame is not None
    return FolioRow(
        pfn=row.field("pfn").pfn(),
        order=row.field("order").integer(0, _MAX_ORDER),
        vmemmap=row.field("vmemmap").address(),
        optimized=_optimized(row),
        private=row.field("private").word(),
        flags=row.field("flags").word(),
        refcount=row.field("refcount").integer(-_MAX_REFCOUNT - 1, _MAX_REFCOUNT),
        page_type=row.field("type").word(),
        mapped_by=mapped_by.text() if mapped_by else None,
        head_frame=head_frame.pfn() if head_frame else None,
        head_flags=row.field("head_flags").flags() if mapped else None,
        tail_ptes=row.field("tail_ptes").count() if mapped else None,
        tail_distinct_frames=row.field("tail_distinct_frames").count() if mapped else None,
        tail_same_as_head=row.field("tail_same_as_head").count() if mapped else None,
        tail_flags=row.field("tail_flags").flag_counts() if mapped else None,
    )


def _optimized(row: DumpPlace) -> bool:
    flag = row.field("HPG_vmemmap_optimized")
    private = row.field("private").word()
    optimized = bool(flag.integer(0, 1))
    if optimized != bool(private & HPG_VMEMMAP_OPTIMIZED):
        raise flag.error(f"{int(optimized)}, but bit 4 of 'private' {private:#x} says otherwise")
    return optimized


def _leaves(document: DumpPlace, vmemmap_base: int) -> tuple[Leaf, ...] | None:
    rows = document.optional("ptes")
    if rows is None:
        return None
    columns = document.field("columns")
    if columns.value != list(COLUMNS):
        raise columns.wanted(f"the columns {', '.join(COLUMNS)}")
    places = rows.items()
    leaves = tuple(_leaf(place) for place in places)
    _check_addresses(places, [leaf.va for leaf in leaves], vmemmap_base)
    _check_overlap(places, leaves)
    return leaves


def _leaf(row: DumpPlace) -> Leaf:
    cells = row.items()
    if len(cells) != len(COLUMNS):
        raise row.wanted(f"{len(COLUMNS)} columns")
    va, level, pfn, flags = (
        DumpPlace(row.file, f"{row.where}.{name}", cell.value)
        for name, cell in zip(COLUMNS, cells, strict=True)
    )
    size = level.integer(1, 2)
    return Leaf(va.va(size), size, pfn.leaf_pfn(size), _leaf_flags(flags, size))


def _leaf_flags(place: DumpPlace, level: int) -> str:
    text = place.flags()
    words = text.split(" ")
    # What makes an entry a leaf: without these the row contradicts itself.
    if "P" not in words or ("PSE" in words) != (level == 2):
        wanted = "P and PSE" if level == 2 else "P and not PSE"
        raise place.error(f"{text!r} is no leaf of level {level}, which has {wanted}")
    return text


def _check_addresses(places: Sequence[DumpPlace], addresses: Sequence[int], vmemmap_base: int) -> None:
    seen: set[int] = set()
    for place, va in zip(places, addresses, strict=True):
        if va < vmemmap_base:
            raise place.error(f"va {va:#x} below vmemmap_base {vmemmap_base:#x}")
        if va in seen:
            raise place.error(f"duplicate va {va:#x}")
        seen.add(va)


def _check_overlap(places: Sequence[DumpPlace], leaves: Sequence[Leaf]) -> None:
    large = {leaf.va for leaf in leaves if leaf.level == 2}
    for place, leaf in zip(places, leaves, strict=True):
        region = leaf.va - leaf.va % PMD_SIZE
        if leaf.level == 1 and region in large:
            raise place.error(f"va {leaf.va:#x} lies in the 2 MiB leaf at {region:#x}")


def _counters(guest: DumpPlace | None) -> dict[str, int]:
    """Only out of the vmstat section: the per-node section has lines of the same names."""
    counters: dict[str, int] = {}
    section = ""
    for place in guest.items() if guest else ():
        line = place.text()
        name, _, value = line.partition(" ")
        if line.startswith("## "):
            section = line
        elif section == VMSTAT and name in COUNTERS:
            if name in counters:
                raise place.error(f"second line for {name!r}")
            counters[name] = DumpPlace(place.file, place.where, _number(value)).count()
    return counters


def _number(text: str) -> object:
    return int(text) if re.fullmatch(r"[0-9]{1,19}", text) else text
