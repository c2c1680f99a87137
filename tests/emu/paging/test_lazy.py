"""The lazy TLB: which versions of a translation an access may use."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from lazy_setups import OTHER_TABLE, on_table, replaced_directory
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

from emu.addr import PageSize, Pfn, VirtAddr
from emu.choice import VersionQuestion
from emu.events import Source
from emu.mmu import Denied, Mmu, Translation
from emu.paging.models import COHERENT, LAZY, LAZY_SINGLE, SKYLAKE, CpuModel, coherent
from emu.paging.pte import Pte, PteBit
from emu.paging.tlb import InvalidateAll, InvalidateNonGlobal, Invlpg, Port
from emu.paging.walk import Access, Control, FaultCode, PageFault


def changing(model: CpuModel, *frames: int) -> tuple[PagingRig, Mmu]:
    """VA was mapped to the first frame before the CPU started, then to the others in turn."""
    rig = PagingRig()
    pa = rig.map(VA, frames[0])
    mmu = rig.mmu(model)
    for frame in frames[1:]:
        rig.set(pa, leaf(frame))
    return rig, mmu


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


# --- present, accessed, dirty -------------------------------------------------------------------------


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


# --- faults -------------------------------------------------------------------------------------------


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


# --- roots, PCIDs, globals ----------------------------------------------------------------------------


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


# --- set and single -----------------------------------------------------------------------------------


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
    mmu.tlb.run_on(SECOND_ROOT, 1, 0)
    assert read(mmu, VA) == 2
    mmu.pcid, mmu.root = 0, ROOT
    mmu.tlb.run_on(ROOT, 0, 1)
    assert 1 in possible(mmu, VA)


# --- what is shown ------------------------------------------------------------------------------------


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


# --- coherent ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [COHERENT, coherent(SKYLAKE)], ids=lambda model: model.name)
@pytest.mark.parametrize("seed", range(20))
def test_a_coherent_cpu_uses_what_one_that_was_just_switched_on_would(model: CpuModel, seed: int) -> None:
    """Leaves, rights, directories change under it, nothing is ever flushed, and nothing is asked."""
    random = Random(seed)
    rig = PagingRig()
    pas = [rig.map(VA + number * PAGE, FRAME + number) for number in range(3)]
    mmu = rig.mmu(model)
    mmu.answerer = picks = Pick()
    for _ in range(60):
        match random.randrange(3):
            case 0:
                rig.set(random.choice(pas), leaf(random.randrange(1, 9), random.choice([RO, RW])))
            case 1:
                rig.set(random.choice(pas), Pte(0))
            case _:
                va = VA + random.randrange(3) * PAGE
                how = random.choice([Access.READ, Access.WRITE])
                assert came_to(mmu, va, how) == came_to(rig.mmu(SKYLAKE), va, how)
    assert picks.asked == []
    assert mmu.tlb.entries() == ()


def test_only_the_tlb_of_a_coherent_cpu_is_another() -> None:
    assert coherent(SKYLAKE) == replace(SKYLAKE, tlb=COHERENT.tlb, psc=COHERENT.psc)
    assert coherent(LAZY).is_lazy


def came_to(mmu: Mmu, va: int, how: Access) -> object:
    """The frame, or the fault."""
    match access(mmu, va, how):
        case Translation(pa=pa):
            return pa
        case Denied(fault=fault):
            return fault
        case found:
            raise AssertionError(found)
