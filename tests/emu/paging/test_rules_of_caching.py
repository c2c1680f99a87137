"""R1 to R7: what a CPU may cache, and what it does with it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from paging_rig import (
    GIB1,
    PAGE,
    RO,
    RW,
    TABLE,
    VA,
    A,
    D,
    P,
    PagingRig,
    Pick,
    U,
    W,
    access,
    fetch,
    leaf,
    possible,
    read,
    write,
)
from rule_shows import NEW, OLD, Frames, by_model, changed, shows

from emu.addr import PageSize, Pfn, VirtAddr
from emu.choice import VersionQuestion
from emu.events import MultiHitSeen, Source
from emu.mmu import Denied, Mmu, Translation
from emu.paging.models import KABY_LAKE, LAZY, SKYLAKE, ZEN_3, CpuModel, MultiHit
from emu.paging.pte import Pte, PteBit
from emu.paging.tlb import Invlpg, Rule
from emu.paging.walk import Access, Control, FaultCode, PageFault

# --- what may be cached -------------------------------------------------------------------------------


def test_r1_a_translation_may_be_cached_for_an_address_never_accessed() -> None:
    """Speculation: the first access ever may come out by an entry that is gone from memory."""
    rig = PagingRig()
    pa = rig.map(VA, OLD)
    mmu = rig.mmu(LAZY)
    rig.set(pa, leaf(NEW))
    assert possible(mmu, VA) == {OLD, NEW}
    mmu.answerer = Pick(0)
    assert read(mmu, VA) == OLD


@pytest.mark.parametrize("model", [SKYLAKE, KABY_LAKE, ZEN_3], ids=lambda model: model.name)
def test_r1_what_is_cached_has_accessed_set_in_memory_first(model: CpuModel) -> None:
    rig = PagingRig()
    pa = rig.map(VA, OLD, P | W)
    mmu = rig.mmu(model)
    read(mmu, VA)
    assert rig.get(pa) == leaf(OLD, P | W | A)
    (entry,) = mmu.tlb.entries()
    assert entry.steps[-1].entry == leaf(OLD, P | W | A)


@by_model
def test_r2_what_is_not_present_is_never_cached(model: CpuModel) -> None:
    rig = PagingRig()
    pa = rig.map(VA, OLD, PteBit(0))
    mmu = rig.mmu(model)
    assert read(mmu, VA) is None
    assert mmu.tlb.entries() == ()
    rig.set(pa, leaf(NEW))
    assert possible(mmu, VA) == {NEW}


@by_model
@pytest.mark.parametrize("wrong", [1 << 51, 1 << 40])
def test_r2_an_entry_with_a_reserved_bit_is_never_cached(model: CpuModel, wrong: int) -> None:
    rig = PagingRig()
    pa = rig.map(VA, OLD)
    rig.preset(pa, leaf(OLD) | wrong)
    mmu = rig.mmu(model)
    assert read(mmu, VA) is None
    rig.set(pa, leaf(NEW))
    assert possible(mmu, VA) == {NEW}


def test_r2_a_version_without_accessed_is_no_old_version() -> None:
    rig = PagingRig()
    pa = rig.map(VA, OLD, P | W)
    mmu = rig.mmu(LAZY)
    rig.set(pa, leaf(NEW))
    assert possible(mmu, VA) == {NEW}


@pytest.mark.parametrize("level", [4, 3, 2])
def test_r2_nor_is_one_whose_directory_lacks_accessed(level: int) -> None:
    rig = PagingRig()
    pa = rig.map(VA, OLD)
    directory = rig.slot(VA, level)
    rig.preset(directory, rig.get(directory).without(A))
    mmu = rig.mmu(LAZY)
    rig.set(pa, leaf(NEW))
    assert possible(mmu, VA) == {NEW}


@pytest.mark.parametrize("model", [SKYLAKE, KABY_LAKE, ZEN_3], ids=lambda model: model.name)
def test_r3_what_is_cached_stays_until_it_is_evicted(model: CpuModel) -> None:
    _, mmu = changed(model)
    assert [read(mmu, VA) for _ in range(3)] == [OLD, OLD, OLD]
    for entry in mmu.tlb.entries():
        mmu.tlb.evict(entry)
    assert read(mmu, VA) == NEW


def test_r3_retention_and_loss_are_both_open_to_the_lazy_tlb() -> None:
    _, mmu = changed(LAZY)
    mmu.answerer = Pick(0, -1, 0)
    assert [read(mmu, VA), read(mmu, VA), read(mmu, VA)] == [OLD, NEW, OLD]


@by_model
@pytest.mark.parametrize("where", [0, 7 * PAGE, 511 * PAGE])
def test_r4_invlpg_of_any_address_in_a_large_page_removes_it(model: CpuModel, where: int) -> None:
    def sequence(model: CpuModel) -> Frames:
        _, mmu = changed(model, size=PageSize.MIB2, at=0x3000)
        mmu.invalidate(Invlpg(VirtAddr(VA + where)))
        return possible(mmu, VA + 0x3000)

    broken: Frames = {0x803, 0xA03} if model is LAZY else {0x803}
    shows(Rule.INVLPG_REMOVES_LARGE, model, sequence, kept={0xA03}, broken=broken)


def split_with_both_sizes_cached(model: CpuModel) -> tuple[PagingRig, Mmu]:
    """A 2M entry cached with D=0, its page split, then a write: the walk adds a 4K entry beside it."""
    rig = PagingRig()
    rig.listen()
    pde = rig.map(VA, 0x800, P | W | A, PageSize.MIB2)
    mmu = rig.mmu(model)
    assert read(mmu, VA) == 0x800
    table = Pfn(0x7F0)
    for index in range(512):
        rig.preset((table << 12) + 8 * index, leaf(0xA00 + index))
    rig.set(pde, Pte.make(table, TABLE))
    assert write(mmu, VA) == 0xA00
    return rig, mmu


@pytest.mark.parametrize("model", [SKYLAKE, KABY_LAKE, ZEN_3], ids=lambda model: model.name)
def test_r5_two_sizes_cached_for_one_address_are_used_access_by_access(model: CpuModel) -> None:
    rig, mmu = split_with_both_sizes_cached(model)
    mmu.answerer = picks = Pick(0, 1, 0)
    assert {read(mmu, VA), read(mmu, VA)} == {0x800, 0xA00}
    assert picks.asked
    assert all(isinstance(question, VersionQuestion) and question.options == 2 for question in picks.asked)
    assert not [event for event in rig.events if isinstance(event, MultiHitSeen)]


@pytest.mark.parametrize("model", [SKYLAKE, ZEN_3], ids=lambda model: model.name)
def test_r5_on_a_cpu_that_forbids_it_two_sizes_are_reported(model: CpuModel) -> None:
    rig, mmu = split_with_both_sizes_cached(replace(model, multi_hit=MultiHit.MACHINE_CHECK))
    assert not [event for event in rig.events if isinstance(event, MultiHitSeen)]
    read(mmu, VA)
    (seen,) = [event for event in rig.events if isinstance(event, MultiHitSeen)]
    assert (seen.cpu, seen.va) == (0, VA)
    assert sorted(entry.size for entry in seen.entries) == [PageSize.KIB4, PageSize.MIB2]


def test_r5_the_lazy_tlb_reports_an_old_size_beside_the_present_one() -> None:
    """No entry is held there: what counts is that a 2M version may be used and a 4K one too."""
    rig = PagingRig()
    rig.listen()
    pde = rig.map(VA, 0x800, RW, PageSize.MIB2)
    mmu = rig.mmu(replace(LAZY, multi_hit=MultiHit.MACHINE_CHECK))
    table = Pfn(0x7F0)
    for index in range(512):
        rig.preset((table << 12) + 8 * index, leaf(0x800 + index))
    rig.set(pde, Pte.make(table, TABLE))
    read(mmu, VA)
    assert [event for event in rig.events if isinstance(event, MultiHitSeen)]


def test_r5_versions_of_one_size_are_no_multi_hit() -> None:
    rig, mmu = changed(replace(LAZY, multi_hit=MultiHit.MACHINE_CHECK))
    rig.listen()
    read(mmu, VA)
    assert not [event for event in rig.events if isinstance(event, MultiHitSeen)]


@by_model
def test_r6_toggling_wp_needs_no_invalidation(model: CpuModel) -> None:
    rig = PagingRig()
    rig.map(VA, OLD, RO | D)
    mmu = rig.mmu(model, Control(write_protect=False))
    assert write(mmu, VA) == OLD
    mmu.control = Control(write_protect=True)
    found = access(mmu, VA, Access.WRITE)
    assert isinstance(found, Denied)
    assert found.fault == PageFault(VA, FaultCode.WRITE | FaultCode.PROTECTION)


@by_model
def test_r6_smep_and_smap_act_on_what_is_cached(model: CpuModel) -> None:
    rig = PagingRig()
    rig.map(VA, OLD, RW | U)
    mmu = rig.mmu(model)
    assert (read(mmu, VA), fetch(mmu, VA)) == (OLD, OLD)
    mmu.control = Control(smep=True, smap=True)
    assert (read(mmu, VA), fetch(mmu, VA)) == (None, None)
    mmu.control = Control()
    assert (read(mmu, VA), fetch(mmu, VA)) == (OLD, OLD)


@by_model
def test_r6_each_path_to_a_table_keeps_its_own_rights(model: CpuModel) -> None:
    """One page table under two directory entries, one of them read-only."""
    rig = PagingRig()
    rig.map(VA, OLD)
    rig.slot(VA + GIB1, 2)
    rig.preset(rig.slot(VA + GIB1, 2), Pte.make(rig.get(rig.slot(VA, 2)).pfn, P | A))
    mmu = rig.mmu(model)
    assert (read(mmu, VA), read(mmu, VA + GIB1)) == (OLD, OLD)
    assert write(mmu, VA + GIB1) is None
    assert write(mmu, VA) == OLD
    # The second page of each: the walk may start from a remembered directory entry.
    rig.map(VA + PAGE, NEW)
    assert write(mmu, VA + GIB1 + PAGE) is None
    assert write(mmu, VA + PAGE) == NEW


# --- R7: dirty ----------------------------------------------------------------------------------------


def test_r7_the_first_write_through_an_entry_cached_clean_walks_again_and_sets_dirty() -> None:
    def sequence(model: CpuModel) -> Frames:
        rig = PagingRig()
        pa = rig.map(VA, OLD, P | W | A)
        mmu = rig.mmu(model)
        read(mmu, VA)
        rig.set(pa, leaf(NEW, P | W | A))
        went = write(mmu, VA)
        assert rig.get(pa).dirty is (went == NEW)
        return {went}

    shows(Rule.DIRTY_NEEDS_WALK, SKYLAKE, sequence, kept={NEW}, broken={OLD})


def test_r7_also_when_the_lazy_tlb_picks_the_clean_old_version() -> None:
    def sequence(model: CpuModel) -> Frames:
        rig = PagingRig()
        pa = rig.map(VA, OLD, P | W | A)
        mmu = rig.mmu(model)
        rig.set(pa, leaf(NEW, P | W | A))
        mmu.answerer = Pick(0)
        return {write(mmu, VA)}

    shows(Rule.DIRTY_NEEDS_WALK, LAZY, sequence, kept={NEW}, broken={OLD})


def test_r7_the_walk_of_a_write_may_find_the_page_gone() -> None:
    rig = PagingRig()
    pa = rig.map(VA, OLD, P | W | A)
    mmu = rig.mmu(SKYLAKE)
    read(mmu, VA)
    rig.set(pa, 0)
    assert read(mmu, VA) == OLD
    assert access(mmu, VA, Access.WRITE) == Denied(PageFault(VA, FaultCode.WRITE), None)


@by_model
@pytest.mark.parametrize("now", [leaf(NEW, RO), leaf(NEW, RW), Pte(0), leaf(OLD, RO)], ids=repr)
def test_r7_through_an_entry_cached_dirty_a_write_goes_straight_out(model: CpuModel, now: Pte) -> None:
    """Whatever memory says by now: so stale writes of a kernel, whose entries have D set, are silent."""
    rig = PagingRig()
    pa = rig.map(VA, OLD)
    mmu = rig.mmu(model)
    read(mmu, VA)
    rig.set(pa, now)
    mmu.answerer = Pick(0)
    found = access(mmu, VA, Access.WRITE)
    assert isinstance(found, Translation)
    assert (found.pa >> 12, found.source) == (OLD, Source.HIT)
    assert rig.get(pa) == now
