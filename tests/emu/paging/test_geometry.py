"""The geometry TLB: victims worked out by hand; what sets, levels and ports hold is what hardware holds."""

from __future__ import annotations

import pytest
from geometry_probe import CODE, DATA, Probe, array, model_of
from hypothesis import given
from hypothesis import strategies as st
from paging_rig import (
    FRAME,
    GIB1,
    MIB2,
    PAGE,
    RW,
    TABLE,
    VA,
    A,
    G,
    P,
    PagingRig,
    W,
    access,
    fetch,
    leaf,
    read,
    write,
)
from property_settings import PROPERTY

from emu.addr import PageSize, Pfn, VirtAddr, page_start
from emu.events import Source
from emu.mmu import Translation
from emu.paging.geometry import ArraySpec, Geometry, GeometryTlb, Replacement, SetHash
from emu.paging.models import SKYLAKE, ZEN_3, CpuModel
from emu.paging.pte import Pte
from emu.paging.tlb import ALL_RULES, Invlpg, Rule

LARGE = frozenset({PageSize.KIB4, PageSize.MIB2})


# --- replacement by hand ------------------------------------------------------------------------------


def test_a_set_holds_as_many_pages_as_it_has_ways() -> None:
    probe = Probe(array(sets=1, ways=4))
    assert probe.looks(0, 1, 2, 3) == [False] * 4
    assert probe.looks(0, 1, 2, 3) == [True] * 4
    assert probe.look(4) is False
    assert probe.held() == {1, 2, 3, 4}


def test_lru_evicts_the_page_used_longest_ago() -> None:
    probe = Probe(array(sets=1, ways=4))
    probe.looks(0, 1, 2, 3, 0, 2)  # least recent first: 1 3 0 2
    assert probe.victims(10, 11, 12, 13) == [1, 3, 0, 2]


def test_tree_plru_evicts_where_the_tree_points() -> None:
    """Four ways, pages 0 to 3 in ways 0 to 3; each use turns the bits on its path away from it.

    After filling: root left, left node 0, right node 2. Victims then: way 0 (root turns right, left node
    to 1), way 2 (root left, right node to 3), way 1, way 3.
    """
    probe = Probe(array(sets=1, ways=4, replacement=Replacement.TREE_PLRU))
    probe.looks(0, 1, 2, 3)
    assert probe.victims(10, 11, 12, 13) == [0, 2, 1, 3]


def test_tree_plru_is_not_lru_after_a_hit() -> None:
    """Using page 0 turns the root to the right half, whose node points to way 2: LRU would take page 1."""
    probe = Probe(array(sets=1, ways=4, replacement=Replacement.TREE_PLRU))
    probe.looks(0, 1, 2, 3, 0)
    assert probe.victims(10) == [2]


def test_tree_plru_of_eight_ways() -> None:
    """Three levels of bits; each victim is in the half not touched last, at every level."""
    probe = Probe(array(sets=1, ways=8, replacement=Replacement.TREE_PLRU))
    probe.looks(*range(8))
    assert probe.victims(*range(10, 18)) == [0, 4, 2, 6, 1, 5, 3, 7]


@pytest.mark.parametrize("replacement", Replacement)
def test_a_free_way_is_taken_before_any_victim(replacement: Replacement) -> None:
    probe = Probe(array(sets=1, ways=4, replacement=replacement))
    probe.looks(0, 1, 2, 3)
    probe.drop(2)
    assert probe.victims(9) == []
    assert probe.held() == {0, 1, 3, 9}


def test_a_new_walk_of_a_held_page_replaces_its_entry_and_evicts_nothing() -> None:
    """The write through an entry cached clean walks again (R7)."""
    rig = PagingRig()
    slot = rig.map(VA, FRAME, P | W | A)
    rig.map(VA + PAGE, FRAME + 1)
    mmu = rig.mmu(model_of(array(ways=2)))
    read(mmu, VA)
    read(mmu, VA + PAGE)
    rig.set(slot, leaf(FRAME + 7))
    write(mmu, VA)
    assert [one.pfn for one in mmu.tlb.entries()] == [FRAME + 7, FRAME + 1]


# --- sets ---------------------------------------------------------------------------------------------


