"""Which addresses lead to a frame, store by store: when it has changed hands, and when it has not."""

from __future__ import annotations

import pytest
from paging_rig import FRAME, PAGE, PS, ROOT, RW, TABLE, VA, A, D, G, PagingRig, leaf

from emu.addr import PageSize, Pfn, PhysAddr
from emu.paging.pte import Pte
from hvolab.judge.sight.mappings import AddressRange, Mappings, Remapped

FIRST = VA >> 12
MIB2 = 512 * PAGE
MINE, YOURS = (FIRST, FIRST + 8), (FIRST + 8, FIRST + 16)
"""Two folios, eight pages of struct pages each."""
RANGE = AddressRange(VA, VA + 2 * MIB2)
OTHER = Pfn(FRAME + 1)


class Followed:
    """A page table, and what is said of each store to it."""

    def __init__(self, rig: PagingRig, *, ranges: tuple[AddressRange, ...] = (RANGE,)) -> None:
        self.rig = rig
        self.mappings = Mappings(rig.memory, ROOT, ranges, (YOURS, MINE))

    def store(self, pa: int, data: int | bytes) -> list[Remapped]:
        """The store made, a word or some bytes, and what follows of it."""
        written = data.to_bytes(8, "little") if isinstance(data, int) else data
        before = self.rig.memory.read(PhysAddr(pa), len(written))
        self.rig.memory.write(PhysAddr(pa), written)
        return self.mappings.stored(PhysAddr(pa), before)

    def map(self, index: int, pfn: int | None) -> list[Remapped]:
        """The PTE of one page, by its number from the first."""
        return self.store(self.rig.slot(VA + index * PAGE), 0 if pfn is None else leaf(pfn))

    @property
    def latest(self) -> set[int]:
        return {page - FIRST for page in self.mappings.latest}


def mapped(*frames: int) -> Followed:
    """The first pages are mapped to these frames, at time zero, by PTEs."""
    rig = PagingRig()
    for index, pfn in enumerate(frames):
        rig.map(VA + index * PAGE, pfn)
    return Followed(rig)


# --- one PTE --------------------------------------------------------------------------------------------


def test_a_frame_taken_from_one_folio_and_mapped_for_another_has_changed_hands() -> None:
    one = mapped(FRAME)
    assert one.map(0, None) == [Remapped(FRAME)]
    assert one.map(8, FRAME) == [Remapped(FRAME, changed_hands=True)]


def test_a_frame_that_comes_back_to_its_folio_has_not() -> None:
    """What a rollback does; at another page of the same folio it is the same folio's still."""
    one = mapped(FRAME)
    one.map(0, OTHER)
    assert one.map(0, FRAME) == [Remapped(OTHER), Remapped(FRAME)]
    one.map(0, OTHER)
    assert one.map(7, FRAME) == [Remapped(FRAME)]


def test_a_frame_that_is_shared_was_never_without_a_mapping() -> None:
    one = mapped(FRAME, FRAME)
    one.map(0, None)
    assert one.map(8, FRAME) == [Remapped(FRAME)]
    one.map(1, None)
    one.map(8, None)
    assert one.map(0, FRAME) == [Remapped(FRAME, changed_hands=True)], "the last to have it was the other"


def test_a_frame_that_came_back_is_shared_as_any_other() -> None:
    """That it was taken from its folio once is over."""
    one = mapped(FRAME)
    one.map(0, None)
    one.map(0, FRAME)
    assert one.map(8, FRAME) == [Remapped(FRAME)]


def test_a_frame_that_nobody_had_is_anybodys() -> None:
    assert mapped(OTHER).map(8, FRAME) == [Remapped(FRAME)]


def test_a_frame_that_went_by_the_allocator_has_not_changed_hands_here() -> None:
    """That it was freed is another finding, with another cause."""
    one = mapped(FRAME)
    one.map(0, None)
    one.mappings.freed(FRAME)
    assert one.map(8, FRAME) == [Remapped(FRAME)]


def test_pages_of_no_folio_are_each_their_own() -> None:
    one = mapped(FRAME)
    one.map(100, FRAME)
    one.map(0, None)
    one.map(100, None)
    assert one.map(100, FRAME) == [Remapped(FRAME)]
    one.map(100, None)
    assert one.map(101, FRAME) == [Remapped(FRAME, changed_hands=True)]


def test_a_folio_that_is_allocated_later_holds_its_pages_from_then_on() -> None:
    one = mapped(FRAME)
    one.mappings.add_holder(FIRST + 96, FIRST + 104)
    one.map(96, OTHER)
    one.map(96, None)
    assert one.map(103, OTHER) == [Remapped(OTHER)]
    one.map(103, None)
    assert one.map(104, OTHER) == [Remapped(OTHER, changed_hands=True)], "its end is not its own"


