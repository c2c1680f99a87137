"""The walk and what may be done with its result, by hand: one test per line of the manual's tables."""

from __future__ import annotations

from dataclasses import replace

import pytest
from paging_rig import FRAME, LEVEL, NX, PAGE, PS, RO, ROOT, RW, TABLE, VA, A, D, G, P, PagingRig, U, W, leaf

from emu.addr import PageSize, Pfn, PhysAddr, VirtAddr
from emu.paging.pte import Pte, PteBit
from emu.paging.walk import (
    ALL_RIGHTS,
    TOP_LEVEL,
    Access,
    BusError,
    Control,
    FaultCode,
    PageFault,
    Privilege,
    Rights,
    Walk,
    Walked,
    WalkStart,
    WalkStep,
    access_code,
    entry_address,
    mark,
    permitted,
    reserved_bits,
    walk,
)

READ, WRITE, FETCH = Access.READ, Access.WRITE, Access.FETCH
KERNEL, USER = Privilege.SUPERVISOR, Privilege.USER
PLAIN = Control()


def walk_of(rig: PagingRig, va: int = VA, control: Control = PLAIN, code: int = 0) -> Walked:
    start = WalkStart(TOP_LEVEL, ROOT)
    return walk(rig.memory.read_word, start, VirtAddr(va), FaultCode(code), control, 40)


# --- the path -----------------------------------------------------------------------------------------


def test_entry_address_takes_nine_bits_of_the_address_for_each_level() -> None:
    va = VirtAddr(0xFFFF_0000_0000_0000 | 0x1FF << 39 | 0x0AB << 30 | 0x0CD << 21 | 0x0EF << 12 | 0x123)
    indexes = [entry_address(Pfn(0x77), va, level) - 0x77000 for level in (4, 3, 2, 1)]
    assert indexes == [0x1FF * 8, 0x0AB * 8, 0x0CD * 8, 0x0EF * 8]


@pytest.mark.parametrize("size", PageSize, ids=str)
def test_a_walk_reports_every_entry_it_read_and_where(size: PageSize) -> None:
    rig = PagingRig()
    rig.map(VA, 0x40000 if size is PageSize.GIB1 else 0x600, RW, size)
    steps = tuple(
        WalkStep(level, rig.slot(VA, level), rig.get(rig.slot(VA, level)))
        for level in range(4, LEVEL[size] - 1, -1)
    )
    found = walk_of(rig, VA + 0xABC)
    assert found == Walk(VirtAddr(VA + 0xABC), steps, size, Rights(write=True, user=False, execute=True))
    assert isinstance(found, Walk)
    assert (found.page, found.pfn) == (VA, 0x40000 if size is PageSize.GIB1 else 0x600)
    assert found.pa == found.pfn * PAGE + 0xABC
    assert found.leaf == steps[-1].entry


@pytest.mark.parametrize("size", [PageSize.MIB2, PageSize.GIB1], ids=str)
def test_the_pat_bit_of_a_large_leaf_is_not_part_of_its_frame(size: PageSize) -> None:
    rig = PagingRig()
    rig.map(VA, 0x40000, RW | PteBit.PAT_LARGE, size)
    found = walk_of(rig, VA + 0x3456)
    assert isinstance(found, Walk)
    assert found.pa == 0x4000_3456


def test_bit_7_of_an_entry_in_a_page_table_is_pat_and_says_nothing_of_the_size() -> None:
    rig = PagingRig()
    rig.map(VA, FRAME, RW | PS)
    found = walk_of(rig)
    assert isinstance(found, Walk)
    assert (found.size, found.pfn) == (PageSize.KIB4, FRAME)


def test_a_walk_writes_nothing() -> None:
    rig = PagingRig()
    rig.map(VA, FRAME, P | W)
    walk_of(rig)
    assert rig.memory.journal.now == 0
    assert rig.get(rig.slot(VA)) == leaf(FRAME, P | W)


def test_a_walk_from_a_remembered_table_starts_there_with_the_rights_of_its_path() -> None:
    rig = PagingRig()
    pte = rig.map(VA, FRAME, RW | U)
    rig.preset(rig.slot(VA, 4), 0)  # the path above is not read again
    start = WalkStart(1, Pfn(pte >> 12), Rights(write=False, user=False, execute=True), ())
    found = walk(rig.memory.read_word, start, VA, FaultCode(0), PLAIN, 40)
    rights = Rights(write=False, user=False, execute=True)
    assert found == Walk(VA, (WalkStep(1, pte, leaf(FRAME, RW | U)),), PageSize.KIB4, rights)


# --- R6: rights along the path --------------------------------------------------------------------------


