"""What ends a version of a translation."""

from __future__ import annotations

import pytest
from paging_rig import FRAME as FIRST_FRAME
from paging_rig import RW, TABLE, VA, A, D, PagingRig, leaf

from emu.addr import PageSize, Pfn, PhysAddr, VirtAddr
from emu.events import RoutineSite, Source, Stored
from emu.paging.pte import Pte
from emu.paging.tlb import TlbEntry, entry_from
from emu.paging.walk import ALL_RIGHTS, Control, Walk, WalkStep
from hvolab.catalog.common import HUGE_PAGE, MEMORY_BYTES
from hvolab.judge.sight.endings import Ending, Endings
from kernel_model.boot import BootConfig, boot

ACCESSED, DIRTY, WRITE, SOFT_9, SOFT_58 = 1 << 5, 1 << 6, 1 << 1, 1 << 9, 1 << 58
FRAME = 1 << 21


@pytest.mark.parametrize(
    ("change", "ends"),
    [
        (FRAME, True),  # the complement of the ignored bits, taken of a flag type, once lost the frame number
        (WRITE, True),
        (1 << 63, True),
        (ACCESSED, False),
        (DIRTY, False),
        (SOFT_9, False),
        (SOFT_58, False),
    ],
)
def test_which_bits_of_an_entry_make_another_version(change: int, ends: bool) -> None:
    machine = boot(BootConfig(MEMORY_BYTES, 1, (HUGE_PAGE,))).machine
    va = VirtAddr(HUGE_PAGE.folio)
    found = machine.cpus[0].mmu.peek(va)
    assert isinstance(found, Walk)
    now = machine.memory.journal.now
    entry = entry_from(found, 0, Control(), 0, now, now, 0)
    leaf = found.steps[-1]
    machine.memory.write_word(leaf.pa, int(leaf.entry) ^ change)
    endings = Endings(machine.memory)
    endings.bulk(leaf.pa)
    ending = endings.ending_of(entry)
    assert (ending is not None) is ends
    if ending is not None:
        assert (ending.level, ending.before, ending.after) == (2, leaf.entry, int(leaf.entry) ^ change)


# --- a path that no walk from the root could have read --------------------------------------------------

TABLE_1, TABLE_2 = Pfn(0x700), Pfn(0x701)
OLD, NEW = FIRST_FRAME, Pfn(FIRST_FRAME + 1)


class Stores:
    """A page table, and the endings of its versions; stores are numbered as events from 100 on."""

    def __init__(self) -> None:
        self.rig = PagingRig()
        self.directory = self.rig.slot(VA, 2)
        self.rig.preset(self.directory, Pte.make(TABLE_1, TABLE))
        self.leaf = PhysAddr(TABLE_1 << 12)
        self.rig.preset(self.leaf, leaf(OLD))
        self.endings = Endings(self.rig.memory)
        self._number = 100

    def store(self, pa: PhysAddr, value: int, operation: int | None = None) -> Stored:
        old = self.rig.get(pa)
        self.rig.set(pa, value)
        event = Stored(0, RoutineSite(("f",)), VA, pa, 8, int(old), value, self.entry(), Source.WALK)
        self.endings.stored(self._number, event, operation)
        self._number += 1
        return event

    def entry(self, directory: int | None = None, pte: int | None = None, filled_at: int = -1) -> TlbEntry:
        """What is cached now of a walk that read these two entries, or what there is."""
        steps = tuple(
            WalkStep(level, self.rig.slot(VA, level), self.rig.get(self.rig.slot(VA, level)))
            for level in (4, 3)
        )
        below = (
            WalkStep(
                2, self.directory, Pte(self.rig.get(self.directory) if directory is None else directory)
            ),
            WalkStep(1, self.leaf, Pte(self.rig.get(self.leaf) if pte is None else pte)),
        )
        found = Walk(VA, (*steps, *below), PageSize.KIB4, ALL_RIGHTS)
        now = self.rig.memory.journal.now
        return entry_from(found, 0, Control(), filled_at, now, now, filled_at)