def test_low_bits_choose_the_set() -> None:
    """Two sets of one way: even pages displace even pages."""
    probe = Probe(array(sets=2, ways=1))
    probe.looks(0, 1, 2)
    assert probe.held() == {1, 2}


@PROPERTY
@given(st.integers(0, 2**36 - 1), st.sampled_from(tuple(PageSize)))
def test_the_low_bits_are_those_of_the_number_of_the_page_of_that_size(number: int, size: PageSize) -> None:
    spec = array(sets=16)
    assert spec.set_of(page_start(VirtAddr(number * PAGE), size), size) == number * PAGE // size % 16


@PROPERTY
@given(st.integers(0, 2**36 - 1))
def test_the_xor_hash_folds_two_groups_of_seven_bits(number: int) -> None:
    digits = f"{number:036b}"
    low, high = digits[-7:], digits[-14:-7]
    folded = "".join("1" if a != b else "0" for a, b in zip(low, high, strict=True))
    spec = array(sets=128, set_hash=SetHash.XOR_7)
    assert spec.set_of(VirtAddr(number * PAGE), PageSize.KIB4) == int(folded, 2)


def test_pages_that_collide_under_xor_7_differ_under_low_bits_and_the_reverse() -> None:
    """Page 129 = 1_0000001: 1 XOR 1 = 0, the set of page 0. Page 128 = 1_0000000: 0 XOR 1 = 1."""

    def collide(one: int, other: int, set_hash: SetHash) -> bool:
        probe = Probe(array(sets=128, ways=1, set_hash=set_hash))
        probe.looks(one, other)
        return probe.held() == {other}

    assert collide(0, 129, SetHash.XOR_7)
    assert not collide(0, 129, SetHash.LOW_BITS)
    assert collide(0, 128, SetHash.LOW_BITS)
    assert not collide(0, 128, SetHash.XOR_7)


# --- two levels, two ports ----------------------------------------------------------------------------


SPLIT_L1 = (
    array(1, ways=2, ports=frozenset({DATA})),
    array(1, ways=2, ports=frozenset({CODE})),
)


def test_a_walk_fills_both_levels() -> None:
    """Pushed out of level 1 by two others, page 0 is still found in level 2."""
    probe = Probe(array(1, ways=2), array(2, ways=8))
    probe.looks(0, 1, 2)
    assert probe.look(0) is True


def test_a_hit_in_level_2_fills_level_1_again() -> None:
    """Then page 0 is flooded out of the shared level 2 through the code side, and still hits."""
    probe = Probe(*SPLIT_L1, array(2, ways=4))
    probe.looks(0, 1, 2)  # level 1: 1 2
    assert probe.look(0) is True  # level 1: 2 0
    probe.looks(*range(10, 20), port=CODE)
    assert probe.looks(0, 2, 1) == [True, True, False]


def test_without_a_hit_in_level_2_a_page_pushed_out_of_level_1_does_not_come_back() -> None:
    probe = Probe(*SPLIT_L1, array(2, ways=4))
    probe.looks(0, 1, 2)
    probe.looks(*range(10, 20), port=CODE)
    assert probe.look(0) is False


def test_level_1_keeps_what_level_2_has_lost() -> None:
    """Not inclusive."""
    probe = Probe(array(1, ways=4), array(2, ways=1))
    probe.looks(0, 1, 2)
    assert probe.looks(0, 1, 2) == [True] * 3


def test_the_sides_of_level_1_share_only_level_2() -> None:
    alone = Probe(*SPLIT_L1)
    assert [alone.look(5), alone.look(5, CODE), alone.look(5, CODE)] == [False, False, True]
    shared = Probe(*SPLIT_L1, array(2, ways=4))
    assert [shared.look(5), shared.look(5, CODE)] == [False, True]


def test_a_hit_in_level_2_brings_the_part_that_was_accessed_into_level_1() -> None:
    """Level 2 holds the 2M page, level 1 only 4K parts: part 7 was accessed, not the first."""
    rig = PagingRig()
    rig.map(VA, 0x400, RW, PageSize.MIB2)
    mmu = rig.mmu(model_of(*SPLIT_L1, array(2, ways=4, sizes=LARGE)))
    for part in (0, 7):
        assert read(mmu, VA + part * PAGE) == 0x400 + part
    small = [(one.page, one.pfn) for one in mmu.tlb.entries() if one.size is PageSize.KIB4]
    assert small == [(VA, 0x400), (VA + 7 * PAGE, 0x407)]


