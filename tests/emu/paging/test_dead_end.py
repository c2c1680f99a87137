"""Dead ends: a walk from a remembered directory entry that finds nothing faults, whatever the tables say."""

from __future__ import annotations

import pytest
from paging_rig import (
    FRAME,
    GIB1,
    MIB2,
    PAGE,
    RO,
    ROOT,
    RW,
    TABLE,
    VA,
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

from emu.addr import PageSize, Pfn, PhysAddr, VirtAddr
from emu.mmu import Denied, Mmu
from emu.paging.dead_end import DeadEnd
from emu.paging.models import LAZY, LAZY_NO_PSC, LAZY_SINGLE, SKYLAKE, CpuModel
from emu.paging.pte import Pte
from emu.paging.tlb import InvalidateAll, Invalidation, Invlpg, Port
from emu.paging.walk import Access, FaultCode, Lack, PageFault, Privilege, WalkStep

LARGE = leaf(0x400, RW, PageSize.MIB2)
RESERVED = Pte(leaf(1) | 1 << 51)
LAZY_ONES = pytest.mark.parametrize("model", [LAZY, LAZY_SINGLE], ids=lambda model: model.name)


def dead_ends(mmu: Mmu, va: int = VA) -> list[DeadEnd]:
    return list(mmu.tlb.usable(VirtAddr(va), mmu.pcid, Port.DATA).dead_ends)


def emptied(model: CpuModel, value: int = 0) -> tuple[PagingRig, Mmu, DeadEnd]:
    """A large page takes the place of VA's page table, then `value` is stored there."""
    rig = PagingRig()
    pa = rig.map(VA, FRAME)
    path = tuple(WalkStep(level, rig.slot(VA, level), rig.get(rig.slot(VA, level))) for level in (4, 3, 2))
    mmu = rig.mmu(model)
    rig.set(path[-1].pa, LARGE)
    rig.set(pa, value)
    lack = Lack.RESERVED if value else Lack.NOT_PRESENT
    return rig, mmu, DeadEnd(VA, path, 3, 1, pa, Pte(value), lack, moment=0)


@LAZY_ONES
@pytest.mark.parametrize("value", [0, RESERVED], ids=["absent", "reserved"])
def test_a_remembered_directory_entry_may_lead_to_nothing_though_memory_maps_the_page(
    model: CpuModel, value: int
) -> None:
    _, mmu, expected = emptied(model, value)
    assert dead_ends(mmu) == [expected]
    assert offered(mmu, VA) == [FRAME]
    assert mmu.peek(VA).pa == 0x400 << 12  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("kind", "privilege", "code"),
    [
        (Access.READ, Privilege.SUPERVISOR, FaultCode(0)),
        (Access.WRITE, Privilege.USER, FaultCode.WRITE | FaultCode.USER),
        (Access.FETCH, Privilege.SUPERVISOR, FaultCode.FETCH),
    ],
)
@pytest.mark.parametrize("value", [0, RESERVED], ids=["absent", "reserved"])
def test_its_fault_says_what_was_tried_and_what_was_found(
    kind: Access, privilege: Privilege, code: FaultCode, value: int
) -> None:
    _, mmu, expected = emptied(LAZY, value)
    mmu.answerer = Pick(1)
    if value:
        code |= FaultCode.PROTECTION | FaultCode.RESERVED
    assert access(mmu, VA, kind, privilege) == Denied(PageFault(VA, code), None, expected)


def test_the_fault_drops_what_led_there_so_that_the_next_access_succeeds() -> None:
    _, mmu, _ = emptied(LAZY)
    mmu.answerer = Pick(1)
    assert read(mmu, VA) is None
    assert possible(mmu, VA) == {0x400}


def test_old_versions_come_before_dead_ends_and_the_walk_comes_last() -> None:
    for pick, expected in ((0, FRAME), (1, None), (2, 0x400)):
        _, mmu, _ = emptied(LAZY)
        mmu.answerer = picks = Pick(pick)
        assert read(mmu, VA) == expected
        (question,) = picks.asked
        assert (question.options, question.default) == (3, 2)


def test_nobody_asked_means_the_walk_from_the_root() -> None:
    _, mmu, _ = emptied(LAZY)
    assert read(mmu, VA) == 0x400


def test_a_cpu_that_reads_every_level_at_each_walk_has_none() -> None:
    _, mmu, _ = emptied(LAZY_NO_PSC)
    assert dead_ends(mmu) == []


