"""Dumps to test with: those of real kernels (tests/fixtures), and how to change one thing in one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

from hvolab.dump import Dump, FolioRow, Leaf, read_dump

LINUX_6_12 = Path(__file__).resolve().parents[2] / "fixtures" / "linux-6.12"
LINUX_7_3 = LINUX_6_12.parent / "linux-7.3"
REAL_DUMPS = ("main0_before", "main1_alloc64", "exact_optimize0_entry", "exact_optimize0_return")
BASE = 0xFFFFEA0000000000
PAGE = 0x1000
REGION = 0x200000
RW = "P W A D G NX"
RO = "P A G NX"
LARGE = "P W A D G NX PSE"
ORIGINAL = 0x3EE00
"""The frame behind page 0 of vmemmap in main0_before and main1_alloc64; the rest follow it."""


@cache
def real(name: str, kernel: Path = LINUX_6_12) -> Dump:
    return read_dump(kernel / f"{name}.json.gz")


def leaves_of(dump: Dump) -> tuple[Leaf, ...]:
    assert dump.leaves is not None
    return dump.leaves


def with_leaf(dump: Dump, page: int, change: Callable[[Leaf], Leaf]) -> Dump:
    """The leaf of that page of vmemmap changed."""
    va = dump.vmemmap_base + page * PAGE
    assert any(leaf.va == va for leaf in leaves_of(dump))
    return replace(dump, leaves=tuple(change(leaf) if leaf.va == va else leaf for leaf in leaves_of(dump)))


def with_folio(dump: Dump, number: int, change: Callable[[FolioRow], FolioRow]) -> Dump:
    """The folio row of that number changed."""
    rows = dump.folios
    return replace(dump, folios=(*rows[:number], change(rows[number]), *rows[number + 1 :]))


def leaf(page: int) -> str:
    """How a difference of the leaf of that page says where."""
    return f"leaf {BASE + page * PAGE:#x}"


def folio_at(page: int, head: int) -> list[Leaf]:
    """The eight leaves of an optimized 2 MiB folio whose head page of vmemmap is `page`."""
    return [Leaf(BASE + (page + n) * PAGE, 1, head, RO if n else RW) for n in range(8)]
