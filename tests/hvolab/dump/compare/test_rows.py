"""PMD rows, folios, counters and whole dumps; and two dumps of which one has counts only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
from dumps import (
    BASE,
    LARGE,
    ORIGINAL,
    PAGE,
    REAL_DUMPS,
    REGION,
    RO,
    RW,
    leaf,
    leaves_of,
    real,
)

from hvolab.dump import Dump, FolioRow, Leaf, dump_of, with_mappings
from hvolab.dump.compare import MISSING, Difference, compare


def is_fresh(pfn: int) -> bool:
    return not ORIGINAL <= pfn < ORIGINAL + 8 * 512


@pytest.mark.parametrize("name", REAL_DUMPS)
def test_a_dump_does_not_differ_from_itself(name: str) -> None:
    assert compare(real(name), real(name)) == ()


def renumbered(dump: Dump, new_pfn: Callable[[int], int]) -> Dump:
    leaves = tuple(replace(leaf, pfn=new_pfn(leaf.pfn)) for leaf in leaves_of(dump))
    return replace(dump, leaves=leaves)


def test_fresh_frames_elsewhere_make_no_difference() -> None:
    dump = real("main1_alloc64")
    moved = renumbered(dump, lambda pfn: pfn + 0x123 if is_fresh(pfn) else pfn)
    assert moved != dump
    assert compare(dump, moved) == ()


def test_fresh_frames_in_another_order_make_no_difference() -> None:
    dump = real("main1_alloc64")
    fresh = sorted({leaf.pfn for leaf in leaves_of(dump) if is_fresh(leaf.pfn)})
    assert len(fresh) == 64
    turned = dict(zip(fresh, reversed(fresh), strict=True))
    assert compare(dump, renumbered(dump, lambda pfn: turned.get(pfn, pfn))) == ()


def test_the_vmemmap_lying_elsewhere_in_memory_makes_no_difference() -> None:
    dump = real("main1_alloc64")
    blocks = {ORIGINAL // 512 + n: 100 - 3 * n for n in range(8)}
    moved = renumbered(dump, lambda pfn: pfn if is_fresh(pfn) else blocks[pfn // 512] * 512 + pfn % 512)
    pmds = tuple(
        replace(pmd, pfn=blocks[pmd.pfn // 512] * 512 if pmd.kind == "2M leaf" else 5) for pmd in dump.pmds
    )
    assert compare(dump, replace(moved, pmds=pmds)) == ()


def test_labels_and_words_that_are_no_business_of_the_comparison() -> None:
    dump = real("main1_alloc64")
    folios = tuple(
        replace(folio, private=0x10, flags=1, refcount=7, page_type=2, head_frame=1) for folio in dump.folios
    )
    other = replace(dump, kernel="another", state="another", cmdline="another", folios=folios)
    assert compare(dump, other) == ()


def test_the_order_of_rows_makes_no_difference() -> None:
    dump = real("main1_alloc64")
    turned = replace(dump, leaves=leaves_of(dump)[::-1], pmds=dump.pmds[::-1], folios=dump.folios[::-1])
    assert compare(dump, turned) == ()


def test_before_and_after_64_folios() -> None:
    """3 PMDs split; 64 x 8 pages on other frames, 64 x 7 of them read-only; 64 folios; 2 counters."""
    found = compare(real("main0_before"), real("main1_alloc64"))
    assert Counter((each.where.split()[0], each.field) for each in found) == {
        ("pmd", "kind"): 3,
        ("pmd", "flags"): 3,
        ("leaf", "level"): 3,
        ("leaf", "role"): 64 * 8,
        ("leaf", "flags"): 64 * 7,
        ("folio", "folio"): 64,
        ("counter", "pages"): 2,
    }
    assert Counter((each.field, each.left, each.right) for each in found if each.field != "role") == {
        ("kind", "2M leaf", "split"): 3,
        ("flags", LARGE, "P W U A D"): 3,
        ("level", "2", "1"): 3,
        ("flags", RW, RO): 64 * 7,
        ("folio", MISSING, "order 9, optimized"): 64,
        ("pages", "4096", "3584"): 1,
        ("pages", "0", "64"): 1,
    }


def test_the_first_folio_of_64_page_by_page() -> None:
    found = compare(real("main0_before"), real("main1_alloc64"))
    tails = [
        difference
        for page in range(249, 256)
        for difference in (
            Difference(leaf(page), "flags", RW, RO),
            Difference(leaf(page), "role", f"original {page}", "fresh, shared from page 248"),
        )
    ]
    assert list(found[:19]) == [
        Difference("pmd 0xffffea0000000000", "kind", "2M leaf", "split"),
        Difference("pmd 0xffffea0000000000", "flags", LARGE, "P W U A D"),
        Difference("leaf 0xffffea0000000000", "level", "2", "1"),
        Difference("leaf 0xffffea00000f8000", "role", "original 248", "fresh, shared from page 248"),
        Difference("folio 0x3e00", "folio", MISSING, "order 9, optimized"),
        *tails,
    ]


def test_the_other_way_round_left_and_right_change_places() -> None:
    there = compare(real("main0_before"), real("main1_alloc64"))
    back = compare(real("main1_alloc64"), real("main0_before"))
    assert back == tuple(Difference(each.where, each.field, each.right, each.left) for each in there)


def test_differences_come_in_address_order_and_counters_last() -> None:
    found = compare(real("main0_before"), real("main1_alloc64"))
    addresses = [int(each.where.split()[1], 16) for each in found if each.where.startswith(("pmd", "leaf"))]
    assert addresses == sorted(addresses)
    assert [each.where for each in found[-2:]] == [
        "counter nr_memmap_boot_pages",
        "counter nr_memmap_pages",
    ]


def changed_pmd(dump: Dump, **fields: object) -> Dump:
    first = replace(dump.pmds[0], **fields)  # type: ignore[arg-type]
    return replace(dump, pmds=(first, *dump.pmds[1:]))


def test_a_pmd_row() -> None:
    dump = real("main1_alloc64")
    where = "pmd 0xffffea0000000000"
    assert compare(dump, changed_pmd(dump, flags="P W A D")) == (
        Difference(where, "flags", "P W U A D", "P W A D"),
    )
    assert compare(dump, changed_pmd(dump, kind="absent")) == (Difference(where, "kind", "split", "absent"),)
    assert compare(dump, replace(dump, pmds=dump.pmds[1:])) == (
        Difference(where, "pmd", "split, P W U A D", MISSING),
    )
    assert compare(dump, changed_pmd(dump, pfn=1)) == ()


def test_a_folio_row_field_by_field() -> None:
    dump = real("main1_alloc64")
    first = dump.folios[0]
    changed = replace(
        first,
        order=8,
        optimized=False,
        private=0x8,
        mapped_by="other",
        head_flags=RO,
        tail_ptes=6,
        tail_distinct_frames=2,
        tail_same_as_head=5,
        tail_flags={RW: 1, RO: 5},
    )
    where = "folio 0x3e00"
    assert compare(dump, replace(dump, folios=(changed, *dump.folios[1:]))) == (
        Difference(where, "order", "9", "8"),
        Difference(where, "optimized", "True", "False"),
        Difference(where, "map", MISSING, "other"),
        Difference(where, "head_flags", RW, RO),
        Difference(where, "tail_ptes", "7", "6"),
        Difference(where, "tail_distinct_frames", "1", "2"),
        Difference(where, "tail_same_as_head", "7", "5"),
        Difference(where, "tail_flags", f"7 x {RO}", f"5 x {RO}; 1 x {RW}"),
    )


def test_a_folio_missing() -> None:
    dump = real("exact_optimize0_entry")
    assert compare(dump, replace(dump, folios=dump.folios[:1])) == (
        Difference("folio 0x3e800", "folio", "order 9, not optimized", MISSING),
    )


def test_counters() -> None:
    dump = real("main1_alloc64")
    assert compare(dump, replace(dump, counters={"nr_memmap_pages": 65})) == (
        Difference("counter nr_memmap_boot_pages", "pages", "3584", MISSING),
        Difference("counter nr_memmap_pages", "pages", "64", "65"),
    )
    assert compare(dump, replace(dump, counters={})) == ()


def test_another_size_of_ram() -> None:
    dump = real("main1_alloc64")
    assert compare(dump, replace(dump, ram_mb=2048)) == (Difference("dump", "ram_mb", "1024", "2048"),)


def test_another_vmemmap_base_is_one_difference_and_moves_no_row() -> None:
    dump = real("main1_alloc64")
    by = 0x40000000
    moved = replace(
        dump,
        vmemmap_base=BASE + by,
        leaves=tuple(replace(found, va=found.va + by) for found in leaves_of(dump)),
        pmds=tuple(replace(pmd, va=pmd.va + by) for pmd in dump.pmds),
        folios=tuple(replace(folio, vmemmap=folio.vmemmap + by) for folio in dump.folios),
    )
    assert compare(dump, moved) == (
        Difference("dump", "vmemmap_base", "0xffffea0000000000", "0xffffea0040000000"),
    )
    one_less = replace(moved, leaves=leaves_of(moved)[:-1])
    assert compare(dump, one_less)[1].where == leaf(4095)


def like_optimize0_return(tail_flags: str) -> Dump:
    """What the counts of exact_optimize0_return stand for, leaf by leaf."""
    heads = {248: 0x111, 4000: 0x222}
    shared = {page + n: pfn for page, pfn in heads.items() for n in range(8)}
    split = [page for region in (0, 7) for page in range(region * 512, (region + 1) * 512)]
    ptes = [
        Leaf(BASE + page * PAGE, 1, shared.get(page, ORIGINAL + page), tail_flags if page in shared else RW)
        for page in split
    ]
    fixed = [
        replace(found, flags=RW) if found.va in {BASE + p * PAGE for p in heads} else found for found in ptes
    ]
    large = [Leaf(BASE + n * REGION, 2, ORIGINAL + n * 512, LARGE) for n in range(1, 7)]
    rows = [FolioRow(pfn, 9, BASE + pfn * 64, True, 0x10, 0, 0, 0) for pfn in (0x3E00, 0x3E800)]
    tables = {BASE: 1, BASE + 7 * REGION: 2}
    return dump_of("k", "s", 1024, BASE, fixed + large, with_mappings(rows, fixed), {}, tables)


def test_counts_only_against_leaves_that_give_these_counts() -> None:
    assert compare(real("exact_optimize0_return"), like_optimize0_return(RO)) == ()
    assert compare(like_optimize0_return(RO), real("exact_optimize0_return")) == ()


def test_counts_only_against_leaves_with_writable_tails() -> None:
    found = compare(real("exact_optimize0_return"), like_optimize0_return(RW))
    expected = [
        difference
        for where, folio in (("pmd 0xffffea0000000000", "0x3e00"), ("pmd 0xffffea0000e00000", "0x3e800"))
        for difference in (
            Difference(where, "pte_flags", f"7 x {RO}; 505 x {RW}", f"512 x {RW}"),
            Difference(f"folio {folio}", "tail_flags", f"7 x {RO}", f"7 x {RW}"),
        )
    ]
    assert list(found) == expected
    back = compare(like_optimize0_return(RW), real("exact_optimize0_return"))
    assert [(each.where, each.field) for each in back] == [(each.where, each.field) for each in expected]


def test_entry_and_return_of_optimize_folios_by_counts() -> None:
    found = compare(real("exact_optimize0_entry"), real("exact_optimize0_return"))
    expected = [
        difference
        for where, folio in (
            ("pmd 0xffffea0000000000", "folio 0x3e00"),
            ("pmd 0xffffea0000e00000", "folio 0x3e800"),
        )
        for difference in (
            Difference(where, "kind", "2M leaf", "split"),
            Difference(where, "flags", LARGE, "P W U A D"),
            Difference(where, "pte_flags", f"512 x {RW}", f"7 x {RO}; 505 x {RW}"),
            Difference(where, "distinct_frames", "512", "505"),
            Difference(where, "frames_mapped_8x", "0", "1"),
            Difference(folio, "optimized", "False", "True"),
            Difference(folio, "map", "PMD leaf", MISSING),
            Difference(folio, "head_flags", MISSING, RW),
            Difference(folio, "tail_ptes", MISSING, "7"),
            Difference(folio, "tail_distinct_frames", MISSING, "1"),
            Difference(folio, "tail_same_as_head", MISSING, "7"),
            Difference(folio, "tail_flags", MISSING, f"7 x {RO}"),
        )
    ]
    assert list(found) == expected


def test_counts_of_two_folios_against_64_real_ones() -> None:
    """64 - 2 folios more, in regions 0 (22), 1 (40, hence split) and 7 (none)."""
    found = compare(real("exact_optimize0_return"), real("main1_alloc64"))
    pmds = [each for each in found if each.where.startswith("pmd")]
    assert pmds == [
        Difference("pmd 0xffffea0000000000", "hugetlb_folios", "1", "23"),
        Difference("pmd 0xffffea0000000000", "pte_flags", f"7 x {RO}; 505 x {RW}", f"161 x {RO}; 351 x {RW}"),
        Difference("pmd 0xffffea0000000000", "distinct_frames", "505", "351"),
        Difference("pmd 0xffffea0000000000", "frames_mapped_8x", "1", "23"),
        Difference("pmd 0xffffea0000200000", "kind", "2M leaf", "split"),
        Difference("pmd 0xffffea0000200000", "flags", LARGE, "P W U A D"),
        Difference("pmd 0xffffea0000200000", "hugetlb_folios", "0", "40"),
        Difference("pmd 0xffffea0000200000", "pte_flags", f"512 x {RW}", f"280 x {RO}; 232 x {RW}"),
        Difference("pmd 0xffffea0000200000", "distinct_frames", "512", "232"),
        Difference("pmd 0xffffea0000200000", "frames_mapped_8x", "0", "40"),
    ]
    rest = [each for each in found if not each.where.startswith("pmd")]
    assert Counter((each.field, each.left, each.right) for each in rest) == {
        ("folio", MISSING, "order 9, optimized"): 62
    }


def test_an_absent_pmd_counts_nothing() -> None:
    left, right = (
        replace(dump_of("k", "s", 128, BASE, [], (), {}, tables), leaves=None) for tables in ({}, {BASE: 9})
    )
    assert compare(left, right) == (
        Difference("pmd 0xffffea0000000000", "kind", "absent", "split"),
        Difference("pmd 0xffffea0000000000", "flags", "none", "P W U A D"),
    )
