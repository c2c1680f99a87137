"""The rules of docs/hardware-rules.md, one test or more for each that is modelled; names carry the number.

Where `emu.paging.tlb.Rule` has a flag for the rule, the same sequence runs once more on a CPU without it, and
the wrong behaviour must appear: a rule whose loss nothing shows is not tested.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from paging_rig import (
    FRAME,
    GIB1,
    MIB2,
    NX,
    PAGE,
    RO,
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
    U,
    W,
    access,
    fetch,
    leaf,
    offered,
    possible,
    read,
    write,
)

from emu.addr import PageSize, Pfn, PhysAddr, VirtAddr
from emu.choice import VersionQuestion
from emu.events import Faulted, Invalidated, MultiHitSeen, Source, TlbFilled
from emu.mmu import Denied, Mmu, Translation, without_rule
from emu.paging.lazy import LazyTlb
from emu.paging.models import (
    KABY_LAKE,
    LAZY,
    LAZY_NO_PSC,
    LAZY_SINGLE,
    SKYLAKE,
    ZEN_3,
    CpuModel,
    MultiHit,
)
from emu.paging.pte import Pte, PteBit
from emu.paging.tlb import (
    ALL_RULES,
    FaultedAt,
    InvalidateAll,
    InvalidateNonGlobal,
    Invalidation,
    Invlpg,
    InvpcidAddress,
    InvpcidContext,
    NewRoot,
    Rule,
)
from emu.paging.walk import Access, BusError, Control, FaultCode, PageFault, Privilege

OLD, NEW = FRAME, FRAME + 1
PCIDS = Control(pcid_enable=True)
HOLDS_AND_LAZY = [SKYLAKE, LAZY]
by_model = pytest.mark.parametrize("model", HOLDS_AND_LAZY, ids=lambda model: model.name)

Frames = set[int | None]
Sequence = Callable[[CpuModel], Frames]


def shows(rule: Rule, model: CpuModel, sequence: Sequence, *, kept: Frames, broken: Frames) -> None:
    """The sequence ends in `kept` on the model, in `broken` on the same model without the rule."""
    assert sequence(model) == kept
    assert sequence(without_rule(model, rule)) == broken


def changed(
    model: CpuModel,
    bits: PteBit = RW,
    size: PageSize = PageSize.KIB4,
    control: Control | None = None,
    at: int = 0,
) -> tuple[PagingRig, Mmu]:
    """A CPU that has used a page whose entry then got another frame. Nothing was invalidated."""
    rig = PagingRig()
    old, new = (0x800, 0xA00) if size is PageSize.MIB2 else (OLD, NEW)
    pa = rig.map(VA, old, bits, size)
    mmu = rig.mmu(model, control)
    assert read(mmu, VA + at) == old + at // PAGE
    rig.set(pa, leaf(new, bits, size))
    return rig, mmu


def with_now(model: CpuModel, *frames: int | None) -> Frames:
    """What a CPU may use that holds these: a lazy one may always walk now as well."""
    return set(frames) | ({NEW} if model.name.startswith("lazy") else set())


# --- what may be cached ---------------------------------------------------------------------------------


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


# --- R8: INVLPG -----------------------------------------------------------------------------------------


@by_model
def test_r8_invlpg_removes_the_page(model: CpuModel) -> None:
    _, mmu = changed(model)
    assert OLD in possible(mmu, VA)
    mmu.invalidate(Invlpg(VirtAddr(VA + 0x7F8)))
    assert possible(mmu, VA) == {NEW}


@by_model
@pytest.mark.parametrize("other", [-PAGE, PAGE, 512 * PAGE])
def test_r8_invlpg_of_another_page_removes_nothing(model: CpuModel, other: int) -> None:
    _, mmu = changed(model)
    mmu.invalidate(Invlpg(VirtAddr(VA + other)))
    assert possible(mmu, VA) == with_now(model, OLD)


@by_model
@pytest.mark.parametrize(
    ("first", "pages", "gone"), [(-1, 1, False), (-1, 2, True), (0, 1, True), (1, 5, False)]
)
def test_r8_a_run_of_invlpgs_covers_its_pages_and_no_more(
    model: CpuModel, first: int, pages: int, gone: bool
) -> None:
    _, mmu = changed(model)
    mmu.invalidate(Invlpg(VirtAddr(VA + first * PAGE), pages=pages))
    assert possible(mmu, VA) == ({NEW} if gone else with_now(model, OLD))


@by_model
def test_r8_invlpg_removes_global_entries_of_every_pcid(model: CpuModel) -> None:
    def sequence(model: CpuModel) -> Frames:
        _, mmu = changed(model, RW | G, control=PCIDS)
        mmu.load_root(mmu.root, 5)
        mmu.invalidate(Invlpg(VA, pcid=5))
        return possible(mmu, VA)

    shows(Rule.INVLPG_REMOVES_GLOBALS, model, sequence, kept={NEW}, broken=with_now(model, OLD))


@by_model
def test_r8_invlpg_leaves_entries_of_another_pcid_that_are_not_global(model: CpuModel) -> None:
    _, mmu = changed(model, control=PCIDS)
    mmu.load_root(mmu.root, 5)
    mmu.invalidate(Invlpg(VA, pcid=5))
    assert possible(mmu, VA) == {NEW}
    mmu.pcid = 0  # back, as by MOV CR3 with bit 63: nothing is invalidated
    if isinstance(mmu.tlb, LazyTlb):
        mmu.tlb.run_on(mmu.root, 0)
    assert possible(mmu, VA) == with_now(model, OLD)


def test_r8_invlpg_of_any_address_empties_the_paging_structure_caches() -> None:
    """A page-table page is taken out and reused, and the CPU remembers the directory entry that led there."""

    def sequence(model: CpuModel) -> Frames:
        rig = PagingRig()
        rig.map(VA, OLD)
        rig.map(VA + PAGE, OLD + 8)
        mmu = rig.mmu(model)
        assert read(mmu, VA + PAGE) == OLD + 8  # a neighbour: VA itself is in no TLB
        table = rig.get(rig.slot(VA, 2)).pfn
        rig.set(rig.slot(VA, 2), 0)
        rig.set(table << 12, leaf(NEW))
        mmu.invalidate(Invlpg(VirtAddr(VA + 5 * GIB1)))
        return {read(mmu, VA)}

    shows(Rule.INVLPG_EMPTIES_PSC, SKYLAKE, sequence, kept={None}, broken={NEW})


def test_r8_after_an_invlpg_the_lazy_tlb_walks_through_no_table_that_was_taken_out() -> None:
    def sequence(model: CpuModel) -> Frames:
        rig = PagingRig()
        rig.map(VA, OLD)
        mmu = rig.mmu(model)
        table = rig.get(rig.slot(VA, 2)).pfn
        rig.set(rig.slot(VA, 2), 0)
        mmu.invalidate(Invlpg(VirtAddr(VA + 5 * GIB1)))
        rig.set(table << 12, leaf(NEW))  # reused only now
        return possible(mmu, VA)

    shows(Rule.INVLPG_EMPTIES_PSC, LAZY, sequence, kept={OLD, None}, broken={OLD, NEW, None})


# --- R9: INVPCID ----------------------------------------------------------------------------------------

# For each invalidation: what is left of (this PCID, another PCID, global) entries of the page.
INVPCID = [
    (InvpcidAddress(VA, 3), "r9_type_0_one_address_one_pcid", (False, True, True)),
    (InvpcidAddress(VirtAddr(VA + PAGE), 3), "r9_type_0_another_address", (True, True, True)),
    (InvpcidContext(3), "r9_type_1_one_pcid", (False, True, True)),
    (InvpcidContext(9), "r9_type_1_a_pcid_not_in_use", (True, True, True)),
    (InvalidateAll(), "r9_type_2_and_r11_everything", (False, False, False)),
    (InvalidateNonGlobal(), "r9_type_3_everything_but_globals", (False, False, True)),
    (NewRoot(3), "r10_mov_cr3", (False, True, True)),
    (NewRoot(9), "r10_mov_cr3_to_another_pcid", (True, True, True)),
    (Invlpg(VA, 3), "r8_invlpg", (False, True, False)),
    (FaultedAt(VA, 3), "r12_page_fault", (False, True, False)),
]


@pytest.mark.parametrize(
    ("what", "left"), [(what, left) for what, _, left in INVPCID], ids=[name for _, name, _ in INVPCID]
)
def test_what_each_invalidation_leaves(what: Invalidation, left: tuple[bool, bool, bool]) -> None:
    def survives(pcid: int, bits: PteBit) -> bool:
        rig = PagingRig()
        rig.map(VA, OLD, bits)
        mmu = rig.mmu(SKYLAKE, PCIDS)
        mmu.pcid = pcid
        read(mmu, VA)
        mmu.invalidate(what)
        return bool(mmu.tlb.entries())

    assert (survives(3, RW), survives(4, RW), survives(3, RW | G)) == left


@pytest.mark.parametrize(
    ("what", "left"), [(what, left) for what, _, left in INVPCID], ids=[name for _, name, _ in INVPCID]
)
def test_what_each_invalidation_leaves_in_a_lazy_tlb(
    what: Invalidation, left: tuple[bool, bool, bool]
) -> None:
    def survives(pcid: int, bits: PteBit) -> bool:
        rig = PagingRig()
        pa = rig.map(VA, OLD, bits)
        mmu = rig.mmu(LAZY, PCIDS)
        mmu.load_root(mmu.root, pcid)
        rig.set(pa, leaf(NEW, bits))
        mmu.invalidate(what)
        return OLD in possible(mmu, VA)

    assert (survives(3, RW), survives(4, RW), survives(3, RW | G)) == left


@by_model
def test_r9_r11_invpcid_type_2_and_a_change_of_pge_remove_globals(model: CpuModel) -> None:
    def sequence(model: CpuModel) -> Frames:
        _, mmu = changed(model, RW | G)
        mmu.invalidate(InvalidateAll())
        return possible(mmu, VA)

    shows(Rule.ALL_REMOVES_GLOBALS, model, sequence, kept={NEW}, broken=with_now(model, OLD))


@by_model
def test_r9_r11_they_remove_what_is_not_global_with_or_without_that_rule(model: CpuModel) -> None:
    for one in (model, without_rule(model, Rule.ALL_REMOVES_GLOBALS)):
        _, mmu = changed(one)
        mmu.invalidate(InvalidateAll())
        assert possible(mmu, VA) == {NEW}


def test_r9_a_page_is_global_only_while_pge_is_on() -> None:
    _, mmu = changed(SKYLAKE, RW | G, control=Control(page_global_enable=False))
    mmu.load_root(mmu.root, 0)
    assert possible(mmu, VA) == {NEW}


# --- R10: MOV CR3 ---------------------------------------------------------------------------------------


@by_model
def test_r10_global_entries_survive_mov_cr3(model: CpuModel) -> None:
    def sequence(model: CpuModel) -> Frames:
        _, mmu = changed(model, RW | G)
        mmu.load_root(mmu.root, 0)
        return possible(mmu, VA)

    shows(Rule.GLOBALS_SURVIVE_CR3, model, sequence, kept=with_now(model, OLD), broken={NEW})


@by_model
def test_r10_mov_cr3_to_the_same_root_removes_what_is_not_global(model: CpuModel) -> None:
    _, mmu = changed(model)
    mmu.load_root(mmu.root, 0)
    assert possible(mmu, VA) == {NEW}


@by_model
def test_r10_after_mov_cr3_the_translations_of_the_old_root_are_gone(model: CpuModel) -> None:
    """Nothing was stored between: the old root's entries are as they were, and still not to be used."""
    rig = PagingRig()
    rig.map(VA, OLD)
    rig.map(VA, NEW, root=SECOND_ROOT)
    mmu = rig.mmu(model)
    assert read(mmu, VA) == OLD
    mmu.load_root(SECOND_ROOT, 0)
    assert possible(mmu, VA) == {NEW}


