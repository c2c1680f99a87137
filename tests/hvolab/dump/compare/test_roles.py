"""What a frame is to vmemmap, with frames that were given back and came in again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace

from dumps import (
    BASE,
    LARGE,
    ORIGINAL,
    PAGE,
    REGION,
    RO,
    RW,
    folio_at,
    leaf,
    leaves_of,
    real,
    with_leaf,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from hvolab.dump import Dump, Leaf, dump_of
from hvolab.dump.compare import Difference, compare


def optimized_pages(dump: Dump) -> frozenset[int]:
    """The pages of vmemmap of the 64 folios."""
    pages = {(folio.vmemmap - BASE) // PAGE + n for folio in dump.folios for n in range(8)}
    assert len(pages) == 64 * 8
    return frozenset(pages)


def restored_otherwise() -> Dump:
    """What Linux restored, with the frames of the restored tails handed out in another order."""
    dump, pages = real("main2_freed"), optimized_pages(real("main1_alloc64"))
    small = [found for found in leaves_of(dump) if found.level == 1 and (found.va - BASE) // PAGE in pages]
    tails = [found for found in small if (found.va - BASE) // PAGE % 8]
    assert len(tails) == 64 * 7
    turned = dict(zip((t.va for t in tails), reversed([t.pfn for t in tails]), strict=True))
    leaves = (replace(found, pfn=turned.get(found.va, found.pfn)) for found in leaves_of(dump))
    return replace(dump, leaves=tuple(leaves))


def test_which_frames_the_allocator_restores_with_makes_no_difference() -> None:
    """Some of them backed other pages of vmemmap before, and some came back to their own by chance."""
    originals = range(ORIGINAL, ORIGINAL + 8 * 512)
    pages = optimized_pages(real("main1_alloc64"))
    again = [
        found
        for found in leaves_of(real("main2_freed"))
        if (found.va - BASE) // PAGE in pages and found.pfn in originals
    ]
    assert len(again) > 64
    assert compare(real("main2_freed"), restored_otherwise()) == ()


def split_region(changed: dict[int, int]) -> Dump:
    """One region, split, every page on its own frame but those in `changed`."""
    leaves = [Leaf(BASE + n * PAGE, 1, changed.get(n, ORIGINAL + n), RW) for n in range(512)]
    return dump_of("k", "s", 128, BASE, leaves, (), {}, {BASE: 9})


def test_a_frame_that_came_back_to_its_own_page_by_chance_is_as_fresh_as_its_neighbours() -> None:
    elsewhere = split_region({16 + n: 0x5000 + n for n in range(8)})
    by_chance = split_region({16 + n: 0x5000 + n for n in (0, 1, 2, 4, 6, 7)})
    assert compare(elsewhere, by_chance) == ()


def test_three_tails_of_eight_replaced_leave_the_other_five_what_they_were() -> None:
    dump = split_region({})
    changed = split_region({17: 0x5000, 18: 0x5001, 19: 0x5002})
    assert compare(dump, changed) == tuple(
        Difference(leaf(page), "role", f"original {page}", "fresh") for page in (17, 18, 19)
    )


def test_a_given_back_frame_of_another_page_is_fresh() -> None:
    dump = real("main1_alloc64")
    changed = with_leaf(dump, 7, lambda found: replace(found, pfn=ORIGINAL + 249))
    assert compare(dump, changed) == (Difference(leaf(7), "role", "original 7", "fresh"),)


def test_a_frame_still_in_place_that_backs_another_page_too_is_shared() -> None:
    dump = real("main1_alloc64")
    changed = with_leaf(dump, 7, lambda found: replace(found, pfn=ORIGINAL + 9))
    assert compare(dump, changed) == (
        Difference(leaf(7), "role", "original 7", "original 9, shared"),
        Difference(leaf(9), "role", "original 9", "original 9, shared"),
    )


def with_head(head: int) -> Dump:
    """A region with an optimized folio at page 16, on that frame, and the rest in place."""
    plain = [Leaf(BASE + n * PAGE, 1, ORIGINAL + n, RW) for n in range(512) if not 16 <= n < 24]
    return dump_of("k", "s", 128, BASE, folio_at(16, head) + plain, (), {}, {BASE: 9})


def test_a_head_on_a_frame_that_one_of_its_tails_had_at_boot_is_fresh() -> None:
    assert compare(with_head(0x5000), with_head(ORIGINAL + 18)) == ()


def test_a_head_that_kept_its_own_frame_is_told_from_a_new_one() -> None:
    """No memory for a new head page: the old one stays."""
    found = compare(with_head(0x5000), with_head(ORIGINAL + 16))
    assert found == tuple(
        Difference(leaf(page), "role", "fresh, shared from page 16", "original 16, shared")
        for page in range(16, 24)
    )


def every_wrong_leaf(dump: Dump) -> Iterator[tuple[int, Leaf]]:
    """For some pages of each kind, the leaf with one thing wrong."""
    neighbour = {found.va: found.pfn for found in leaves_of(dump) if found.level == 1}
    for found in leaves_of(dump)[::211]:
        page = (found.va - BASE) // PAGE
        yield page, replace(found, flags="P" if found.level == 1 else "P PSE")
        if found.level == 1 and found.va + PAGE in neighbour:
            yield page, replace(found, pfn=neighbour[found.va + PAGE])


def test_one_flag_or_one_frame_changed_is_found_wherever_it_is() -> None:
    kinds: Counter[str] = Counter()
    for name in ("restored24", "others20", "shrunk8", "grown16", "both_optimized", "both_shrunk"):
        dump = real(name)
        by_page = {(found.va - BASE) // PAGE: found for found in leaves_of(dump)}
        leaves = tuple(every_wrong_leaf(dump))
        assert leaves, name
        for page, wrong in leaves:
            if wrong == by_page[page]:
                continue  # the neighbour has the same frame: two tails of one folio
            kinds[name] += 1
            assert compare(dump, with_leaf(dump, page, lambda _found, wrong=wrong: wrong)), (name, page)  # type: ignore[misc]
    assert len(kinds) == 6
    assert min(kinds.values()) > 9


def test_a_region_without_originals_still_tells_shared_from_single() -> None:
    """All of a 1 GiB folio's vmemmap: its frames are all fresh."""
    left = [Leaf(BASE + n * PAGE, 1, 0x5000, RO if n else RW) for n in range(512)]
    large = Leaf(BASE + REGION, 2, ORIGINAL, LARGE)
    one = dump_of("k", "s", 256, BASE, [*left, large], (), {}, {BASE: 9})
    other = with_leaf(one, 7, lambda found: replace(found, pfn=0x6000))
    assert compare(one, other) == (Difference(leaf(7), "role", "fresh, shared from page 0", "fresh"),)