# --- what counts as a change ----------------------------------------------------------------------------


def test_the_pages_that_a_store_gave_another_translation_are_the_latest() -> None:
    one = mapped(FRAME, OTHER)
    one.map(1, FRAME)
    assert one.latest == {1}
    one.map(0, OTHER)
    assert one.latest == {0}
    one.store(FRAME << 12, 1)
    assert one.latest == set()
    assert one.mappings.changed == {FIRST, FIRST + 1}


@pytest.mark.parametrize("bits", [RW & ~A, RW & ~D, RW | 1 << 9, RW | 0x7F << 52], ids=str)
def test_what_makes_no_other_version_changes_nothing(bits: int) -> None:
    one = mapped(FRAME)
    assert one.store(one.rig.slot(VA), Pte.make(FRAME, bits)) == []
    assert one.latest == set()
    assert one.mappings.changed == set()


def test_other_rights_change_the_page_and_nobodys_frame() -> None:
    one = mapped(FRAME)
    assert one.store(one.rig.slot(VA), leaf(FRAME, RW | G)) == []
    assert one.latest == {0}


def test_a_store_of_some_bytes_of_an_entry_is_a_store_to_the_entry() -> None:
    one = mapped(FRAME)
    second_byte_of_the_frame = one.rig.slot(VA) + 2
    assert one.store(second_byte_of_the_frame, bytes([0x90])) == [Remapped(FRAME), Remapped(0x900)]
    assert one.latest == {0}


def test_a_bulk_store_is_a_store_to_each_entry_that_it_changes() -> None:
    one = mapped(FRAME, OTHER, FRAME + 2)
    entries = b"".join(leaf(pfn).to_bytes(8, "little") for pfn in (FRAME, FRAME + 3, FRAME + 4))
    assert one.store(one.rig.slot(VA), entries) == [
        Remapped(OTHER),
        Remapped(FRAME + 2),
        Remapped(FRAME + 3),
        Remapped(FRAME + 4),
    ]
    assert one.latest == {1, 2}


def test_a_frame_that_one_bulk_store_moves_to_another_folio_was_never_without_a_mapping() -> None:
    one = mapped(*range(FRAME, FRAME + 9))
    entries = [leaf(FRAME + index) for index in (8, 1, 2, 3, 4, 5, 6, 7, 0)]
    found = one.store(one.rig.slot(VA), b"".join(entry.to_bytes(8, "little") for entry in entries))
    assert {remapped.pfn for remapped in found} == {FRAME, FRAME + 8}
    assert [remapped for remapped in found if remapped.changed_hands] == []


# --- page tables ----------------------------------------------------------------------------------------


def test_a_frame_that_becomes_a_page_table_has_changed_hands() -> None:
    one = mapped(FRAME)
    one.map(0, None)
    assert one.store(one.rig.slot(VA + MIB2, 2), Pte.make(FRAME, TABLE)) == [
        Remapped(FRAME, changed_hands=True)
    ]


def test_a_frame_that_was_freed_first_becomes_a_table_and_has_not() -> None:
    one = mapped(FRAME)
    one.map(0, None)
    one.mappings.freed(FRAME)
    assert one.store(one.rig.slot(VA + MIB2, 2), Pte.make(FRAME, TABLE)) == [Remapped(FRAME)]


def test_the_entries_of_a_new_table_are_mappings_and_are_followed() -> None:
    one = mapped(FRAME)
    table = Pfn(0x700)
    one.rig.preset(PhysAddr((table << 12) + 8 * 5), leaf(OTHER))
    assert one.store(one.rig.slot(VA + MIB2, 2), Pte.make(table, TABLE)) == [
        Remapped(table),
        Remapped(OTHER),
    ]
    assert one.latest == set(range(512, 1024))
    assert one.store((table << 12) + 8 * 6, leaf(FRAME)) == [Remapped(FRAME)]
    assert one.latest == {512 + 6}


def test_a_table_that_is_taken_out_takes_its_mappings_along_and_is_followed_no_more() -> None:
    one = mapped(FRAME, OTHER)
    old = one.rig.slot(VA)
    gone = [Remapped(FRAME), Remapped(OTHER), Remapped(old >> 12)]
    assert one.store(one.rig.slot(VA, 2), 0) == gone
    assert one.latest == set(range(512)), "also what was mapped by neither: the old table can be written yet"
    assert one.store(old, leaf(FRAME + 5)) == []
    assert one.latest == set()
    assert one.store(one.rig.slot(VA + MIB2, 2), leaf(0xA00, RW, PageSize.MIB2))[0] == Remapped(0xA00)