@by_model
def test_r10_with_pcids_the_other_context_is_kept(model: CpuModel) -> None:
    rig = PagingRig()
    pa = rig.map(VA, OLD)
    rig.map(VA, NEW, root=SECOND_ROOT)
    mmu = rig.mmu(model, PCIDS)
    assert read(mmu, VA) == OLD
    first = mmu.root
    mmu.load_root(SECOND_ROOT, 1)
    assert possible(mmu, VA) == {NEW}
    rig.set(pa, leaf(OLD + 4))
    mmu.invalidate(InvpcidContext(1))
    mmu.load_root(SECOND_ROOT, 1)
    assert possible(mmu, VA) == {NEW}
    # Back to PCID 0, which MOV CR3 then empties.
    mmu.load_root(first, 0)
    assert possible(mmu, VA) == {OLD + 4}


def test_r10_mov_cr3_empties_the_paging_structure_caches() -> None:
    rig = PagingRig()
    rig.map(VA, OLD)
    rig.map(VA + PAGE, OLD + 1)
    mmu = rig.mmu(SKYLAKE)
    read(mmu, VA)
    rig.set(rig.slot(VA, 2), 0)
    mmu.load_root(mmu.root, 0)
    assert read(mmu, VA + PAGE) is None


# --- R12: faults ----------------------------------------------------------------------------------------