# --- PCIDs and globals --------------------------------------------------------------------------------


def test_one_page_may_be_held_for_two_pcids() -> None:
    probe = Probe(array(ways=4))
    assert [probe.look(3, pcid=pcid) for pcid in (1, 2, 1)] == [False, False, True]
    assert [one.pcid for one in probe.mmu.tlb.entries()] == [1, 2]


def test_a_global_entry_serves_every_pcid() -> None:
    probe = Probe(array(ways=4))
    assert [probe.look(3, pcid=pcid, bits=RW | G) for pcid in (1, 2)] == [False, True]


# --- R4: large pages in small arrays ------------------------------------------------------------------


@pytest.mark.parametrize("size", [PageSize.MIB2, PageSize.GIB1], ids=str)
def test_r4_a_page_too_large_for_every_array_is_cached_in_parts(size: PageSize) -> None:
    rig = PagingRig()
    first = 0x400 if size is PageSize.MIB2 else 0
    rig.map(VA, first, RW, size)
    mmu = rig.mmu(model_of(array(ways=8)))
    for part in (0, 5, 511):
        assert read(mmu, VA + part * PAGE + 0x18) == first + part
    assert [(one.page, one.size, one.pfn, one.page_size) for one in mmu.tlb.entries()] == [
        (VA + part * PAGE, PageSize.KIB4, first + part, size) for part in (0, 5, 511)
    ]


def test_r4_parts_are_of_the_largest_size_that_fits() -> None:
    """ZEN_3 has 1G entries in level 1, and 2M parts of them in level 2."""
    rig = PagingRig()
    rig.map(VA, 0, RW, PageSize.GIB1)
    mmu = rig.mmu(ZEN_3)
    read(mmu, VA + 3 * MIB2 + 0x5000)
    assert {(one.page, one.size, one.pfn) for one in mmu.tlb.entries()} == {
        (VA, PageSize.GIB1, 0),
        (VA + 3 * MIB2, PageSize.MIB2, 3 * 512),
    }


@pytest.mark.parametrize("at", [0, 200 * PAGE, 511 * PAGE + 0xFFF])
def test_r4_one_invlpg_anywhere_in_the_page_removes_all_parts(at: int) -> None:
    rig = PagingRig()
    rig.map(VA, 0x400, RW, PageSize.MIB2)
    rig.map(VA + MIB2, 0x900)
    mmu = rig.mmu(model_of(array(ways=8)))
    for part in (0, 5, 511, 512):
        read(mmu, VA + part * PAGE)
    mmu.invalidate(Invlpg(VirtAddr(VA + at)))
    assert [one.page for one in mmu.tlb.entries()] == [VA + MIB2]


def test_r4_without_the_rule_the_other_parts_would_stay() -> None:
    rig = PagingRig()
    rig.map(VA, 0x400, RW, PageSize.MIB2)
    mmu = rig.mmu(model_of(array(ways=8), rules=ALL_RULES - {Rule.INVLPG_REMOVES_LARGE}))
    for part in (0, 5):
        read(mmu, VA + part * PAGE)
    mmu.invalidate(Invlpg(VA))
    assert len(mmu.tlb.entries()) == 2


def test_r4_parts_of_a_1g_page_are_removed_by_one_invlpg_far_away() -> None:
    rig = PagingRig()
    rig.map(VA, 0, RW, PageSize.GIB1)
    mmu = rig.mmu(model_of(array(ways=8, sizes=LARGE)))
    for at in (0, 3 * MIB2, 7 * MIB2 + PAGE):
        read(mmu, VA + at)
    assert [one.size for one in mmu.tlb.entries()] == [PageSize.MIB2] * 3
    mmu.invalidate(Invlpg(VirtAddr(VA + GIB1 - 1)))
    assert mmu.tlb.entries() == ()


# --- the machine around it ----------------------------------------------------------------------------