@pytest.mark.parametrize(
    "what", [Invlpg(VA), Invlpg(VirtAddr(VA + 8 * GIB1)), InvalidateAll()], ids=["INVLPG", "elsewhere", "all"]
)
def test_none_is_left_by_what_empties_the_paging_structure_caches(what: Invalidation) -> None:
    _, mmu, _ = emptied(LAZY)
    mmu.invalidate(what)
    assert dead_ends(mmu) == []


def test_none_is_left_by_a_load_of_cr3() -> None:
    _, mmu, _ = emptied(LAZY)
    mmu.load_root(ROOT, 0)
    assert dead_ends(mmu) == []


def test_a_flush_between_the_directory_entry_and_the_zeroing_is_enough() -> None:
    rig = PagingRig()
    pa = rig.map(VA, FRAME)
    mmu = rig.mmu(LAZY)
    rig.set(rig.slot(VA, 2), LARGE)
    mmu.invalidate(Invlpg(VA))
    rig.set(pa, 0)
    assert possible(mmu, VA) == {0x400}


def test_a_flush_before_the_directory_entry_changes_is_too_early() -> None:
    rig = PagingRig()
    pa = rig.map(VA, FRAME)
    mmu = rig.mmu(LAZY)
    mmu.invalidate(InvalidateAll())
    rig.set(rig.slot(VA, 2), LARGE)
    rig.set(pa, 0)
    assert possible(mmu, VA) == {FRAME, None, 0x400}


def test_what_the_table_held_once_does_not_count_only_what_it_holds_now() -> None:
    """Absent is never cached: the walk is made now, and the entry is back."""
    rig, mmu, found = emptied(LAZY)
    rig.set(found.pa, leaf(2))
    assert dead_ends(mmu) == []
    assert possible(mmu, VA) == {FRAME, 2, 0x400}


def test_one_that_meets_the_fault_of_a_walk_from_the_root_is_none() -> None:
    rig, mmu, _ = emptied(LAZY)
    rig.set(rig.slot(VA, 2), 0)
    assert dead_ends(mmu) == []
    assert possible(mmu, VA) == {FRAME, None, 0x400}


def test_one_that_meets_another_fault_than_a_walk_from_the_root_is_one() -> None:
    rig, mmu, expected = emptied(LAZY, RESERVED)
    rig.set(rig.slot(VA, 2), 0)
    assert dead_ends(mmu) == [expected]


@pytest.mark.parametrize("level", [4, 3, 2])
def test_it_may_begin_at_every_level_of_directories(level: int) -> None:
    rig = PagingRig()
    pa = rig.map(VA, FRAME)
    mmu = rig.mmu(LAZY)
    old = rig.slot(VA, level)
    rig.set(old, Pte.make(_second_path(rig, level), TABLE))
    rig.set(pa, 0)
    (found,) = dead_ends(mmu)
    assert (found.remembered, found.level, found.pa, len(found.steps)) == (5 - level, 1, pa, 3)
    assert possible(mmu, VA) == {FRAME, None, 0x900}


def _second_path(rig: PagingRig, level: int) -> Pfn:
    """A table of the level below `level` that leads to frame 0x900."""
    frame = 0x900
    for number in range(1, level):
        table = 0x700 + number
        index = VA >> (12 + 9 * (number - 1)) & 511
        bits = RW if number == 1 else TABLE
        rig.preset(PhysAddr(table * PAGE + 8 * index), Pte.make(Pfn(frame), bits))
        frame = table
    return Pfn(frame)


def test_a_directory_entry_never_accessed_was_not_remembered() -> None:
    """SDM 3A 4.10.3.1: A is set in all entries of the path before one is remembered."""
    rig = PagingRig()
    pa = rig.map(VA, FRAME)
    pde = rig.slot(VA, 2)
    rig.preset(pde, Pte.make(rig.get(pde).pfn, P | W))
    mmu = rig.mmu(LAZY)
    rig.set(pde, LARGE)
    rig.set(pa, 0)
    assert possible(mmu, VA) == {0x400}


def test_a_large_leaf_is_no_directory_entry() -> None:
    rig = PagingRig()
    pde = rig.map(VA, 0x400, RW, PageSize.MIB2)
    mmu = rig.mmu(LAZY)
    rig.set(pde, Pte.make(Pfn(0x700), TABLE))
    rig.preset(PhysAddr(0x700 * PAGE), leaf(0x800))
    rig.set(PhysAddr(0x400 * PAGE), 0)
    assert (dead_ends(mmu), possible(mmu, VA)) == ([], {0x400, 0x800})