@by_model
def test_r12_a_spurious_fault_does_not_repeat(model: CpuModel) -> None:
    """Read-only is cached, memory allows the write by now: one fault, and the retry goes through."""

    def sequence(model: CpuModel) -> Frames:
        rig = PagingRig()
        pa = rig.map(VA, OLD, RO)
        mmu = rig.mmu(model)
        read(mmu, VA)
        rig.set(pa, leaf(OLD, RW))
        mmu.answerer = Pick(0, 0)
        assert write(mmu, VA) is None
        return {write(mmu, VA)}

    shows(Rule.FAULT_INVALIDATES, model, sequence, kept={OLD}, broken={None})


def test_r12_a_denied_hit_names_the_entry_that_denied_it() -> None:
    rig = PagingRig()
    rig.map(VA, OLD, RO)
    mmu = rig.mmu(SKYLAKE)
    read(mmu, VA)
    (held,) = mmu.tlb.entries()
    found = access(mmu, VA + 0x18, Access.WRITE)
    assert found == Denied(PageFault(VirtAddr(VA + 0x18), FaultCode(3)), held)
    # It is gone now, so the second fault comes from a walk.
    assert access(mmu, VA + 0x18, Access.WRITE) == Denied(PageFault(VirtAddr(VA + 0x18), FaultCode(3)), None)


