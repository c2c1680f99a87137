"""R8 to R11, R14: what each invalidation removes, and what it leaves."""

from __future__ import annotations

import pytest
from paging_rig import GIB1, PAGE, RW, SECOND_ROOT, VA, G, PagingRig, leaf, possible, read
from rule_shows import NEW, OLD, PCIDS, Frames, by_model, changed, shows

from emu.addr import VirtAddr
from emu.mmu import without_rule
from emu.paging.lazy import LazyTlb
from emu.paging.models import LAZY, SKYLAKE, CpuModel
from emu.paging.pte import PteBit
from emu.paging.tlb import (
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
from emu.paging.walk import Control


def with_now(model: CpuModel, *frames: int | None) -> Frames:
    """What a CPU may use that holds these: a lazy one may always walk now as well."""
    return set(frames) | ({NEW} if model.name.startswith("lazy") else set())


# --- R8: INVLPG ---------------------------------------------------------------------------------------


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
        mmu.tlb.run_on(mmu.root, 0, 0)
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


# --- R9: INVPCID --------------------------------------------------------------------------------------


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


# --- R10: MOV CR3 -------------------------------------------------------------------------------------


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


# --- R14: INVLPGB and TLBSYNC ---------------------------------------------------------------------------


@by_model
@pytest.mark.parametrize("what", [Invlpg(VA), InvalidateAll()], ids=["of the page", "of everything"])
def test_r14_what_a_broadcast_is_of_may_be_used_until_tlbsync_and_not_after_it(
    model: CpuModel, what: Invlpg | InvalidateAll
) -> None:
    _, mmu = changed(model)
    place = mmu.tlb.expect(0)
    assert possible(mmu, VA) == with_now(model, OLD)
    mmu.carry_out(what, place, 1)
    assert possible(mmu, VA) == {NEW}


def test_r14_what_is_changed_after_the_broadcast_may_be_used_after_tlbsync() -> None:
    rig, mmu = changed(LAZY)
    place = mmu.tlb.expect(0)
    rig.set(rig.slot(VA), leaf(NEW + 1))
    mmu.carry_out(Invlpg(VA), place, 1)
    assert possible(mmu, VA) == {NEW, NEW + 1}