def test_an_entry_that_was_there_twice_is_one_and_could_be_remembered_the_second_time() -> None:
    rig, mmu, found = emptied(LAZY)
    rig.set(rig.slot(VA, 2), found.steps[-1].entry)
    rig.set(rig.slot(VA, 2), LARGE)
    assert [(one.path, one.moment) for one in dead_ends(mmu)] == [(found.path, 3)]


def test_two_directory_entries_are_two_dead_ends_the_older_first() -> None:
    rig, mmu, found = emptied(LAZY)
    rig.set(rig.slot(VA, 2), Pte.make(Pfn(0x700), TABLE))
    rig.set(rig.slot(VA, 2), LARGE)
    assert [(one.table, one.moment) for one in dead_ends(mmu)] == [(found.table, 0), (0x700, 3)]


def test_a_store_to_a_table_taken_out_after_the_page_was_used_is_not_missed() -> None:
    rig = PagingRig()
    pa = rig.map(VA, FRAME)
    mmu = rig.mmu(LAZY)
    rig.set(rig.slot(VA, 2), LARGE)
    mmu.answerer = Pick(-1, -1)
    assert (read(mmu, VA), dead_ends(mmu)) == (0x400, [])
    rig.set(pa, 0)
    assert (read(mmu, VA), len(dead_ends(mmu))) == (0x400, 1)
    rig.set(pa, leaf(3))
    assert dead_ends(mmu) == []


def test_rights_of_a_remembered_entry_deny_as_an_old_version_does_and_are_no_dead_end() -> None:
    rig = PagingRig()
    rig.map(VA, FRAME)
    pde = rig.slot(VA, 2)
    full = rig.get(pde)
    rig.preset(pde, Pte.make(full.pfn, RO))
    mmu = rig.mmu(LAZY)
    rig.set(pde, full)
    assert (dead_ends(mmu), offered(mmu, VA)) == ([], [FRAME])
    mmu.answerer = Pick(0)
    assert write(mmu, VA) is None


# --- the paging-structure caches of the geometry models -------------------------------------------------


def test_psc_a_walk_that_ends_dead_says_which_directory_entry_it_remembered() -> None:
    rig = PagingRig()
    rig.map(VA, FRAME)
    pa = rig.map(VA + PAGE, FRAME + 1)
    mmu = rig.mmu(SKYLAKE)
    read(mmu, VA)
    path = tuple(WalkStep(level, rig.slot(VA, level), rig.get(rig.slot(VA, level))) for level in (4, 3, 2))
    moment = rig.memory.journal.now
    rig.set(path[-1].pa, LARGE)
    rig.set(pa, 0)
    va = VirtAddr(VA + PAGE)
    expected = DeadEnd(va, path, 3, 1, pa, Pte(0), Lack.NOT_PRESENT, moment)
    assert access(mmu, va) == Denied(PageFault(va, FaultCode(0)), None, expected)
    assert read(mmu, va) == 0x401


def test_psc_a_walk_that_faults_as_one_from_the_root_does_is_no_dead_end() -> None:
    rig = PagingRig()
    rig.map(VA, FRAME)
    mmu = rig.mmu(SKYLAKE)
    read(mmu, VA)
    va = VirtAddr(VA + PAGE)
    assert access(mmu, va) == Denied(PageFault(va, FaultCode(0)), None, None)


def test_psc_what_was_read_from_a_remembered_entry_is_as_old_as_that_entry() -> None:
    """The PDE was read late, through a PDPTE gone by then: the moment is the PDPTE's."""
    rig = PagingRig()
    rig.map(VA, FRAME)
    rig.map(VA + MIB2, FRAME)
    pa = rig.map(VA + MIB2 + PAGE, FRAME)
    mmu = rig.mmu(SKYLAKE)
    read(mmu, VA)
    moment = rig.memory.journal.now
    rig.set(rig.slot(VA, 3), leaf(0, RW, PageSize.GIB1))
    assert read(mmu, VA + MIB2) == FRAME
    rig.set(pa, 0)
    found = access(mmu, VA + MIB2 + PAGE)
    assert isinstance(found, Denied)
    assert found.dead_end is not None
    assert (found.dead_end.remembered, found.dead_end.moment) == (3, moment)


def test_what_it_says_of_itself() -> None:
    _, _, found = emptied(LAZY)
    assert str(found) == (
        "a walk from the remembered level 2 entry 0x104027 of 0x103000 ends at 0x104000: "
        "the level 1 entry is not present"
    )
