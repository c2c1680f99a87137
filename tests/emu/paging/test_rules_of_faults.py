"""R12 to R18: what a fault removes, the erratum, and what software owes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from paging_rig import (
    GIB1,
    NX,
    PAGE,
    RO,
    RW,
    TABLE,
    VA,
    A,
    G,
    P,
    PagingRig,
    Pick,
    U,
    W,
    access,
    leaf,
    offered,
    possible,
    read,
    write,
)
from rule_shows import NEW, OLD, PCIDS, Frames, by_model, changed, shows

from emu.addr import PageSize, Pfn, VirtAddr
from emu.events import Faulted, Invalidated, TlbFilled
from emu.mmu import Denied, Translation, without_rule
from emu.paging.models import LAZY, LAZY_NO_PSC, LAZY_SINGLE, SKYLAKE, ZEN_3, CpuModel
from emu.paging.pte import Pte, PteBit
from emu.paging.tlb import InvalidateAll, Invlpg, Rule
from emu.paging.walk import Access, FaultCode, PageFault, Privilege

# --- R12: faults --------------------------------------------------------------------------------------


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


# --- R13: the erratum ---------------------------------------------------------------------------------


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


# --- when software owes nothing, and when it does -----------------------------------------------------


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
