"""The lazy TLB: version windows by hand, and whole programs against a TLB that really fills and evicts."""

from __future__ import annotations

from itertools import product

import pytest
from explicit_tlb import (
    Event,
    Holds,
    InvalidatesAll,
    InvalidatesPage,
    LoadsRoot,
    Outcome,
    Reads,
    Stores,
    Writes,
    explicit_outcomes,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from paging_rig import (
    FRAME,
    GIB1,
    MIB2,
    PAGE,
    RO,
    ROOT,
    RW,
    SECOND_ROOT,
    TABLE,
    VA,
    A,
    D,
    G,
    P,
    PagingRig,
    Pick,
    W,
    access,
    leaf,
    offered,
    possible,
    read,
    write,
)
from property_settings import PROPERTY

from emu.addr import PageSize, Pfn, VirtAddr
from emu.choice import Question, VersionQuestion
from emu.events import Source
from emu.mmu import Denied, Mmu, Translation
from emu.paging.lazy import DirectoryCache, LazySpec, Memory
from emu.paging.models import LAZY, LAZY_NO_PSC, LAZY_SINGLE, CpuModel
from emu.paging.pte import Pte, PteBit
from emu.paging.tlb import FaultedAt, InvalidateAll, InvalidateNonGlobal, Invlpg, Port
from emu.paging.walk import Access, Control, FaultCode, PageFault

OTHER_TABLE = Pfn(0x7F0)


def changing(model: CpuModel, *frames: int) -> tuple[PagingRig, Mmu]:
    """VA was mapped to the first frame before the CPU started, then to the others in turn."""
    rig = PagingRig()
    pa = rig.map(VA, frames[0])
    mmu = rig.mmu(model)
    for frame in frames[1:]:
        rig.set(pa, leaf(frame))
    return rig, mmu


def on_table(rig: PagingRig, table: Pfn, index: int, entry: int) -> None:
    """That entry of the page table was always there."""
    rig.preset((table << 12) + 8 * index, entry)


# --- the window ---------------------------------------------------------------------------------------


def test_with_one_version_nothing_is_asked() -> None:
    _, mmu = changing(LAZY, FRAME)
    mmu.answerer = picks = Pick()
    assert [read(mmu, VA), read(mmu, VA)] == [FRAME, FRAME]
    assert picks.asked == []


def test_every_version_since_power_on_may_be_used_oldest_first() -> None:
    _, mmu = changing(LAZY, 1, 2, 3, 4)
    assert offered(mmu, VA) == [1, 2, 3]
    assert possible(mmu, VA) == {1, 2, 3, 4}


def test_the_question_lists_the_older_versions_and_the_walk_last() -> None:
    _, mmu = changing(LAZY, 1, 2, 3)
    mmu.answerer = picks = Pick()
    assert read(mmu, VA + 0x123) == 3
    (question,) = picks.asked
    assert isinstance(question, VersionQuestion)
    assert (question.cpu, question.va, question.walk) == (0, VA + 0x123, True)
    assert [entry.pfn for entry in question.entries] == [1, 2]
    assert (question.options, question.default) == (3, 2)


def test_without_an_answerer_the_newest_is_used() -> None:
    _, mmu = changing(LAZY, 1, 2, 3)
    assert read(mmu, VA) == 3


def test_an_old_version_is_a_hit_and_the_present_one_a_walk() -> None:
    _, mmu = changing(LAZY, 1, 2)
    sources = []
    for pick in (0, 1):
        mmu.answerer = Pick(pick)
        found = access(mmu, VA)
        assert isinstance(found, Translation)
        sources.append(found.source)
    assert sources == [Source.HIT, Source.WALK]


def test_going_back_to_an_old_value_makes_a_new_version() -> None:
    _, mmu = changing(LAZY, 1, 2, 1)
    assert offered(mmu, VA) == [1, 2]


def test_an_invalidation_closes_the_window_for_what_ended_before_it() -> None:
    rig, mmu = changing(LAZY, 1, 2)
    mmu.invalidate(Invlpg(VA))
    assert offered(mmu, VA) == []
    rig.set(rig.slot(VA), leaf(3))
    assert offered(mmu, VA) == [2]  # it was still current when the INVLPG was done


def test_the_window_of_a_2m_page_is_closed_by_an_invlpg_of_any_address_in_it() -> None:
    for where, closed in ((0, True), (511 * PAGE, True), (MIB2, False), (-PAGE, False)):
        rig = PagingRig()
        pde = rig.map(VA, 0x400, RW, PageSize.MIB2)
        mmu = rig.mmu(LAZY)
        rig.set(pde, leaf(0x800, RW, PageSize.MIB2))
        mmu.invalidate(Invlpg(VirtAddr(VA + where)))
        assert offered(mmu, VA + 5 * PAGE) == ([] if closed else [0x405])


def test_each_page_has_a_window_of_its_own() -> None:
    rig = PagingRig()
    slots = [rig.map(VA + n * PAGE, 10 + n) for n in range(2)]
    mmu = rig.mmu(LAZY)
    for n, slot in enumerate(slots):
        rig.set(slot, leaf(20 + n))
    mmu.invalidate(Invlpg(VirtAddr(VA + PAGE)))
    assert (offered(mmu, VA), offered(mmu, VA + PAGE)) == ([10], [])


def test_after_a_split_the_large_version_and_the_small_ones_share_the_window() -> None:
    rig = PagingRig()
    pde = rig.map(VA, 0x400, RW, PageSize.MIB2)
    mmu = rig.mmu(LAZY)
    on_table(rig, OTHER_TABLE, 3, leaf(0x800))
    rig.set(pde, Pte.make(OTHER_TABLE, TABLE))
    rig.set((OTHER_TABLE << 12) + 24, leaf(0x801))
    usable = mmu.tlb.usable(VirtAddr(VA + 3 * PAGE), 0, Port.DATA)
    assert [(one.size, one.frame_of(VirtAddr(VA + 3 * PAGE))) for one in usable.entries] == [
        (PageSize.MIB2, 0x403),
        (PageSize.KIB4, 0x800),
    ]


# --- present, accessed, dirty -----------------------------------------------------------------------


def test_a_large_page_used_before_a_flush_does_not_hide_a_small_version_that_changed_after_it() -> None:
    """The path that was walked first has not changed since the flush: it had ended before."""
    rig = PagingRig()
    pde = rig.map(VA, 0x400, RW, PageSize.MIB2)
    on_table(rig, OTHER_TABLE, 0, leaf(0x400))
    mmu = rig.mmu(LAZY)
    assert read(mmu, VA) == 0x400
    rig.set(pde, Pte.make(OTHER_TABLE, TABLE))
    mmu.invalidate(InvalidateAll())
    rig.set((OTHER_TABLE << 12), leaf(0x800))
    assert (offered(mmu, VA), read(mmu, VA)) == ([0x400], 0x800)


def test_a_time_without_a_mapping_is_no_version() -> None:
    rig, mmu = changing(LAZY, 1)
    rig.set(rig.slot(VA), 0)
    rig.set(rig.slot(VA), leaf(3))
    assert possible(mmu, VA) == {1, 3}


def test_not_present_comes_only_from_a_walk_made_now() -> None:
    rig, mmu = changing(LAZY, 1)
    rig.set(rig.slot(VA), 0)
    assert possible(mmu, VA) == {1, None}
    mmu.answerer = Pick(-1)
    assert access(mmu, VA) == Denied(PageFault(VA, FaultCode(0)), None)


def test_an_entry_without_accessed_is_used_only_by_a_walk_now_which_sets_it() -> None:
    rig = PagingRig()
    pa = rig.map(VA, 1, P | W | D)
    mmu = rig.mmu(LAZY)
    assert possible(mmu, VA) == {1}
    assert read(mmu, VA) == 1
    assert rig.get(pa) == leaf(1, RW)
    rig.set(pa, leaf(2))
    assert offered(mmu, VA) == [1]  # with A, from the walk on


def test_a_write_by_an_old_version_with_dirty_clear_walks_now() -> None:
    rig = PagingRig()
    pa = rig.map(VA, 1, P | W | A)
    mmu = rig.mmu(LAZY)
    rig.set(pa, leaf(2, P | W | A))
    mmu.answerer = Pick(0)
    assert write(mmu, VA) == 2
    assert rig.get(pa) == leaf(2, RW)


def test_a_read_by_an_old_version_with_dirty_clear_does_not_walk() -> None:
    rig = PagingRig()
    pa = rig.map(VA, 1, P | W | A)
    mmu = rig.mmu(LAZY)
    rig.set(pa, leaf(2, P | W | A))
    mmu.answerer = Pick(0)
    assert read(mmu, VA) == 1
    assert rig.get(pa) == leaf(2, P | W | A)


def test_setting_dirty_does_not_offer_the_same_frame_twice_over() -> None:
    """A and D make no new version: what the write itself marked is the translation it used."""
    rig = PagingRig()
    rig.map(VA, 1, P | W | A)
    mmu = rig.mmu(LAZY)
    write(mmu, VA)
    assert possible(mmu, VA) == {1}


# --- faults ----------------------------------------------------------------------------------------


def test_a_page_fault_closes_the_window() -> None:
    rig, mmu = changing(LAZY, 1)
    rig.set(rig.slot(VA), leaf(2, RO))
    mmu.answerer = Pick(-1)
    assert write(mmu, VA) is None
    assert offered(mmu, VA) == []


def test_a_page_fault_elsewhere_does_not() -> None:
    _, mmu = changing(LAZY, 1, 2)
    assert read(mmu, VA + PAGE) is None
    assert offered(mmu, VA) == [1]


def test_an_old_version_that_denies_the_access_faults_once() -> None:
    rig = PagingRig()
    pa = rig.map(VA, 1, RO)
    mmu = rig.mmu(LAZY)
    rig.set(pa, leaf(1))
    mmu.answerer = Pick(0)
    found = access(mmu, VA, Access.WRITE)
    assert isinstance(found, Denied)
    assert found.entry is not None
    assert found.fault == PageFault(VA, FaultCode.WRITE | FaultCode.PROTECTION)
    assert write(mmu, VA) == 1


# --- roots, PCIDs, globals --------------------------------------------------------------------------


def two_roots(bits: PteBit = RW, control: Control | None = None) -> tuple[PagingRig, Mmu]:
    """Frame 1 by the first root, frame 2 by the second."""
    rig = PagingRig()
    rig.map(VA, 1, bits)
    rig.map(VA, 2, bits, root=SECOND_ROOT)
    return rig, rig.mmu(LAZY, control)


def test_mov_cr3_ends_what_is_not_global_although_no_word_of_it_changed() -> None:
    _, mmu = two_roots()
    mmu.load_root(SECOND_ROOT, 0)
    assert possible(mmu, VA) == {2}


def test_mov_cr3_ends_what_changed_before_it() -> None:
    rig, mmu = two_roots()
    rig.set(rig.slot(VA), leaf(3))
    mmu.load_root(SECOND_ROOT, 0)
    assert possible(mmu, VA) == {2}


def test_mov_cr3_leaves_globals_of_the_old_root() -> None:
    rig, mmu = two_roots(RW | G)
    rig.set(rig.slot(VA), leaf(3, RW | G))
    mmu.load_root(SECOND_ROOT, 0)
    assert possible(mmu, VA) == {1, 3, 2}


def test_invalidating_everything_ends_globals_of_the_old_root_too() -> None:
    _, mmu = two_roots(RW | G)
    mmu.load_root(SECOND_ROOT, 0)
    mmu.invalidate(InvalidateAll())
    assert possible(mmu, VA) == {2}


def test_invalidating_everything_right_after_mov_cr3_leaves_nothing_of_the_old_root() -> None:
    rig, mmu = two_roots()
    mmu.load_root(SECOND_ROOT, 0)
    mmu.invalidate(InvalidateAll())
    assert possible(mmu, VA) == {2}
    rig.set(rig.slot(VA, root=SECOND_ROOT), leaf(4))
    assert possible(mmu, VA) == {2, 4}


def test_what_changes_under_a_root_not_loaded_is_not_seen() -> None:
    rig, mmu = two_roots()
    rig.set(rig.slot(VA, root=SECOND_ROOT), leaf(3))  # never current while this CPU ran on it
    rig.set(rig.slot(VA, root=SECOND_ROOT), leaf(4))
    mmu.load_root(SECOND_ROOT, 0)
    assert offered(mmu, VA) == []
    assert read(mmu, VA) == 4


def test_with_pcids_the_other_contexts_versions_wait_for_its_return() -> None:
    rig, mmu = two_roots(control=Control(pcid_enable=True))
    mmu.load_root(SECOND_ROOT, 1)
    assert possible(mmu, VA) == {2}
    rig.set(rig.slot(VA, root=SECOND_ROOT), leaf(3))
    assert possible(mmu, VA) == {2, 3}
    mmu.invalidate(Invlpg(VA, pcid=1))
    assert possible(mmu, VA) == {3}
    mmu.load_root(ROOT, 0)
    assert possible(mmu, VA) == {1}


def test_invalidations_that_spare_globals_leave_their_window_open() -> None:
    rig = PagingRig()
    pa = rig.map(VA, 1, RW | G)
    mmu = rig.mmu(LAZY)
    rig.set(pa, leaf(2, RW | G))
    mmu.invalidate(InvalidateNonGlobal())
    assert possible(mmu, VA) == {1, 2}
    mmu.invalidate(Invlpg(VA))
    assert possible(mmu, VA) == {2}


# --- directories ------------------------------------------------------------------------------------


def replaced_directory(model: CpuModel) -> tuple[PagingRig, Mmu]:
    """The PDE of VA pointed to a table with frame 1, then to another with frame 2."""
    rig = PagingRig()
    rig.map(VA, 1)
    mmu = rig.mmu(model)
    on_table(rig, OTHER_TABLE, 0, leaf(2))
    rig.set(rig.slot(VA, 2), Pte.make(OTHER_TABLE, TABLE))
    return rig, mmu


def find(rig: PagingRig, value: int) -> int:
    """Where in the tables that word is."""
    return next(pa for pa in range(0x100_000, 0x110_000, 8) if rig.memory.read_word(pa) == value)


@pytest.mark.parametrize("model", [LAZY, LAZY_NO_PSC], ids=lambda model: model.name)
def test_a_version_by_a_replaced_directory_entry_is_in_the_window(model: CpuModel) -> None:
    _, mmu = replaced_directory(model)
    assert possible(mmu, VA) == {1, 2}


@pytest.mark.parametrize("model", [LAZY, LAZY_NO_PSC], ids=lambda model: model.name)
def test_invlpg_ends_a_version_by_a_replaced_directory_entry(model: CpuModel) -> None:
    """The INVLPG that empties the paging-structure caches removes what they filled just before it, too."""
    _, mmu = replaced_directory(model)
    mmu.invalidate(Invlpg(VA))
    assert possible(mmu, VA) == {2}


@pytest.mark.parametrize("model", [LAZY, LAZY_NO_PSC], ids=lambda model: model.name)
def test_a_fault_ends_a_version_by_a_replaced_directory_entry(model: CpuModel) -> None:
    _, mmu = replaced_directory(model)
    mmu.invalidate(FaultedAt(VA, 0))
    assert possible(mmu, VA) == {2}


def test_invlpg_elsewhere_leaves_what_the_directory_entry_had_given_so_far() -> None:
    """Only a TLB entry made before it: the table is not walked through any more."""
    rig, mmu = replaced_directory(LAZY)
    mmu.invalidate(Invlpg(VirtAddr(VA + GIB1)))
    assert possible(mmu, VA) == {1, 2}
    rig.set(find(rig, leaf(1)), leaf(3))
    assert possible(mmu, VA) == {1, 2}


def test_invlpg_of_the_address_after_one_elsewhere_ends_that_too() -> None:
    _, mmu = replaced_directory(LAZY)
    mmu.invalidate(Invlpg(VirtAddr(VA + GIB1)))
    mmu.invalidate(Invlpg(VA))
    assert possible(mmu, VA) == {2}


def test_through_a_remembered_directory_entry_later_contents_of_the_table_are_seen() -> None:
    rig, mmu = replaced_directory(LAZY)
    rig.set(find(rig, leaf(1)), leaf(3))
    assert possible(mmu, VA) == {1, 3, 2}


def test_a_store_to_a_table_taken_out_is_not_missed_after_the_page_was_used() -> None:
    """That table is on no path a walk would take now, and yet a walk may go through it."""
    rig, mmu = replaced_directory(LAZY)
    mmu.answerer = Pick(-1)
    assert read(mmu, VA) == 2
    rig.set(find(rig, leaf(1)), leaf(3))
    assert possible(mmu, VA) == {1, 3, 2}


def test_without_directory_caching_later_contents_of_a_table_taken_out_are_not_seen() -> None:
    rig, mmu = replaced_directory(LAZY_NO_PSC)
    rig.set(find(rig, leaf(1)), leaf(3))
    assert possible(mmu, VA) == {1, 2}


@pytest.mark.parametrize("level", [4, 3, 2])
def test_a_remembered_entry_counts_at_every_level_of_directories(level: int) -> None:
    rig = PagingRig()
    slot = rig.map(VA, 1)
    mmu = rig.mmu(LAZY)
    rig.set(rig.slot(VA, level), 0)
    rig.set(slot, leaf(2))
    assert possible(mmu, VA) == {1, 2, None}
    mmu.invalidate(Invlpg(VA))
    assert possible(mmu, VA) == {None}


def test_rights_of_a_version_are_those_of_its_own_path() -> None:
    """The directory entry was read-only once: by it a write is denied, by the present one it is not."""
    rig = PagingRig()
    rig.map(VA, 1)
    pde = rig.slot(VA, 2)
    full = rig.get(pde)
    rig.preset(pde, Pte.make(full.pfn, P | A))
    mmu = rig.mmu(LAZY)
    rig.set(pde, full)
    mmu.answerer = Pick(0)
    assert write(mmu, VA) is None
    assert write(mmu, VA) == 1


# --- set and single ---------------------------------------------------------------------------------


def test_set_semantics_may_read_the_new_version_and_then_the_old_one() -> None:
    _, mmu = changing(LAZY, 1, 2)
    mmu.answerer = Pick(-1, 0)
    assert [read(mmu, VA), read(mmu, VA)] == [2, 1]


def test_single_semantics_may_not() -> None:
    _, mmu = changing(LAZY_SINGLE, 1, 2)
    mmu.answerer = Pick(-1)
    assert read(mmu, VA) == 2
    assert offered(mmu, VA) == []


def test_single_keeps_the_version_used_last_and_what_could_be_walked_since() -> None:
    rig, mmu = changing(LAZY_SINGLE, 1, 2, 3)
    mmu.answerer = Pick(1)
    assert offered(mmu, VA) == [1, 2]
    assert read(mmu, VA) == 2
    assert offered(mmu, VA) == [2]
    rig.set(rig.slot(VA), leaf(4))
    assert offered(mmu, VA) == [2, 3]


def test_single_does_not_go_back_to_what_only_a_dropped_directory_entry_gave() -> None:
    """An INVLPG elsewhere emptied the caches before the new entry was used, which replaced the old one."""
    _, mmu = replaced_directory(LAZY_SINGLE)
    mmu.invalidate(Invlpg(VirtAddr(VA + GIB1)))
    mmu.answerer = Pick(-1)
    assert read(mmu, VA) == 2
    assert possible(mmu, VA) == {2}


def test_single_may_go_back_to_what_a_remembered_directory_entry_still_gives() -> None:
    _, mmu = replaced_directory(LAZY_SINGLE)
    mmu.answerer = Pick(-1)
    assert read(mmu, VA) == 2
    mmu.invalidate(Invlpg(VirtAddr(VA + GIB1)))  # filled again just before
    assert possible(mmu, VA) == {1, 2}


def test_single_is_for_each_size() -> None:
    """A 2M entry and a 4K entry are two: using the new small one does not forget the old large one."""
    rig = PagingRig()
    pde = rig.map(VA, 0x400, RW, PageSize.MIB2)
    mmu = rig.mmu(LAZY_SINGLE)
    on_table(rig, OTHER_TABLE, 0, leaf(0x800))
    rig.set(pde, Pte.make(OTHER_TABLE, TABLE))
    mmu.answerer = Pick(-1)
    assert read(mmu, VA) == 0x800
    assert offered(mmu, VA) == [0x400]


def test_single_is_for_each_page() -> None:
    rig = PagingRig()
    slots = [rig.map(VA + n * PAGE, 10 + n) for n in range(2)]
    mmu = rig.mmu(LAZY_SINGLE)
    for n, slot in enumerate(slots):
        rig.set(slot, leaf(20 + n))
    mmu.answerer = Pick(-1)
    assert read(mmu, VA) == 20
    assert (offered(mmu, VA), offered(mmu, VA + PAGE)) == ([], [11])


def test_single_is_for_each_pcid() -> None:
    """Entries of one page for two PCIDs stand side by side: using one does not replace the other."""
    rig = PagingRig()
    slot = rig.map(VA, 1)
    rig.map(VA, 2, root=SECOND_ROOT)
    mmu = rig.mmu(LAZY_SINGLE, Control(pcid_enable=True))
    rig.set(slot, leaf(3))
    mmu.answerer = Pick(0)
    assert read(mmu, VA) == 1
    mmu.pcid, mmu.root = 1, SECOND_ROOT  # MOV CR3 with bit 63: nothing is invalidated
    mmu.tlb.run_on(SECOND_ROOT, 1)
    assert read(mmu, VA) == 2
    mmu.pcid, mmu.root = 0, ROOT
    mmu.tlb.run_on(ROOT, 0)
    assert 1 in possible(mmu, VA)


# --- what is shown ----------------------------------------------------------------------------------


def test_entries_are_the_old_versions_of_pages_accessed_so_far() -> None:
    rig, mmu = changing(LAZY, 1, 2)
    assert mmu.tlb.entries() == ()
    read(mmu, VA)
    assert [(entry.page, entry.pfn) for entry in mmu.tlb.entries()] == [(VA, 1)]
    mmu.invalidate(Invlpg(VA))
    assert mmu.tlb.entries() == ()
    assert rig.memory.journal.now == 1


def test_evicting_is_no_choice_of_its_own() -> None:
    _, mmu = changing(LAZY, 1, 2)
    for entry in mmu.tlb.usable(VA, 0, Port.DATA).entries:
        mmu.tlb.evict(entry)
    assert possible(mmu, VA) == {1, 2}


def test_a_directory_that_leads_out_of_memory_gives_no_version() -> None:
    rig = PagingRig()
    rig.map(VA, 1)
    pde = rig.slot(VA, 2)
    good = rig.get(pde)
    rig.preset(pde, Pte.make(Pfn(rig.memory.size >> 12), TABLE))
    mmu = rig.mmu(LAZY)
    rig.set(pde, good)
    assert possible(mmu, VA) == {1}


def test_a_leaf_that_leads_out_of_memory_gives_no_version() -> None:
    """An access by it would be a bus error; the walk made now says so, an old version must not hide it."""
    rig = PagingRig()
    pa = rig.map(VA, 1)
    rig.preset(pa, leaf(rig.memory.size >> 12))
    mmu = rig.mmu(LAZY)
    rig.set(pa, leaf(2))
    mmu.answerer = Pick(0)
    found = access(mmu, VA)
    assert isinstance(found, Translation), found
    assert found.pa < rig.memory.size


# --- against explicit fills and evictions -----------------------------------------------------------

# One PDE, which may lead to either of two tables or be a 2M leaf; two entries in each table.
LEAD = (0x103, 0x104)  # the PDPT and the PD of VA
TABLES = (0x110, 0x111)
SECOND_LEAD = (0x113, 0x114)
SECOND_TOP = 0x120
PML4_INDEX, PDPT_INDEX = VA >> 39 & 511, VA >> 30 & 511
PDE = LEAD[1] * PAGE
SLOTS = tuple(table * PAGE + 8 * index for table in TABLES for index in range(2))
PDE_VALUES = (
    *(int(Pte.make(Pfn(table), TABLE)) for table in TABLES),
    int(Pte.make(Pfn(TABLES[0]), P | A)),
    int(leaf(0x400, RW, PageSize.MIB2)),
    int(leaf(0x600, RO, PageSize.MIB2)),
    0,
)
PTE_VALUES = (int(leaf(0x800)), int(leaf(0x801)), int(leaf(0x802, RO)), int(leaf(0x803, RW | G)), 0)
PAGES = (int(VA), int(VA + PAGE))
ELSEWHERE = VA + 8 * GIB1

STORES = st.one_of(
    st.builds(Stores, st.just(PDE), st.sampled_from(PDE_VALUES)),
    st.builds(Stores, st.sampled_from(SLOTS), st.sampled_from(PTE_VALUES)),
    st.builds(Stores, st.just(SLOTS[0]), st.sampled_from(PTE_VALUES)),
)
INVALIDATIONS = st.one_of(
    st.builds(InvalidatesPage, st.sampled_from((*PAGES, ELSEWHERE))),
    st.just(InvalidatesAll()),
    st.builds(LoadsRoot, st.sampled_from((int(ROOT), SECOND_TOP))),
)


@st.composite
def programs(draw: st.DrawFn, pages: tuple[int, ...], accesses: int) -> tuple[dict[int, int], list[Event]]:
    """Words at the start, and at most 4 stores, 2 invalidations and some accesses in any order."""
    words = {
        ROOT * PAGE + 8 * PML4_INDEX: int(Pte.make(Pfn(LEAD[0]), TABLE)),
        LEAD[0] * PAGE + 8 * PDPT_INDEX: int(Pte.make(Pfn(LEAD[1]), TABLE)),
        SECOND_TOP * PAGE + 8 * PML4_INDEX: int(Pte.make(Pfn(SECOND_LEAD[0]), TABLE)),
        SECOND_LEAD[0] * PAGE + 8 * PDPT_INDEX: int(Pte.make(Pfn(SECOND_LEAD[1]), TABLE)),
        SECOND_LEAD[1] * PAGE: int(Pte.make(Pfn(TABLES[1]), TABLE)),
        PDE: draw(st.sampled_from(PDE_VALUES)),
        **{slot: draw(st.sampled_from(PTE_VALUES)) for slot in SLOTS},
    }
    events: list[Event] = draw(st.lists(STORES, min_size=1, max_size=4))
    used = st.one_of(st.builds(Reads, st.sampled_from(pages)), st.builds(Writes, st.sampled_from(pages)))
    for more in (
        draw(st.lists(INVALIDATIONS, max_size=2)),
        draw(st.lists(used, min_size=1, max_size=accesses)),
    ):
        for event in more:
            events.insert(draw(st.integers(0, len(events))), event)
    return words, events


class Scripted:
    """Answers from a list, then with option 0, and notes how many options each question had."""

    def __init__(self, answers: list[int]) -> None:
        self.answers = answers
        self.options: list[int] = []

    def answer(self, question: Question) -> int:
        number = len(self.options)
        self.options.append(question.options)
        return self.answers[number] if number < len(self.answers) else 0


def run_once(model: CpuModel, words: dict[int, int], program: list[Event], answerer: Scripted) -> Outcome:
    rig = PagingRig()
    for pa, value in words.items():
        rig.preset(pa, value)
    mmu = rig.mmu(model)
    mmu.answerer = answerer
    results: list[int | None] = []
    for event in program:
        match event:
            case Stores(pa=pa, value=value):
                rig.set(pa, value)
            case Reads(va=va):
                results.append(read(mmu, va))
            case Writes(va=va):
                results.append(write(mmu, va))
            case InvalidatesPage(va=va):
                mmu.invalidate(Invlpg(VirtAddr(va)))
            case InvalidatesAll():
                mmu.invalidate(InvalidateAll())
            case LoadsRoot(root=root):
                mmu.load_root(Pfn(root), 0)
    return tuple(results)


def lazy_outcomes(
    model: CpuModel, words: dict[int, int], program: list[Event], runs: list[int] | None = None
) -> set[Outcome]:
    """All answers to all questions, one run each. `runs` gets the events of each."""
    found = set()
    answers: list[int] = []
    while True:
        scripted = Scripted(answers)
        if runs is not None:
            runs.append(len(program))
        found.add(run_once(model, words, program, scripted))
        answers = (answers + [0] * len(scripted.options))[: len(scripted.options)]
        while answers and answers[-1] + 1 == scripted.options[len(answers) - 1]:
            answers.pop()
        if not answers:
            return found
        answers[-1] += 1


def lazy(memory: Memory, directories: DirectoryCache) -> CpuModel:
    return CpuModel("lazy", LazySpec(memory, directories))


@pytest.mark.parametrize("directories", DirectoryCache)
@PROPERTY
@given(programs(PAGES, accesses=3))
def test_single_semantics_has_the_outcomes_of_one_entry_filled_and_evicted_at_will(
    directories: DirectoryCache, case: tuple[dict[int, int], list[Event]]
) -> None:
    words, program = case
    remembers = directories is DirectoryCache.PER_LEVEL
    expected = explicit_outcomes(words, ROOT, program, PAGES, Holds.ONE, remembers=remembers)
    assert lazy_outcomes(lazy(Memory.SINGLE, directories), words, program) == expected


@pytest.mark.parametrize("directories", DirectoryCache)
@PROPERTY
@given(programs(PAGES[:1], accesses=3))
def test_set_semantics_has_the_outcomes_of_many_entries_filled_and_evicted_at_will(
    directories: DirectoryCache, case: tuple[dict[int, int], list[Event]]
) -> None:
    words, program = case
    remembers = directories is DirectoryCache.PER_LEVEL
    expected = explicit_outcomes(words, ROOT, program, PAGES[:1], Holds.SEVERAL, remembers=remembers)
    assert lazy_outcomes(lazy(Memory.SET, directories), words, program) == expected


@pytest.mark.slow
@pytest.mark.parametrize("directories", DirectoryCache)
@pytest.mark.parametrize(
    ("memory", "holds", "pages"),
    [(Memory.SINGLE, Holds.ONE, PAGES), (Memory.SET, Holds.SEVERAL, PAGES[:1])],
    ids=["single", "set"],
)
@settings(PROPERTY, max_examples=3000)
@given(st.data())
def test_very_many_programs_have_the_outcomes_of_explicit_fills_and_evictions(
    memory: Memory, holds: Holds, pages: tuple[int, ...], directories: DirectoryCache, data: st.DataObject
) -> None:
    words, program = data.draw(programs(pages, accesses=4))
    remembers = directories is DirectoryCache.PER_LEVEL
    expected = explicit_outcomes(words, ROOT, program, pages, holds, remembers=remembers)
    assert lazy_outcomes(lazy(memory, directories), words, program) == expected


@pytest.mark.parametrize(("memory", "holds"), [(Memory.SINGLE, Holds.ONE), (Memory.SET, Holds.SEVERAL)])
def test_every_program_of_two_stores_an_invalidation_and_accesses_at_every_point(
    memory: Memory, holds: Holds
) -> None:
    """Exhaustive over what is stored, where, what is invalidated and when. Prints what both cost."""
    base = {
        ROOT * PAGE + 8 * PML4_INDEX: int(Pte.make(Pfn(LEAD[0]), TABLE)),
        LEAD[0] * PAGE + 8 * PDPT_INDEX: int(Pte.make(Pfn(LEAD[1]), TABLE)),
        PDE: PDE_VALUES[0],
        SLOTS[0]: PTE_VALUES[0],
        SLOTS[2]: PTE_VALUES[1],
    }
    changes: list[Event] = [
        Stores(PDE, PDE_VALUES[1]),
        Stores(PDE, PDE_VALUES[3]),
        Stores(SLOTS[0], PTE_VALUES[2]),
        Stores(SLOTS[0], 0),
    ]
    closings: list[Event] = [
        InvalidatesPage(VA),
        InvalidatesPage(ELSEWHERE),
        InvalidatesAll(),
        LoadsRoot(ROOT),
    ]
    model = lazy(memory, DirectoryCache.PER_LEVEL)
    runs: list[int] = []
    visited: list[int] = []
    for first, second, closing, at in product(changes, changes, closings, range(3)):
        steps = [first, second]
        steps.insert(at, closing)
        program = [event for step in steps for event in (Reads(VA), step)] + [Writes(VA), Reads(VA)]
        expected = explicit_outcomes(base, ROOT, program, PAGES[:1], holds, remembers=True, visited=visited)
        assert lazy_outcomes(model, base, program, runs) == expected, program
    print(  # noqa: T201
        f"{memory.name}: lazily {len(runs)} runs of 8 events, each from the start; explicit fills and "
        f"evictions: {sum(visited)} states of the TLB, those that are alike counted once"
    )