def test_a_version_is_ended_by_the_store_that_overwrote_its_directory_entry_before_its_pte_was_read() -> None:
    one = Stores()
    directory = one.rig.get(one.directory)
    exchange = one.store(one.directory, Pte.make(TABLE_2, TABLE), operation=99)
    one.store(one.leaf, leaf(NEW))
    entry = one.entry(directory)
    assert entry.pfn == NEW
    assert one.endings.ending_of(entry) == Ending(
        0, 100, exchange, 99, 2, directory, Pte.make(TABLE_2, TABLE)
    )
    one.store(one.leaf, 0)
    ending = one.endings.ending_of(entry)
    assert ending is not None
    assert (ending.event, ending.level) == (100, 2), "its PTE went too, later"


def test_the_first_store_of_several_ended_it() -> None:
    one = Stores()
    entry = one.entry()
    one.store(one.leaf, leaf(OLD, RW & ~D))
    assert one.endings.ending_of(entry) is None
    first = one.store(one.leaf, leaf(NEW))
    one.store(one.directory, 0)
    assert one.endings.ending_of(entry) == Ending(1, 101, first, None, 1, leaf(OLD), leaf(NEW))


def test_a_value_that_comes_back_does_not_bring_the_version_back() -> None:
    one = Stores()
    entry = one.entry()
    one.store(one.leaf, leaf(NEW))
    one.store(one.leaf, leaf(OLD))
    ending = one.endings.ending_of(entry)
    assert ending is not None
    assert ending.event == 100
    assert one.endings.ending_of(one.entry()) is None


def test_what_is_cached_stale_is_known_to_be() -> None:
    """No word behind it is stored to afterwards: the quick answer would be that it is current."""
    one = Stores()
    directory = one.rig.get(one.directory)
    one.store(one.directory, Pte.make(TABLE_2, TABLE))
    stale, current = one.entry(directory, filled_at=7), one.entry(filled_at=8)
    one.endings.filled(stale)
    one.endings.filled(current)
    ending = one.endings.ending_of(stale)
    assert ending is not None
    assert ending.event == 100
    assert one.endings.ending_of(current) is None


def test_a_bulk_store_ends_a_version_and_is_no_event() -> None:
    one = Stores()
    entry = one.entry(filled_at=7)
    one.endings.filled(entry)
    one.rig.memory.write(PhysAddr(TABLE_1 << 12), bytes(4096))
    one.endings.bulk(PhysAddr(TABLE_1 << 12))
    ending = one.endings.ending_of(entry)
    assert ending == Ending(0, None, None, None, 1, leaf(OLD), Pte(0))


def test_a_path_is_installed_when_the_last_of_its_entries_is() -> None:
    one = Stores()
    directory = one.rig.get(one.directory)
    assert one.endings.installed_at(one.entry().steps, 0) == 0
    one.store(one.leaf, leaf(NEW))
    assert one.endings.installed_at(one.entry().steps, 1) == 1
    one.store(one.leaf, leaf(NEW, RW & ~A))
    assert one.endings.installed_at(one.entry().steps, 2) == 1, "A makes no other version"
    one.store(one.directory, Pte.make(TABLE_2, TABLE))
    assert one.endings.installed_at(one.entry().steps, 3) == 3
    remembered = one.entry(directory)
    assert one.endings.installed_at(remembered.steps, 3) == 1, (
        "the entry that was overwritten was there before"
    )
    one.store(one.leaf, leaf(OLD))
    assert one.endings.installed_at(one.entry(directory).steps, 4) == 4


def test_the_last_store_to_an_address_is_remembered_with_its_event() -> None:
    one = Stores()
    assert one.endings.last_to(one.leaf) is None
    one.store(one.leaf, leaf(NEW))
    again = one.store(one.leaf, leaf(OLD))
    assert one.endings.last_to(one.leaf) == (101, again)
    assert one.endings.last_to(one.leaf + 4) is None