# --- regions whose frames are all fresh, or nearly ------------------------------------------------------


def one_region(heads: Mapping[int, int], rest: int = ORIGINAL) -> Dump:
    """A split region: optimized folios with their head frames by first page, `rest` + page elsewhere."""
    optimized = [found for page, head in heads.items() for found in folio_at(page, head)]
    taken = {found.va for found in optimized}
    plain = [Leaf(BASE + n * PAGE, 1, rest + n, RW) for n in range(512) if BASE + n * PAGE not in taken]
    return dump_of("k", "s", 128, BASE, optimized + plain, (), {}, {BASE: 9})


def all_optimized(heads: list[int]) -> Dump:
    return one_region(dict(zip(range(0, 512, 8), heads, strict=True)))


@settings(deadline=None, max_examples=50)
@given(heads=st.lists(st.integers(0, 0x3FFFF), min_size=64, max_size=64, unique=True))
def test_all_fresh_frames_of_a_region_compare_equal_whatever_their_numbers(heads: list[int]) -> None:
    assert compare(all_optimized([0x5000 + n for n in range(64)]), all_optimized(heads)) == ()


def test_fresh_heads_that_all_lie_where_originals_would_are_not_taken_for_originals() -> None:
    in_place, elsewhere = [0x5000 + 8 * n for n in range(64)], [0x5000 - n for n in range(64)]
    assert compare(all_optimized(in_place), all_optimized(elsewhere)) == ()


def test_an_unsplit_region_against_one_all_fresh() -> None:
    before = dump_of("k", "s", 128, BASE, [Leaf(BASE, 2, ORIGINAL, LARGE)], (), {}, {})
    found = compare(before, all_optimized([0x5000 + n for n in range(64)]))
    assert Counter(each.field for each in found) == {"kind": 1, "level": 1, "role": 512, "flags": 1 + 448}


def test_eight_originals_left_in_place_are_enough_to_recognise_them() -> None:
    heads = {page: 0x5000 + page for page in range(8, 512, 8)}
    assert compare(one_region(heads), one_region(heads, rest=0x1000)) == ()
    swapped = with_leaf(one_region(heads), 8, lambda found: replace(found, pfn=ORIGINAL + 8))
    assert compare(one_region(heads), swapped)[0] == Difference(
        leaf(8), "role", "fresh, shared from page 8", "original 8"
    )


def test_fewer_than_eight_originals_left_in_place_count_as_fresh() -> None:
    heads = {page: 0x5000 + page for page in range(8, 512, 8)}
    seven = with_leaf(one_region(heads), 0, lambda found: replace(found, pfn=0x77))
    eighth = with_leaf(seven, 1, lambda found: replace(found, pfn=0x78))
    assert compare(seven, eighth) == ()


def test_frames_out_of_place_do_not_outvote_the_originals_however_many_lie_in_one_block() -> None:
    """Restored folios: tails on pages taken, last first, from one 2 MiB block."""
    few = [Leaf(BASE + n * PAGE, 1, ORIGINAL + n, RW) for n in range(8)]
    restored = [Leaf(BASE + n * PAGE, 1, 0x1000 + 511 - n, RW) for n in range(8, 512)]
    dump = dump_of("k", "s", 128, BASE, few + restored, (), {}, {BASE: 9})
    assert compare(dump, one_region({}))[0] == Difference(leaf(8), "role", "fresh", "original 8")


def test_two_blocks_with_equal_claims_are_both_no_originals() -> None:
    halves = [Leaf(BASE + n * PAGE, 1, (0x1000 if n % 2 else 0x2000) + n, RW) for n in range(512)]
    torn = dump_of("k", "s", 128, BASE, halves, (), {}, {BASE: 9})
    found = compare(torn, one_region({}))
    assert [each.left for each in found] == ["fresh"] * 512
    assert [each.right for each in found] == [f"original {page}" for page in range(512)]


def test_a_split_region_with_the_frames_of_an_unsplit_one_does_not_own_them() -> None:
    ptes = [Leaf(BASE + n * PAGE, 1, ORIGINAL + n, RW) for n in range(512)]
    stolen = dump_of("k", "s", 256, BASE, [*ptes, Leaf(BASE + REGION, 2, ORIGINAL, LARGE)], (), {}, {BASE: 9})
    right = replace(stolen, leaves=(*ptes, Leaf(BASE + REGION, 2, ORIGINAL + 512, LARGE)))
    found = compare(stolen, right)
    assert found[0] == Difference(leaf(0), "role", "original 512, shared", "original 0")
    assert found[-1] == Difference(leaf(512), "role", "original 512, shared", "original 512")
    assert len(found) == 513