@by_model
def test_r12_a_fault_leaves_other_addresses_alone(model: CpuModel) -> None:
    _, mmu = changed(model)
    assert write(mmu, VA + PAGE) is None
    assert OLD in possible(mmu, VA)


@by_model
def test_r12_a_fault_of_a_walk_drops_old_versions_too(model: CpuModel) -> None:
    """The walk made now is denied, although an older version might have been used."""
    rig = PagingRig()
    pa = rig.map(VA, OLD)
    mmu = rig.mmu(model)
    rig.set(pa, 0)
    mmu.answerer = Pick(-1)
    assert read(mmu, VA) is None
    assert offered(mmu, VA) == []


def test_r12_a_fault_drops_the_paging_structure_entries_used_for_it() -> None:
    rig = PagingRig()
    rig.map(VA, OLD)
    mmu = rig.mmu(SKYLAKE)
    read(mmu, VA)
    other = rig.slot(VA + GIB1, 1)  # a table of its own
    rig.preset(other + 8, leaf(NEW))
    rig.set(rig.slot(VA, 2), Pte.make(Pfn(other >> 12), TABLE))
    assert read(mmu, VA + PAGE) is None  # by the remembered directory entry
    assert read(mmu, VA + PAGE) == NEW


@pytest.mark.parametrize(
    "model", [ZEN_3, replace(LAZY, permission_miss=ZEN_3.permission_miss)], ids=["zen", "lazy"]
)
def test_r12_a_cpu_that_walks_again_has_no_spurious_fault(model: CpuModel) -> None:
    rig = PagingRig()
    rig.listen()
    pa = rig.map(VA, OLD, RO)
    mmu = rig.mmu(model)
    read(mmu, VA)
    rig.set(pa, leaf(NEW, RW))
    mmu.answerer = Pick(0)
    assert write(mmu, VA) == NEW
    assert not [event for event in rig.events if isinstance(event, Faulted | Invalidated)]
    assert [type(event) for event in rig.events] == [TlbFilled, TlbFilled]
    mmu.answerer = None
    assert read(mmu, VA) == NEW  # the old one was replaced