@pytest.mark.parametrize("level", [4, 3, 2, 1])
@pytest.mark.parametrize(
    ("bits", "rights"),
    [
        (P | W | U, Rights(write=True, user=True, execute=True)),
        (P | U, Rights(write=False, user=True, execute=True)),
        (P | W, Rights(write=True, user=False, execute=True)),
        (P | W | U | NX, Rights(write=True, user=True, execute=False)),
    ],
)
def test_r6_one_entry_of_the_path_takes_a_right_away_at_whatever_level(
    level: int, bits: PteBit, rights: Rights
) -> None:
    rig = PagingRig()
    rig.map(VA, FRAME, P | W | U)
    pa = rig.slot(VA, level)
    rig.preset(pa, Pte.make(rig.get(pa).pfn, bits))
    found = walk_of(rig)
    assert isinstance(found, Walk)
    assert found.rights == rights


def test_rights_print_as_in_a_page_table_dump() -> None:
    assert str(ALL_RIGHTS) == "rw user"
    assert str(Rights(write=False, user=False, execute=False)) == "ro nx"


# --- the error code -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("access", "privilege", "control", "code"),
    [
        (READ, KERNEL, PLAIN, 0),
        (WRITE, KERNEL, PLAIN, 2),
        (READ, USER, PLAIN, 4),
        (WRITE, USER, PLAIN, 6),
        (FETCH, KERNEL, PLAIN, 0x10),
        (FETCH, USER, PLAIN, 0x14),
        (FETCH, KERNEL, Control(no_execute_enable=False), 0),
        (FETCH, USER, Control(no_execute_enable=False), 4),
        (FETCH, KERNEL, Control(no_execute_enable=False, smep=True), 0x10),
    ],
)
def test_error_code_says_what_was_tried(
    access: Access, privilege: Privilege, control: Control, code: int
) -> None:
    assert access_code(access, privilege, control) == FaultCode(code)


@pytest.mark.parametrize("level", [4, 3, 2, 1])
def test_an_entry_that_is_not_present_faults_with_p_clear_and_hides_its_reserved_bits(level: int) -> None:
    rig = PagingRig()
    rig.map(VA, FRAME)
    rig.preset(rig.slot(VA, level), (1 << 64) - 2)  # everything but P
    assert walk_of(rig, VA + 0x123, code=2) == PageFault(VirtAddr(VA + 0x123), FaultCode(2))


@pytest.mark.parametrize("level", [4, 3, 2, 1])
@pytest.mark.parametrize("bit", [40, 45, 51])
def test_a_reserved_address_bit_faults_with_p_and_rsvd(level: int, bit: int) -> None:
    rig = PagingRig()
    rig.map(VA, FRAME)
    pa = rig.slot(VA, level)
    rig.preset(pa, rig.get(pa) | 1 << bit)
    assert walk_of(rig, VA + 8, code=6) == PageFault(VirtAddr(VA + 8), FaultCode(6 | 9))


RESERVED = [
    # level, entry, reserved with NXE=1, reserved with NXE=0
    (4, P, False, False),
    (4, P | PS, True, True),
    (4, P | NX, False, True),
    (3, P | PS, False, False),
    (3, P | PS | 1 << 12, False, False),  # PAT
    (3, P | PS | 1 << 13, True, True),
    (3, P | PS | 1 << 29, True, True),
    (3, P | PS | 1 << 30, False, False),
    (3, P | 1 << 13, False, False),  # no leaf: part of the address
    (2, P | PS | 1 << 12, False, False),
    (2, P | PS | 1 << 13, True, True),
    (2, P | PS | 1 << 20, True, True),
    (2, P | PS | 1 << 21, False, False),
    (2, P | PS | NX, False, True),
    (1, P | PS | 1 << 13, False, False),
    (1, P | NX, False, True),
    (1, P | 0x7FF << 52, False, False),  # software's, and protection keys that are off
    (1, P | 1 << 39, False, False),
    (1, P | 1 << 40, True, True),
    (1, P | 1 << 51, True, True),
]


@pytest.mark.parametrize(("level", "entry", "with_nxe", "without_nxe"), RESERVED)
def test_reserved_bits_by_level(level: int, entry: int, with_nxe: bool, without_nxe: bool) -> None:
    off = Control(no_execute_enable=False)
    assert reserved_bits(Pte(entry), level, 40, PLAIN) is with_nxe
    assert reserved_bits(Pte(entry), level, 40, off) is without_nxe


@pytest.mark.parametrize("physical_bits", [36, 40, 46, 52])
def test_address_bits_from_maxphyaddr_up_are_reserved(physical_bits: int) -> None:
    reserved = [bit for bit in range(12, 64) if reserved_bits(Pte(P | 1 << bit), 1, physical_bits, PLAIN)]
    assert reserved == list(range(physical_bits, 52))


# --- a table where there is no memory -------------------------------------------------------------------


@pytest.mark.parametrize("level", [4, 3, 2])
def test_a_directory_entry_that_points_outside_memory_is_a_bus_error(level: int) -> None:
    rig = PagingRig()
    rig.map(VA, FRAME)
    outside = rig.memory.size >> 12
    rig.preset(rig.slot(VA, level), Pte.make(Pfn(outside), TABLE))
    where = entry_address(Pfn(outside), VA, level - 1)
    assert walk_of(rig) == BusError(VA, where)