def test_what_an_exchange_of_tables_moves_from_folio_to_folio_was_never_without_a_mapping() -> None:
    one = mapped(FRAME, OTHER)
    table = 0x700
    for index, pfn in ((0, OTHER), (8, FRAME)):
        one.rig.preset(PhysAddr((table << 12) + 8 * index), leaf(pfn))
    old = one.rig.slot(VA) >> 12
    found = one.store(one.rig.slot(VA, 2), Pte.make(Pfn(table), TABLE))
    assert found[:2] == [Remapped(FRAME), Remapped(OTHER)]
    assert found[2:] == [Remapped(old), Remapped(table), Remapped(OTHER), Remapped(FRAME)]
    assert one.latest == set(range(512))
    one.map(8, None)
    assert one.map(0, FRAME) == [Remapped(OTHER), Remapped(FRAME, changed_hands=True)]


# --- large leaves ---------------------------------------------------------------------------------------

BLOCK = 0xA00


def large(*, split: bool = False) -> Followed:
    """The first 2 MiB are one leaf at time zero, or were until it was split."""
    rig = PagingRig()
    rig.map(VA, BLOCK, RW | G, PageSize.MIB2)
    followed = Followed(rig)
    if split:
        assert followed.store(rig.slot(VA, 2), table_of(rig, 0x700)) == [Remapped(0x700)]
    return followed


def table_of(rig: PagingRig, table: int, different: dict[int, int] | None = None) -> Pte:
    """A table that says what the leaf says, but for some entries."""
    frames = {index: BLOCK + index for index in range(512)} | (different or {})
    for index, pfn in frames.items():
        rig.preset(PhysAddr((table << 12) + 8 * index), leaf(pfn, RW | G))
    return Pte.make(Pfn(table), TABLE)


def test_a_split_gives_no_page_another_translation() -> None:
    one = large(split=True)
    assert one.latest == set()
    assert one.mappings.changed == set()


def test_a_split_that_says_something_else_of_one_page_changes_that_page() -> None:
    one = large()
    found = one.store(one.rig.slot(VA, 2), table_of(one.rig, 0x700, {3: FRAME}))
    assert found == [Remapped(BLOCK + 3), Remapped(0x700), Remapped(FRAME)]
    assert one.latest == {3}


def test_a_frame_of_a_leaf_that_was_split_changes_hands_like_any_other() -> None:
    one = large(split=True)
    assert one.map(3, FRAME) == [Remapped(BLOCK + 3), Remapped(FRAME)]
    assert one.map(4, BLOCK + 3) == [Remapped(BLOCK + 4), Remapped(BLOCK + 3)], "the same folio's"
    one.map(4, FRAME)
    assert one.map(9, BLOCK + 3) == [Remapped(BLOCK + 9), Remapped(BLOCK + 3, changed_hands=True)]


def test_a_frame_of_a_leaf_that_is_still_whole_has_a_mapping() -> None:
    rig = PagingRig()
    rig.map(VA + MIB2, BLOCK, RW, PageSize.MIB2)
    rig.map(VA, BLOCK + 7)
    one = Followed(rig)
    one.map(0, None)
    assert one.map(8, BLOCK + 7) == [Remapped(BLOCK + 7)]


def test_a_layout_that_is_split_at_time_zero_is_followed_from_there() -> None:
    one = mapped(*range(FRAME, FRAME + 16))
    one.map(8, None)
    assert one.map(1, FRAME + 8) == [Remapped(FRAME + 1), Remapped(FRAME + 8, changed_hands=True)]


def test_a_leaf_in_place_of_a_table_maps_all_of_its_frames() -> None:
    one = mapped(BLOCK, FRAME)
    table = one.rig.slot(VA) >> 12
    found = one.store(one.rig.slot(VA, 2), Pte.make(Pfn(BLOCK), RW | PS))
    assert found[:2] == [Remapped(FRAME), Remapped(table)]
    assert [remapped.pfn for remapped in found[2:]] == list(range(BLOCK + 1, BLOCK + 512))
    assert one.latest == set(range(1, 512))


# --- where it looks -------------------------------------------------------------------------------------


def test_what_lies_outside_of_the_ranges_is_not_followed() -> None:
    rig = PagingRig()
    rig.map(VA, FRAME)
    rig.map(VA + MIB2, OTHER)
    one = Followed(rig, ranges=(AddressRange(VA + MIB2, VA + 2 * MIB2),))
    assert one.map(0, None) == []
    assert one.latest == set()
    assert one.map(512, None) == [Remapped(OTHER)]
    assert one.latest == {512}


def test_a_page_of_the_lower_half_has_the_number_its_addresses_have() -> None:
    rig = PagingRig()
    low = 0x40_0000
    rig.map(low, FRAME)
    mappings = Mappings(rig.memory, ROOT, (AddressRange(low, low + MIB2),), ())
    slot = rig.slot(low)
    before = rig.memory.read(slot, 8)
    rig.set(slot, 0)
    assert mappings.stored(slot, before) == [Remapped(FRAME)]
    assert mappings.latest == {low >> 12}