def test_r12_a_cpu_that_walks_again_faults_when_memory_denies_it_too() -> None:
    rig = PagingRig()
    rig.map(VA, OLD, RO)
    mmu = rig.mmu(ZEN_3)
    read(mmu, VA)
    assert access(mmu, VA, Access.WRITE) == Denied(PageFault(VA, FaultCode(3)), None)


def test_r12_a_cpu_that_walks_again_still_reads_by_what_it_has_cached() -> None:
    """Only a denied access walks: a frame change stays unseen, as elsewhere."""
    _, mmu = changed(ZEN_3)
    assert read(mmu, VA) == OLD


# --- R13: the erratum -----------------------------------------------------------------------------------


@by_model
def test_r13_a_cpu_with_the_erratum_keeps_global_entries_over_invlpg(model: CpuModel) -> None:
    faulty = without_rule(model, Rule.INVLPG_REMOVES_GLOBALS)
    _, mmu = changed(faulty, RW | G, control=PCIDS)
    mmu.invalidate(Invlpg(VA))
    assert OLD in possible(mmu, VA)
    mmu.invalidate(InvalidateAll())
    assert possible(mmu, VA) == {NEW}
    # What is not global goes on either.
    _, mmu = changed(faulty, control=PCIDS)
    mmu.invalidate(Invlpg(VA))
    assert possible(mmu, VA) == {NEW}


# --- when software owes nothing, and when it does -------------------------------------------------------

UPGRADES = [
    ("present", leaf(OLD, PteBit(0)), leaf(OLD, RW), Access.WRITE, Privilege.SUPERVISOR),
    ("accessed", leaf(OLD, P | W), leaf(OLD, P | W | A), Access.READ, Privilege.SUPERVISOR),
    ("writable", leaf(OLD, RO), leaf(OLD, RW), Access.WRITE, Privilege.SUPERVISOR),
    ("user", leaf(OLD, RW), leaf(OLD, RW | U), Access.READ, Privilege.USER),
    ("executable", leaf(OLD, RW | NX), leaf(OLD, RW), Access.FETCH, Privilege.SUPERVISOR),
]


@pytest.mark.parametrize(
    "model", [SKYLAKE, ZEN_3, LAZY, LAZY_SINGLE, LAZY_NO_PSC], ids=lambda model: model.name
)
@pytest.mark.parametrize(
    ("before", "after", "kind", "privilege"), [row[1:] for row in UPGRADES], ids=[row[0] for row in UPGRADES]
)
def test_r15_an_upgrade_costs_at_most_one_fault(
    model: CpuModel, before: Pte, after: Pte, kind: Access, privilege: Privilege
) -> None:
    rig = PagingRig()
    pa = rig.slot(VA)
    rig.preset(pa, before)
    mmu = rig.mmu(model)
    access(mmu, VA)  # caches what can be cached
    rig.set(pa, after)
    mmu.answerer = Pick(*[0] * 8)  # always the oldest
    tries = [access(mmu, VA, kind, privilege) for _ in range(3)]
    assert isinstance(tries[1], Translation)
    assert isinstance(tries[2], Translation)
    assert tries[1].pa == OLD << 12


