"""Files that hold dumps, right and wrong ones."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dumps import BASE, LARGE, LINUX_6_12, PAGE, REGION, RO, RW

from hvolab.checked.error import InputError
from hvolab.dump import (
    Dump,
    FileLimits,
    dump_of,
    read_dump,
    with_mappings,
)

Json = dict[str, Any]


def rebuilt(dump: Dump) -> Dump:
    tables = {pmd.va: pmd.pfn for pmd in dump.pmds if pmd.kind == "split"}
    folios = with_mappings(dump.folios, dump.leaves or ())
    leaves = reversed(dump.leaves or ())
    built = dump_of(
        dump.kernel, dump.state, dump.ram_mb, dump.vmemmap_base, leaves, folios, dump.counters, tables
    )
    return replace(built, cmdline=dump.cmdline)


def real_document(name: str) -> Json:
    document = json.loads(gzip.decompress((LINUX_6_12 / f"{name}.json.gz").read_bytes()))
    assert isinstance(document, dict)
    return document


def refusal(path: Path, limits: FileLimits | None = None) -> str:
    """The message `read_dump` refuses `path` with, the path itself taken off."""
    with pytest.raises(InputError) as error:
        read_dump(path, limits) if limits else read_dump(path)
    file, colon, problem = str(error.value).partition(": ")
    assert (file, colon) == (str(path), ": ")
    assert "\n" not in problem
    return problem


def refusal_of(data: bytes, tmp_path: Path, limits: FileLimits | None = None) -> str:
    path = tmp_path / "dump.json"
    path.write_bytes(data)
    return refusal(path, limits)


def small_document() -> Json:
    """One 2 MiB leaf, one split region, one optimized and one plain folio."""
    head = {"pfn": "0x8000", "order": 9, "vmemmap": hex(BASE + REGION), "private": "0x10"}
    words = {"HPG_vmemmap_optimized": 1, "flags": "0x40", "refcount": 0, "type": "0xf4000000"}
    tails = {"tail_ptes": 1, "tail_distinct_frames": 1, "tail_same_as_head": 1, "tail_flags": {RO: 1}}
    plain = {"pfn": "0x200", "vmemmap": hex(BASE + 0x8000), "private": "0x0", "HPG_vmemmap_optimized": 0}
    leaf = {"va": hex(BASE), "ram": "0x0-0x8000000", "kind": "2M leaf", "pfn": "0x200", "flags": LARGE}
    split = {"va": hex(BASE + REGION), "ram": "0x8000000-0x10000000", "kind": "split", "pfn": "0x9"}
    counted = {"pte_flags": {RW: 1, RO: 1}, "distinct_frames": 1, "frames_mapped_8x": 0}
    return {
        "kernel": "k",
        "ram_mb": 256,
        "state": "s",
        "guest": ["## vmstat", "nr_memmap_pages 1", "## per-node", "nr_memmap_pages 77"],
        "vmemmap_base": hex(BASE),
        "pmds": [leaf | {"hugetlb_folios": 1}, split | {"flags": "P W U A D", "hugetlb_folios": 1} | counted],
        "folios": [
            head | words | {"head_frame": "0x46", "head_flags": RW} | tails,
            head | words | plain | {"map": "PMD leaf"},
        ],
        "columns": ["va", "level", "pfn", "flags"],
        "ptes": [
            [hex(BASE), 2, "0x200", LARGE],
            [hex(BASE + REGION), 1, "0x46", RW],
            [hex(BASE + REGION + PAGE), 1, "0x46", RO],
        ],
    }


def changed(path: tuple[str | int, ...], value: object) -> bytes:
    document: Any = small_document()
    place = document
    for step in path[:-1]:
        place = place[step]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return json.dumps(document).encode()
