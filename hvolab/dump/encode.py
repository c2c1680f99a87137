"""From a `Dump` to the JSON document of docs/dump-format.md, field names and order of the real ones.

Promised: equal dumps give equal documents, and the same bytes once printed, whatever the order of their
mappings. Not promised: that the document can be read back; `hvolab.dump.write_dump` checks that.
"""

from __future__ import annotations

from collections.abc import Mapping

from hvolab.dump.build import summary_of
from hvolab.dump.decode import COLUMNS, VMSTAT
from hvolab.dump.decode_structs import STRUCT_COLUMNS
from hvolab.dump.model import COUNTERS, Dump, FolioRow, Leaf, Pmd, StructBlock


def document_of(dump: Dump) -> dict[str, object]:
    """The JSON document, as Python values."""
    document: dict[str, object] = {"kernel": dump.kernel}
    if dump.cmdline:
        document["cmdline"] = dump.cmdline
    document |= {
        "ram_mb": dump.ram_mb,
        "state": dump.state,
        "guest": _guest(dump.counters),
        "vmemmap_base": hex(dump.vmemmap_base),
        "summary": summary_of(dump),
        "pmds": [_pmd(pmd) for pmd in dump.pmds],
        "folios": [_folio(folio) for folio in dump.folios],
    }
    if dump.leaves is not None:
        document["columns"] = list(COLUMNS)
        document["ptes"] = [_pte(leaf) for leaf in dump.leaves]
    if dump.struct_blocks:
        document["struct_columns"] = list(STRUCT_COLUMNS)
        document["struct_pages"] = [_block(block) for block in dump.struct_blocks]
    return document


def _block(block: StructBlock) -> dict[str, object]:
    rows = [[run.number, run.count, *run.words[:-1], run.refcount, run.words[-1]] for run in block.rows]
    return {"pfn": hex(block.pfn), "order": block.order, "rows": rows}


def _guest(counters: Mapping[str, int]) -> list[str]:
    lines = [f"{name} {counters[name]}" for name in COUNTERS if name in counters]
    return [VMSTAT, *lines] if lines else []


def _pmd(pmd: Pmd) -> dict[str, object]:
    return _without_none(
        {
            "va": hex(pmd.va),
            "ram": pmd.ram,
            "kind": pmd.kind,
            "pfn": hex(pmd.pfn),
            "flags": pmd.flags,
            "hugetlb_folios": pmd.hugetlb_folios,
            "pte_flags": _sorted(pmd.pte_flags),
            "distinct_frames": pmd.distinct_frames,
            "frames_mapped_8x": pmd.frames_mapped_8x,
        }
    )


def _folio(folio: FolioRow) -> dict[str, object]:
    return _without_none(
        {
            "pfn": hex(folio.pfn),
            "order": folio.order,
            "vmemmap": hex(folio.vmemmap),
            "private": hex(folio.private),
            "HPG_vmemmap_optimized": int(folio.optimized),
            "flags": hex(folio.flags),
            "refcount": folio.refcount,
            "type": hex(folio.page_type),
            "map": folio.mapped_by,
            "head_frame": None if folio.head_frame is None else hex(folio.head_frame),
            "head_flags": folio.head_flags,
            "tail_ptes": folio.tail_ptes,
            "tail_distinct_frames": folio.tail_distinct_frames,
            "tail_same_as_head": folio.tail_same_as_head,
            "tail_flags": _sorted(folio.tail_flags),
        }
    )


def _pte(leaf: Leaf) -> list[object]:
    return [hex(leaf.va), leaf.level, hex(leaf.pfn), leaf.flags]


def _sorted(counts: Mapping[str, int] | None) -> dict[str, int] | None:
    return None if counts is None else dict(sorted(counts.items()))


def _without_none(row: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in row.items() if value is not None}