def test_r16_a_bit_cleared_without_invlpg_is_not_set_again() -> None:
    rig = PagingRig()
    pa = rig.map(VA, OLD)
    mmu = rig.mmu(SKYLAKE)
    write(mmu, VA)
    rig.set(pa, leaf(OLD, P | W))
    assert (write(mmu, VA), read(mmu, VA)) == (OLD, OLD)
    assert rig.get(pa) == leaf(OLD, P | W)
    mmu.invalidate(Invlpg(VA))
    write(mmu, VA)
    assert rig.get(pa) == leaf(OLD, RW)


def test_r17_between_store_and_invalidation_either_value_may_be_used() -> None:
    _, mmu = changed(LAZY)
    mmu.answerer = Pick(0, -1, -1, 0)
    assert [read(mmu, VA) for _ in range(4)] == [OLD, NEW, NEW, OLD]
    mmu.invalidate(Invlpg(VA))
    assert possible(mmu, VA) == {NEW}


DOWNGRADES = [
    ("frame", leaf(NEW), {OLD, NEW}),
    ("rights", leaf(OLD, RO), {OLD}),
    ("absent", Pte(0), {OLD, None}),
]


@pytest.mark.parametrize(("now", "may"), [row[1:] for row in DOWNGRADES], ids=[row[0] for row in DOWNGRADES])
def test_r18_an_invalidation_is_owed_on_every_cpu(now: Pte, may: Frames) -> None:
    """CPU 0 has invalidated, CPU 1 has not: it writes through the old entry, silently."""
    rig = PagingRig()
    pa = rig.map(VA, OLD)
    here, there = rig.mmu(LAZY), rig.mmu(LAZY)
    rig.set(pa, now)
    here.invalidate(Invlpg(VA))
    assert OLD not in offered(here, VA)
    assert possible(there, VA) == may
    there.answerer = Pick(0)
    assert write(there, VA) == OLD
    there.invalidate(Invlpg(VA))
    assert offered(there, VA) == []


@by_model
def test_r18_a_change_of_size_owes_one_too(model: CpuModel) -> None:
    rig = PagingRig()
    pde = rig.map(VA, 0x800, RW, PageSize.MIB2)
    mmu = rig.mmu(model)
    read(mmu, VA + 3 * PAGE)
    table = Pfn(0x7F0)
    for index in range(512):
        rig.preset((table << 12) + 8 * index, leaf(0xA00 + index))
    rig.set(pde, Pte.make(table, TABLE))
    assert 0x803 in possible(mmu, VA + 3 * PAGE)
    assert 0x804 in possible(mmu, VA + 4 * PAGE)
    mmu.invalidate(Invlpg(VirtAddr(VA + 400 * PAGE)))
    assert possible(mmu, VA + 3 * PAGE) == {0xA03}
    assert possible(mmu, VA + 4 * PAGE) == {0xA04}


# --- the paging-structure caches of the geometry models -------------------------------------------------


def test_psc_a_walk_may_go_through_a_table_that_was_taken_out_and_reused() -> None:
    rig = PagingRig()
    rig.map(VA, OLD)
    mmu = rig.mmu(SKYLAKE)
    read(mmu, VA)
    table = rig.get(rig.slot(VA, 2)).pfn
    rig.set(rig.slot(VA, 2), 0)
    rig.set((table << 12) + 8, leaf(0x900))  # what the new owner of the frame writes there
    assert read(mmu, VA + PAGE) == 0x900


@pytest.mark.parametrize(("level", "seen"), [(4, OLD + 1), (3, OLD + 1), (2, OLD + 1), (1, None)])
def test_psc_an_absent_directory_entry_is_seen_only_when_it_is_walked(level: int, seen: int | None) -> None:
    rig = PagingRig()
    rig.map(VA, OLD)
    rig.map(VA + PAGE, OLD + 1)
    mmu = rig.mmu(SKYLAKE)
    read(mmu, VA)
    rig.set(rig.slot(VA + PAGE, level), 0)
    assert read(mmu, VA + PAGE) == seen


