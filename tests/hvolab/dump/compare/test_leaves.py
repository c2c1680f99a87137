"""Leaf by leaf: one thing changed is one difference."""

from __future__ import annotations

from dataclasses import replace

import pytest
from dumps import (
    BASE,
    LARGE,
    ORIGINAL,
    PAGE,
    RO,
    RW,
    leaf,
    leaves_of,
    real,
    with_leaf,
)

from hvolab.dump import Leaf
from hvolab.dump.compare import MISSING, Difference, compare


def test_one_flag_of_one_leaf() -> None:
    """The mistake of a tail left writable, at page 249, the first tail of the first folio."""
    dump = real("main1_alloc64")
    changed = with_leaf(dump, 249, lambda found: replace(found, flags=RW))
    assert compare(dump, changed) == (Difference(leaf(249), "flags", RO, RW),)


def test_one_flag_of_a_large_leaf() -> None:
    dump = real("main0_before")
    changed = with_leaf(dump, 512, lambda found: replace(found, flags="P W A D NX PSE"))
    assert compare(dump, changed) == (Difference(leaf(512), "flags", LARGE, "P W A D NX PSE"),)


@pytest.mark.parametrize(
    ("page", "pfn", "left", "right"),
    [
        (7, 0x77, "original 7", "fresh"),
        (7, ORIGINAL + 248, "original 7", "fresh"),
        (249, ORIGINAL + 249, "fresh, shared from page 248", "original 249"),
        (249, 0x77, "fresh, shared from page 248", "fresh"),
    ],
)
def test_one_frame_replaced(page: int, pfn: int, left: str, right: str) -> None:
    dump = real("main1_alloc64")
    changed = with_leaf(dump, page, lambda found: replace(found, pfn=pfn))
    assert compare(dump, changed) == (Difference(leaf(page), "role", left, right),)


def test_a_tail_on_the_head_of_another_folio() -> None:
    dump = real("main1_alloc64")
    other_head = next(found.pfn for found in leaves_of(dump) if found.va == BASE + 336 * PAGE)
    changed = with_leaf(dump, 249, lambda found: replace(found, pfn=other_head))
    found = compare(dump, changed)
    # The group of pages 336 to 343 is named after its first page, which is now 249.
    assert found == tuple(
        Difference(leaf(page), "role", f"fresh, shared from page {name}", "fresh, shared from page 249")
        for page, name in [(249, 248), *[(page, 336) for page in range(336, 344)]]
    )


def test_another_frame_for_a_head_is_told_of_head_and_tails() -> None:
    dump = real("main1_alloc64")
    changed = with_leaf(dump, 248, lambda found: replace(found, pfn=0x77))
    shared = "fresh, shared from page 248"
    assert compare(dump, changed) == (
        Difference(leaf(248), "role", shared, "fresh"),
        *(Difference(leaf(page), "role", shared, "fresh, shared from page 249") for page in range(249, 256)),
    )


def test_a_page_mapped_twice_is_shared() -> None:
    dump = real("main1_alloc64")
    changed = with_leaf(dump, 1, lambda found: replace(found, pfn=ORIGINAL))
    assert compare(dump, changed) == (
        Difference(leaf(0), "role", "original 0", "original 0, shared"),
        Difference(leaf(1), "role", "original 1", "original 0, shared"),
    )


def test_a_pte_pointing_into_a_large_leaf_makes_both_shared() -> None:
    dump = real("main1_alloc64")
    changed = with_leaf(dump, 1, lambda found: replace(found, pfn=ORIGINAL + 2 * 512 + 9))
    assert compare(dump, changed) == (
        Difference(leaf(1), "role", "original 1", f"original {2 * 512 + 9}, shared"),
        Difference(leaf(2 * 512), "role", "original 1024", "original 1024, shared"),
    )


def test_two_large_leaves_on_the_same_frames() -> None:
    dump = real("main0_before")
    changed = with_leaf(dump, 512, lambda found: replace(found, pfn=ORIGINAL))
    assert compare(dump, changed) == (
        Difference(leaf(0), "role", "original 0", "original 0, shared"),
        Difference(leaf(512), "role", "original 512", "original 0, shared"),
    )


@pytest.mark.parametrize(
    ("name", "page", "shown"),
    [
        ("main1_alloc64", 7, f"level 1, {RW}, original 7"),
        ("main1_alloc64", 250, f"level 1, {RO}, fresh, shared from page 248"),
        ("main0_before", 512, f"level 2, {LARGE}, original 512"),
    ],
)
def test_one_leaf_missing(name: str, page: int, shown: str) -> None:
    dump = real(name)
    va = BASE + page * PAGE
    cut = replace(dump, leaves=tuple(found for found in leaves_of(dump) if found.va != va))
    assert compare(dump, cut) == (Difference(leaf(page), "leaf", shown, MISSING),)
    assert compare(cut, dump) == (Difference(leaf(page), "leaf", MISSING, shown),)


def test_a_hole_in_a_region_that_is_a_large_leaf_on_the_other_side() -> None:
    before = real("main0_before")
    ptes = [Leaf(BASE + page * PAGE, 1, ORIGINAL + page, RW) for page in range(512) if page != 7]
    split = replace(before, leaves=(*ptes, *leaves_of(before)[1:]))
    assert compare(before, split) == (
        Difference(leaf(0), "level", "2", "1"),
        Difference(leaf(7), "leaf", f"level 1, {RW}, original 7", MISSING),
    )