def test_the_geometry_is_recovered_by_changing_entries_behind_the_tlbs_back() -> None:
    """Desynchronisation: use n pages of one set, change every entry, see how many still come out old."""

    def old_ones(model: CpuModel, pages: int, stride: int) -> int:
        rig = PagingRig()
        slots = [rig.map(VA + n * stride * PAGE, FRAME) for n in range(pages)]
        mmu = rig.mmu(model)
        for n in range(pages):
            read(mmu, VA + n * stride * PAGE)
        for slot in slots:
            rig.set(slot, leaf(FRAME + 1))
        # Newest first: a walk made on the way pushes out only what has been counted.
        return sum(read(mmu, VA + n * stride * PAGE) == FRAME for n in reversed(range(pages)))

    small = model_of(array(1, sets=4, ways=2), array(2, sets=8, ways=3))
    # Stride 8: all in one set of each level. Level 2 holds the last 3, level 1 the last 2 of them.
    assert [old_ones(small, pages, 8) for pages in (1, 2, 3, 4, 8)] == [1, 2, 3, 3, 3]
    # Stride 4: two sets of level 2, so twice as many.
    assert [old_ones(small, pages, 4) for pages in (5, 6, 7, 12)] == [5, 6, 6, 6]


def test_a_hit_says_so_and_a_walk_says_so() -> None:
    rig = PagingRig()
    rig.map(VA, FRAME)
    mmu = rig.mmu(SKYLAKE)
    sources = []
    for _ in range(2):
        found = access(mmu, VA)
        assert isinstance(found, Translation)
        sources.append(found.source)
    assert sources == [Source.WALK, Source.HIT]
    assert fetch(mmu, VA) == FRAME


def test_a_page_used_as_data_and_as_code_after_a_change_may_be_two_frames() -> None:
    """The data side is stale; the code side, which shares level 2, is too."""
    rig = PagingRig()
    pa = rig.map(VA, FRAME)
    split = rig.mmu(model_of(*SPLIT_L1))
    shared = rig.mmu(SKYLAKE)
    for mmu in (split, shared):
        read(mmu, VA)
    rig.set(pa, leaf(FRAME + 1))
    assert (read(split, VA), fetch(split, VA)) == (FRAME, FRAME + 1)
    assert (read(shared, VA), fetch(shared, VA)) == (FRAME, FRAME)


def test_evicting_what_is_not_held_does_nothing() -> None:
    probe, other = Probe(array(ways=2)), Probe(array(ways=2))
    probe.look(1)
    other.look(2)
    (entry,) = other.mmu.tlb.entries()
    probe.mmu.tlb.evict(entry)
    assert probe.held() == {1}


def test_entries_are_listed_once_and_by_page() -> None:
    probe = Probe(array(1, ways=4), array(2, ways=4))
    probe.looks(7, 3, 5)
    assert [one.page // PAGE for one in probe.mmu.tlb.entries()] == [3, 5, 7]


@pytest.mark.parametrize(
    "arrays",
    [
        (array(1, ports=frozenset({DATA})),),
        (array(2),),
        (array(1, sizes=frozenset({PageSize.MIB2})),),
    ],
    ids=["no code side", "no level 1", "no 4K pages"],
)
def test_a_geometry_without_a_level_1_for_4k_pages_is_refused(arrays: tuple[ArraySpec, ...]) -> None:
    with pytest.raises(ValueError, match=r"^no level-1 array holds 4 KiB pages for (data|code) "):
        GeometryTlb(Geometry(arrays), ALL_RULES)


# --- the models as data -------------------------------------------------------------------------------


def test_a_tree_of_ways_that_is_no_power_of_two_is_refused() -> None:
    """The tree of three ways has a leaf that is no way: the victim would be none of the three."""
    with pytest.raises(ValueError, match="power of two"):
        GeometryTlb(Geometry((array(ways=3, replacement=Replacement.TREE_PLRU),)), ALL_RULES)


def test_a_split_page_in_a_geometry_tlb_uses_the_large_entry_until_it_is_invalidated() -> None:
    rig = PagingRig()
    pde = rig.map(VA, 0x400, RW, PageSize.MIB2)
    mmu = rig.mmu(SKYLAKE)
    read(mmu, VA)
    rig.preset(0x7F0 << 12, leaf(0x900, RW | G))
    rig.set(pde, Pte.make(Pfn(0x7F0), TABLE))
    assert read(mmu, VA) == 0x400
    mmu.invalidate(Invlpg(VA))
    assert read(mmu, VA) == 0x900