def test_psc_holds_as_many_entries_of_a_level_as_the_model_says() -> None:
    """SKYLAKE: 32 page directory entries. The 33rd pushes the least recently used out."""
    rig = PagingRig()
    for index in range(33):
        rig.map(VA + index * MIB2, OLD + index)
        rig.map(VA + index * MIB2 + PAGE, OLD + 64 + index)
    mmu = rig.mmu(SKYLAKE)
    for index in range(33):
        read(mmu, VA + index * MIB2)
    for index in range(33):
        rig.set(rig.slot(VA + index * MIB2, 2), 0)
    # Youngest first: a fault would empty the caches.
    order = range(32, -1, -1)
    assert [read(mmu, VA + index * MIB2 + PAGE) is not None for index in order] == [True] * 32 + [False]


def test_psc_of_a_model_without_upper_levels_reads_them_at_every_walk() -> None:
    """ZEN_3 caches page directory entries alone."""
    rig = PagingRig()
    rig.map(VA, OLD)
    rig.map(VA + MIB2, NEW)
    mmu = rig.mmu(ZEN_3)
    read(mmu, VA)
    rig.set(rig.slot(VA, 3), 0)
    assert read(mmu, VA + MIB2) is None


@pytest.mark.parametrize("model", [SKYLAKE, ZEN_3, LAZY], ids=lambda model: model.name)
def test_an_access_beyond_memory_is_a_bus_error_by_a_cached_entry_too(model: CpuModel) -> None:
    """A 1G page that begins in memory and ends outside."""
    rig = PagingRig()
    rig.map(VA, 0, RW, PageSize.GIB1)
    mmu = rig.mmu(model)
    assert read(mmu, VA + 0x5000) == 5
    outside = rig.memory.size
    for _ in range(2):
        assert access(mmu, VA + outside + 8) == BusError(VirtAddr(VA + outside + 8), PhysAddr(outside + 8))


# --- the flags themselves -------------------------------------------------------------------------------


def test_without_rule_takes_away_that_rule_and_leaves_the_rest_of_the_model() -> None:
    for rule in Rule:
        model = without_rule(SKYLAKE, rule)
        assert model == replace(SKYLAKE, rules=ALL_RULES - {rule})
    assert SKYLAKE.rules == ALL_RULES


def test_an_invalidation_is_told_once_with_its_cpu() -> None:
    rig = PagingRig()
    rig.listen()
    mmu = rig.mmu(SKYLAKE)
    mmu.invalidate(Invlpg(VA, 0, 3))
    assert rig.events == [Invalidated(0, Invlpg(VA, 0, 3))]


def test_a_tlb_that_is_cleared_holds_nothing() -> None:
    for model in (SKYLAKE, LAZY):
        _, mmu = changed(model)
        mmu.reset()
        assert mmu.tlb.entries() == ()


def test_a_lazy_tlb_after_power_on_knows_nothing_of_what_was_mapped_before() -> None:
    _, mmu = changed(LAZY)
    mmu.reset()
    assert possible(mmu, VA) == {NEW}


# --- the documentation ----------------------------------------------------------------------------------

RULES_PAGE = Path(__file__).resolve().parents[3] / "docs" / "hardware-rules.md"


def rows() -> dict[str, str]:
    """The rows of the tables of rules, by number."""
    found = re.findall(r"^\| ([RL]\d+) \| (.*) \|$", RULES_PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(found) == len(dict(found))
    return dict(found)


def test_the_page_of_rules_has_every_number_and_every_flag() -> None:
    page = rows()
    assert list(page) == [f"R{n}" for n in range(1, 20)] + [f"L{n}" for n in range(1, 8)]
    for rule in Rule:
        for number in re.findall(r"R\d+", rule.value.split(":")[0]):
            assert f"`{rule.name}`" in page[number], (rule, number)


def test_every_rule_that_is_modelled_has_a_test_with_its_number() -> None:
    tested = {
        number for name in globals() if name.startswith("test_r") for number in re.findall(r"r\d+", name)
    }
    modelled = {
        number.lower()
        for number, row in rows().items()
        if number.startswith("R") and not row.split(" | ")[-1].startswith("not modelled")
    }
    assert modelled <= tested
    assert modelled == {f"r{n}" for n in range(1, 19)} - {"r14"}