# --- permission -----------------------------------------------------------------------------------------

RW_USER = Rights(write=True, user=True, execute=True)
RO_USER = Rights(write=False, user=True, execute=True)
NX_USER = Rights(write=True, user=True, execute=False)
RW_KERNEL = Rights(write=True, user=False, execute=True)
RO_KERNEL = Rights(write=False, user=False, execute=True)
NX_KERNEL = Rights(write=True, user=False, execute=False)
WP0 = Control(write_protect=False)
SMEP = Control(smep=True)
SMAP = Control(smap=True)

PERMITTED = [
    # rights, control: the accesses allowed to the supervisor, to the user
    (RW_KERNEL, PLAIN, "RWX", ""),
    (RO_KERNEL, PLAIN, "RX", ""),
    (RO_KERNEL, WP0, "RWX", ""),
    (NX_KERNEL, PLAIN, "RW", ""),
    (RW_USER, PLAIN, "RWX", "RWX"),
    (RO_USER, PLAIN, "RX", "RX"),
    (RO_USER, WP0, "RWX", "RX"),
    (NX_USER, PLAIN, "RW", "RW"),
    (RW_USER, SMEP, "RW", "RWX"),
    (RW_KERNEL, SMEP, "RWX", ""),
    (RW_USER, SMAP, "X", "RWX"),
    (RW_KERNEL, SMAP, "RWX", ""),
    (RO_USER, replace(SMAP, write_protect=False), "X", "RX"),
    (RW_USER, Control(smep=True, smap=True), "", "RWX"),
]


@pytest.mark.parametrize(("rights", "control", "supervisor", "user"), PERMITTED)
def test_permission_by_rights_control_and_privilege(
    rights: Rights, control: Control, supervisor: str, user: str
) -> None:
    letters = {"R": READ, "W": WRITE, "X": FETCH}

    def allowed(privilege: Privilege) -> str:
        return "".join(c for c, access in letters.items() if permitted(rights, access, privilege, control))

    assert (allowed(KERNEL), allowed(USER)) == (supervisor, user)


# --- accessed and dirty ---------------------------------------------------------------------------------


def entries(rig: PagingRig) -> list[Pte]:
    return [rig.get(rig.slot(VA, level)) for level in (4, 3, 2, 1)]


def bare(rig: PagingRig, bits: PteBit) -> list[Pte]:
    """A path without A and D anywhere; returns it, top first."""
    rig.map(VA, FRAME, bits)
    for level in (4, 3, 2):
        pa = rig.slot(VA, level)
        rig.preset(pa, rig.get(pa).without(A | D))
    return entries(rig)


@pytest.mark.parametrize("access", [READ, FETCH])
def test_a_read_sets_accessed_on_the_whole_path_and_dirty_nowhere(access: Access) -> None:
    rig = PagingRig()
    before = bare(rig, P | W)
    found = walk_of(rig)
    assert isinstance(found, Walk)
    marked = mark(rig.memory, found, access)
    expected = [entry.with_bits(A) for entry in before]
    assert entries(rig) == expected
    assert [step.entry for step in marked.steps] == expected


def test_a_write_sets_dirty_in_the_leaf_alone() -> None:
    rig = PagingRig()
    before = bare(rig, P | W)
    found = walk_of(rig)
    assert isinstance(found, Walk)
    marked = mark(rig.memory, found, WRITE)
    expected = [*(entry.with_bits(A) for entry in before[:3]), before[3].with_bits(A | D)]
    assert entries(rig) == expected
    assert [step.entry for step in marked.steps] == expected


@pytest.mark.parametrize("access", Access)
def test_what_is_marked_already_is_not_stored_again(access: Access) -> None:
    rig = PagingRig()
    rig.map(VA, FRAME, RW | G)
    found = walk_of(rig)
    assert isinstance(found, Walk)
    assert mark(rig.memory, found, access) == found
    assert rig.memory.journal.now == 0


def test_marking_an_entry_that_changed_since_the_walk_keeps_the_change() -> None:
    """The locked update acts on what memory holds: a walk that started lower must not restore old bits."""
    rig = PagingRig()
    pte = rig.map(VA, FRAME, P | W)
    found = walk_of(rig)
    assert isinstance(found, Walk)
    rig.set(pte, leaf(FRAME + 1, RO))
    mark(rig.memory, found, WRITE)
    assert rig.get(pte) == leaf(FRAME + 1, RO | D)


def test_marking_stores_whole_words_that_the_journal_can_take_back() -> None:
    rig = PagingRig()
    before = bare(rig, P | W)
    found = walk_of(rig)
    assert isinstance(found, Walk)
    mark(rig.memory, found, WRITE)
    assert {(entry.pa, len(entry.old)) for entry in rig.memory.journal.since(0)} == {
        (PhysAddr(rig.slot(VA, level)), 8) for level in (4, 3, 2, 1)
    }
    rig.memory.undo(0)
    assert entries(rig) == before
