"""The TLB with sets and ways: victims worked out by hand, and whole runs against a naive model."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paging_rig import FRAME, GIB1, LEVEL, MIB2, PAGE, RW, TABLE, VA, G, PagingRig, access, fetch, leaf, read

from emu.addr import PageSize, Pfn, PhysAddr, VirtAddr, page_start
from emu.events import Source
from emu.geometry import ArraySpec, Geometry, GeometryTlb, Replacement, SetHash
from emu.mmu import Mmu, Translation
from emu.models import KABY_LAKE, MODELS, SKYLAKE, ZEN_3, CpuModel
from emu.pte import Pte
from emu.tlb import ALL_RULES, Invlpg, Port, Rule, TlbEntry
from emu.walk import Rights, WalkStep

DATA, CODE = Port.DATA, Port.CODE
BOTH = frozenset(Port)
K4 = frozenset({PageSize.KIB4})
LARGE = frozenset({PageSize.KIB4, PageSize.MIB2})
ALL_SIZES = frozenset(PageSize)


def array(
    level: int = 1,
    sets: int = 1,
    ways: int = 4,
    *,
    sizes: frozenset[PageSize] = K4,
    ports: frozenset[Port] = BOTH,
    replacement: Replacement = Replacement.LRU,
    set_hash: SetHash = SetHash.LOW_BITS,
) -> ArraySpec:
    return ArraySpec("test", level, ports, sizes, sets, ways, replacement, set_hash)


def tlb_of(*arrays: ArraySpec, rules: frozenset[Rule] = ALL_RULES) -> GeometryTlb:
    return GeometryTlb(Geometry(arrays), rules)


def model_of(*arrays: ArraySpec) -> CpuModel:
    return CpuModel("test", Geometry(arrays))


def entry(
    number: int,
    size: PageSize = PageSize.KIB4,
    *,
    pcid: int = 0,
    is_global: bool = False,
    pfn: int | None = None,
) -> TlbEntry:
    """The translation of page `number` of that size, as a walk of that size found it."""
    step = WalkStep(LEVEL[size], PhysAddr(0x1000), leaf(0, RW, size))
    rights = Rights(write=True, user=False, execute=True)
    first = Pfn(number * (size // PAGE) if pfn is None else pfn)
    return TlbEntry(VirtAddr(number * size), size, first, rights, is_global, True, pcid, (step,), 0, 0)


def look(tlb: GeometryTlb, number: int, port: Port = DATA, pcid: int = 0) -> bool:
    """One access to 4K page `number`: a hit, or a miss that fills. Returns whether it hit."""
    va = VirtAddr(number * PAGE)
    usable = tlb.usable(va, pcid, port)
    if usable.walk:
        tlb.fill(entry(number, pcid=pcid), va, port)
        return False
    tlb.used(usable.entries[0], port)
    return True


def held(tlb: GeometryTlb) -> set[int]:
    return {one.page // PAGE for one in tlb.entries()}


# --- replacement by hand --------------------------------------------------------------------------------


def test_a_set_holds_as_many_pages_as_it_has_ways() -> None:
    tlb = tlb_of(array(sets=1, ways=4))
    assert [look(tlb, n) for n in (0, 1, 2, 3)] == [False] * 4
    assert [look(tlb, n) for n in (0, 1, 2, 3)] == [True] * 4
    assert look(tlb, 4) is False
    assert held(tlb) == {1, 2, 3, 4}


def test_lru_evicts_the_page_used_longest_ago() -> None:
    tlb = tlb_of(array(sets=1, ways=4))
    for number in (0, 1, 2, 3, 0, 2):  # least recent first: 1 3 0 2
        look(tlb, number)
    victims = []
    for number in (10, 11, 12, 13):
        before = held(tlb)
        look(tlb, number)
        victims += before - held(tlb)
    assert victims == [1, 3, 0, 2]


def test_tree_plru_evicts_where_the_tree_points() -> None:
    """Four ways, pages 0 to 3 in ways 0 to 3; each use turns the bits on its path away from it.

    After filling: root left, left node 0, right node 2. Victims then: way 0 (root turns right, left node
    to 1), way 2 (root left, right node to 3), way 1, way 3.
    """
    tlb = tlb_of(array(sets=1, ways=4, replacement=Replacement.TREE_PLRU))
    for number in (0, 1, 2, 3):
        look(tlb, number)
    victims = []
    for number in (10, 11, 12, 13):
        before = held(tlb)
        look(tlb, number)
        victims += before - held(tlb)
    assert victims == [0, 2, 1, 3]


def test_tree_plru_is_not_lru_after_a_hit() -> None:
    """Using page 0 turns the root to the right half, whose node points to way 2: LRU would take page 1."""
    tlb = tlb_of(array(sets=1, ways=4, replacement=Replacement.TREE_PLRU))
    for number in (0, 1, 2, 3, 0):
        look(tlb, number)
    look(tlb, 10)
    assert held(tlb) == {0, 1, 3, 10}


def test_tree_plru_of_eight_ways() -> None:
    """Three levels of bits; each victim is in the half not touched last, at every level."""
    tlb = tlb_of(array(sets=1, ways=8, replacement=Replacement.TREE_PLRU))
    for number in range(8):
        look(tlb, number)
    victims = []
    for number in range(10, 18):
        before = held(tlb)
        look(tlb, number)
        victims += before - held(tlb)
    assert victims == [0, 4, 2, 6, 1, 5, 3, 7]


@pytest.mark.parametrize("replacement", Replacement)
def test_a_free_way_is_taken_before_any_victim(replacement: Replacement) -> None:
    tlb = tlb_of(array(sets=1, ways=4, replacement=replacement))
    for number in (0, 1, 2, 3):
        look(tlb, number)
    tlb.invalidate(Invlpg(VirtAddr(2 * PAGE)))
    look(tlb, 9)
    assert held(tlb) == {0, 1, 3, 9}


def test_a_new_walk_of_a_held_page_replaces_its_entry_and_evicts_nothing() -> None:
    tlb = tlb_of(array(sets=1, ways=2))
    tlb.fill(entry(1), VirtAddr(PAGE), DATA)
    tlb.fill(entry(2), VirtAddr(2 * PAGE), DATA)
    tlb.fill(entry(1, pfn=0x777), VirtAddr(PAGE), DATA)
    assert [one.pfn for one in tlb.entries()] == [0x777, 2]


# --- sets -----------------------------------------------------------------------------------------------


def test_low_bits_choose_the_set() -> None:
    """Two sets of one way: even pages displace even pages."""
    tlb = tlb_of(array(sets=2, ways=1))
    for number in (0, 1, 2):
        look(tlb, number)
    assert held(tlb) == {1, 2}


@given(st.integers(0, 2**36 - 1), st.sampled_from(tuple(PageSize)))
def test_the_low_bits_are_those_of_the_number_of_the_page_of_that_size(number: int, size: PageSize) -> None:
    spec = array(sets=16)
    assert spec.set_of(page_start(VirtAddr(number * PAGE), size), size) == number * PAGE // size % 16


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
        tlb = tlb_of(array(sets=128, ways=1, set_hash=set_hash))
        look(tlb, one)
        look(tlb, other)
        return held(tlb) == {other}

    assert collide(0, 129, SetHash.XOR_7)
    assert not collide(0, 129, SetHash.LOW_BITS)
    assert collide(0, 128, SetHash.LOW_BITS)
    assert not collide(0, 128, SetHash.XOR_7)


# --- two levels, two ports ------------------------------------------------------------------------------

SPLIT_L1 = (
    array(1, ways=2, ports=frozenset({DATA})),
    array(1, ways=2, ports=frozenset({CODE})),
)


def test_a_walk_fills_both_levels() -> None:
    """Pushed out of level 1 by two others, page 0 is still found in level 2."""
    tlb = tlb_of(array(1, ways=2), array(2, ways=8))
    for number in (0, 1, 2):
        look(tlb, number)
    assert look(tlb, 0) is True


def test_a_hit_in_level_2_fills_level_1_again() -> None:
    """Then page 0 is flooded out of the shared level 2 through the code side, and still hits."""
    tlb = tlb_of(*SPLIT_L1, array(2, ways=4))
    for number in (0, 1, 2):
        look(tlb, number)  # level 1: 1 2
    assert look(tlb, 0) is True  # level 1: 2 0
    for number in range(10, 20):
        look(tlb, number, CODE)
    assert look(tlb, 0) is True
    assert look(tlb, 2) is True
    assert look(tlb, 1) is False


def test_without_a_hit_in_level_2_a_page_pushed_out_of_level_1_does_not_come_back() -> None:
    tlb = tlb_of(*SPLIT_L1, array(2, ways=4))
    for number in (0, 1, 2):
        look(tlb, number)
    for number in range(10, 20):
        look(tlb, number, CODE)
    assert look(tlb, 0) is False


def test_level_1_keeps_what_level_2_has_lost() -> None:
    """Not inclusive."""
    tlb = tlb_of(array(1, ways=4), array(2, ways=1))
    for number in (0, 1, 2):
        look(tlb, number)
    assert [look(tlb, number) for number in (0, 1, 2)] == [True] * 3


def test_the_sides_of_level_1_share_only_level_2() -> None:
    alone = tlb_of(*SPLIT_L1)
    assert [look(alone, 5), look(alone, 5, CODE), look(alone, 5, CODE)] == [False, False, True]
    shared = tlb_of(*SPLIT_L1, array(2, ways=4))
    assert [look(shared, 5), look(shared, 5, CODE)] == [False, True]


def test_a_hit_in_level_2_brings_the_part_that_was_accessed_into_level_1() -> None:
    """Level 2 holds the 2M page, level 1 only 4K parts: page 7 was accessed, not the first."""
    tlb = tlb_of(*SPLIT_L1, array(2, ways=4, sizes=LARGE))
    big = entry(1, PageSize.MIB2)
    tlb.fill(big, VirtAddr(MIB2), DATA)
    va = VirtAddr(MIB2 + 7 * PAGE)
    (found,) = tlb.usable(va, 0, DATA).entries
    assert found == big
    tlb.used(found, DATA)
    assert {(one.page, one.size) for one in tlb.entries()} >= {(va, PageSize.KIB4)}


# --- PCIDs and globals ----------------------------------------------------------------------------------


def test_one_page_may_be_held_for_two_pcids() -> None:
    tlb = tlb_of(array(ways=4))
    assert [look(tlb, 3, pcid=1), look(tlb, 3, pcid=2), look(tlb, 3, pcid=1)] == [False, False, True]
    assert [one.pcid for one in tlb.entries()] == [1, 2]


def test_a_global_entry_serves_every_pcid() -> None:
    tlb = tlb_of(array(ways=4))
    tlb.fill(entry(3, is_global=True, pcid=1), VirtAddr(3 * PAGE), DATA)
    assert look(tlb, 3, pcid=2) is True


# --- R4: large pages in small arrays --------------------------------------------------------------------


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
    assert [(one.page, one.size, one.pfn) for one in mmu.tlb.entries()] == [
        (VA, PageSize.GIB1, 0),
        (VA + 3 * MIB2, PageSize.MIB2, 3 * 512),
    ] or [(one.page, one.size, one.pfn) for one in mmu.tlb.entries()] == [
        (VA + 3 * MIB2, PageSize.MIB2, 3 * 512),
        (VA, PageSize.GIB1, 0),
    ]


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
    tlb = tlb_of(array(ways=8), rules=ALL_RULES - {Rule.INVLPG_REMOVES_LARGE})
    big = entry(1, PageSize.MIB2)
    for part in (0, 5):
        tlb.fill(big, VirtAddr(MIB2 + part * PAGE), DATA)
    tlb.invalidate(Invlpg(VirtAddr(MIB2)))
    assert len(tlb.entries()) == 2


def test_r4_parts_of_a_1g_page_are_removed_by_one_invlpg_far_away() -> None:
    rig = PagingRig()
    rig.map(VA, 0, RW, PageSize.GIB1)
    mmu = rig.mmu(model_of(array(ways=8, sizes=LARGE)))
    for at in (0, 3 * MIB2, 7 * MIB2 + PAGE):
        read(mmu, VA + at)
    assert [one.size for one in mmu.tlb.entries()] == [PageSize.MIB2] * 3
    mmu.invalidate(Invlpg(VirtAddr(VA + GIB1 - 1)))
    assert mmu.tlb.entries() == ()


# --- a naive model --------------------------------------------------------------------------------------


class NaiveSet:
    """Pages, least recently used first."""

    def __init__(self, ways: int) -> None:
        self.ways = ways
        self.pages: list[int] = []

    def has(self, page: int) -> bool:
        if page not in self.pages:
            return False
        self.pages = [one for one in self.pages if one != page] + [page]
        return True

    def put(self, page: int) -> None:
        self.pages = ([one for one in self.pages if one != page] + [page])[-self.ways :]

    def drop(self, page: int) -> None:
        self.pages = [one for one in self.pages if one != page]


class NaiveTlb:
    """Two levels of sets, written out as directly as possible."""

    def __init__(self, shapes: list[tuple[int, int]]) -> None:
        self.levels = [[NaiveSet(ways) for _ in range(sets)] for sets, ways in shapes]

    def look(self, page: int) -> bool:
        for depth, level in enumerate(self.levels):
            if level[page % len(level)].has(page):
                for above in self.levels[:depth]:
                    above[page % len(above)].put(page)
                return True
        for level in self.levels:
            level[page % len(level)].put(page)
        return False

    def drop(self, page: int) -> None:
        for level in self.levels:
            level[page % len(level)].drop(page)

    def held(self) -> set[int]:
        return {page for level in self.levels for one in level for page in one.pages}


STEPS = st.lists(
    st.tuples(st.integers(0, 11), st.sampled_from(("look", "look", "look", "drop"))), max_size=60
)
SHAPES = st.lists(st.tuples(st.sampled_from((1, 2, 3, 4)), st.integers(1, 4)), min_size=1, max_size=2)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(SHAPES, STEPS)
def test_lru_sets_hit_and_hold_as_in_the_naive_model(
    shapes: list[tuple[int, int]], steps: list[tuple[int, str]]
) -> None:
    tlb = tlb_of(*(array(level + 1, sets, ways) for level, (sets, ways) in enumerate(shapes)))
    naive = NaiveTlb(shapes)
    for page, verb in steps:
        if verb == "drop":
            tlb.invalidate(Invlpg(VirtAddr(page * PAGE)))
            naive.drop(page)
        else:
            assert look(tlb, page) == naive.look(page)
        assert held(tlb) == naive.held()


# --- the machine around it ------------------------------------------------------------------------------


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
    tlb = tlb_of(array(ways=2))
    look(tlb, 1)
    tlb.evict(entry(2))
    assert held(tlb) == {1}


def test_entries_are_listed_once_and_by_page() -> None:
    tlb = tlb_of(array(1, ways=4), array(2, ways=4))
    for number in (7, 3, 5):
        look(tlb, number)
    assert [one.page // PAGE for one in tlb.entries()] == [3, 5, 7]


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
    with pytest.raises(ValueError, match="^no level-1 array holds 4 KiB pages for (data|code) accesses$"):
        tlb_of(*arrays)


# --- the models as data ---------------------------------------------------------------------------------


def capacity(model: CpuModel, level: int, port: Port, size: PageSize) -> int:
    assert isinstance(model.tlb, Geometry)
    return sum(
        one.sets * one.ways
        for one in model.tlb.arrays
        if one.level == level and port in one.ports and size in one.sizes
    )


@pytest.mark.parametrize(
    ("model", "first", "second"),
    [(SKYLAKE, 64, 1536), (KABY_LAKE, 64, 1536), (ZEN_3, 64, 2048)],
    ids=lambda value: getattr(value, "name", value),
)
def test_the_models_have_the_published_sizes(model: CpuModel, first: int, second: int) -> None:
    assert capacity(model, 1, DATA, PageSize.KIB4) == first
    assert capacity(model, 2, DATA, PageSize.KIB4) == second


def test_kaby_lake_has_the_measured_shape() -> None:
    assert isinstance(KABY_LAKE.tlb, Geometry)
    shapes = {one.name: (one.sets, one.ways, one.set_hash) for one in KABY_LAKE.tlb.arrays}
    assert shapes["dTLB 4K"] == (16, 4, SetHash.LOW_BITS)
    assert shapes["iTLB 4K"] == (16, 8, SetHash.LOW_BITS)
    assert shapes["L2 4K/2M"] == (128, 12, SetHash.XOR_7)


def test_tree_plru_arrays_have_a_power_of_two_of_ways() -> None:
    for model in MODELS:
        if isinstance(model.tlb, Geometry):
            for one in model.tlb.arrays:
                if one.replacement is Replacement.TREE_PLRU:
                    assert one.ways & (one.ways - 1) == 0, (model.name, one.name)


def test_model_names_are_unique() -> None:
    assert len({model.name for model in MODELS}) == len(MODELS)


def test_a_tree_of_ways_that_is_no_power_of_two_is_refused() -> None:
    """The tree of three ways has a leaf that is no way: the victim would be none of the three."""
    with pytest.raises(ValueError, match="power of two"):
        array(ways=3, replacement=Replacement.TREE_PLRU)


def test_a_split_page_in_a_geometry_tlb_uses_the_large_entry_until_it_is_invalidated() -> None:
    rig = PagingRig()
    pde = rig.map(VA, 0x400, RW, PageSize.MIB2)
    mmu: Mmu = rig.mmu(SKYLAKE)
    read(mmu, VA)
    rig.preset(0x7F0 << 12, leaf(0x900, RW | G))
    rig.set(pde, Pte.make(Pfn(0x7F0), TABLE))
    assert read(mmu, VA) == 0x400
    mmu.invalidate(Invlpg(VA))
    assert read(mmu, VA) == 0x900
