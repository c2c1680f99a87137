"""What a store does to translations, and what has been learned of that from run to run."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from paging_rig import FRAME, PAGE, RW, TABLE, VA, D, PagingRig, leaf

from emu.addr import PageSize, Pfn, PhysAddr, VirtAddr
from emu.paging.models import LAZY, CpuModel, MultiHit
from emu.paging.pte import Pte
from emu.paging.tlb import entry_from
from emu.paging.walk import Control, Walk
from hvolab.checked.place import Place
from hvolab.explore.footprint.tables import NO_EFFECT, PAGES_OF_ALL, StoreEffect, Tables

FIRST = VA >> 12
BLOCK = 0xA00


@dataclass
class Learner:
    """A page table whose paths are learned, and the stores to it."""

    rig: PagingRig
    tables: Tables

    def learn(self, va: int = VA, model: CpuModel = LAZY) -> None:
        found = self.rig.mmu(model).peek(VirtAddr(va))
        assert isinstance(found, Walk)
        self.tables.learn(entry_from(found, 0, Control(), 0, 0, 0, 0))

    def store(self, pa: PhysAddr, value: int) -> StoreEffect:
        before = self.rig.memory.read(pa, 8)
        self.rig.set(pa, value)
        return self.tables.effect(pa, 8, before)


def learner(*, size: PageSize = PageSize.KIB4, model: CpuModel = LAZY) -> Learner:
    rig = PagingRig()
    rig.map(VA, BLOCK if size is PageSize.MIB2 else FRAME, RW, size)
    made = Learner(rig, Tables(rig.memory, model))
    made.learn()
    return made


def seen(effect: StoreEffect) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], bool, bool]:
    pages = tuple(sorted(page - FIRST for page in effect.pages))
    splits = tuple(page - FIRST for page in effect.splits)
    return pages, splits, effect.tables, effect.directories, effect.everything


def test_a_store_to_a_pte_changes_its_page() -> None:
    one = learner()
    assert seen(one.store(one.rig.slot(VA + 5 * PAGE), leaf(FRAME))) == ((5,), (), (), False, False)
    assert one.tables.volatile == {FIRST + 5}
    assert one.tables.is_volatile(FIRST + 5)
    assert not one.tables.is_volatile(FIRST)


def test_a_store_that_changes_no_bit_and_one_elsewhere_change_nothing() -> None:
    one = learner()
    assert one.store(one.rig.slot(VA), leaf(FRAME)).pages == ()
    assert one.store(PhysAddr(FRAME << 12), 5) is NO_EFFECT


def test_a_table_that_no_translation_has_led_through_is_none_yet() -> None:
    one = learner()
    one.rig.map(VA + 512 * PAGE, FRAME)
    assert one.store(one.rig.slot(VA + 512 * PAGE), 0) is NO_EFFECT
    one.rig.set(one.rig.slot(VA + 512 * PAGE), leaf(FRAME))
    one.learn(VA + 512 * PAGE)
    assert seen(one.store(one.rig.slot(VA + 512 * PAGE), 0))[0] == (512,)


def test_what_is_translated_through_a_table_is_known_of_every_level() -> None:
    one = learner()
    one.rig.map(VA + 512 * PAGE, FRAME)
    one.learn(VA + 512 * PAGE)
    for page in (3, 515):
        one.store(one.rig.slot(VA + page * PAGE), leaf(FRAME))
    table, directory = (one.rig.slot(VA, level) >> 12 for level in (1, 2))
    assert one.tables.through(table) == {FIRST + 3}
    assert one.tables.through(directory) == {FIRST + 3, FIRST + 515}
    assert one.tables.through(FRAME) == set()
    parent = one.rig.slot(VA, 2)
    one.store(parent, 0)
    assert one.tables.through(table) == {FIRST + page for page in range(512)}, "it was one"
    one.tables.everything_changes = True
    assert one.tables.through(table) > {FIRST + 3, PAGES_OF_ALL}
    assert one.tables.through(FRAME) == set()


def test_nothing_is_translated_through_what_only_another_run_made_a_table() -> None:
    one = learner()
    parent, table = one.rig.slot(VA, 2), one.rig.slot(VA) >> 12
    one.store(one.rig.slot(VA + 3 * PAGE), leaf(FRAME))
    one.rig.preset(parent, Pte(0))
    assert one.tables.through(table) == set()


def split(one: Learner, different: dict[int, Pte]) -> StoreEffect:
    table = Pfn(0x700)
    for index in range(512):
        one.rig.preset(PhysAddr((table << 12) + 8 * index), different.get(index, leaf(BLOCK + index)))
    return one.store(one.rig.slot(VA, 2), Pte.make(table, TABLE))


def test_a_split_changes_no_translation_and_ends_the_large_entry() -> None:
    one = learner(size=PageSize.MIB2)
    table = Pte.make(Pfn(0x700), TABLE).pfn
    assert seen(split(one, {})) == ((), (0,), (table,), False, False)
    assert (one.tables.split, one.tables.volatile) == ({FIRST}, set())


def test_a_split_that_says_something_else_of_a_page_changes_that_page() -> None:
    one = learner(size=PageSize.MIB2)
    found = split(one, {3: leaf(FRAME), 9: leaf(BLOCK + 9, RW & ~D)})
    assert seen(found)[:2] == ((3, 9), (0,))
    assert found.directories


def test_where_sizes_matter_a_split_changes_all_its_pages() -> None:
    one = learner(size=PageSize.MIB2, model=replace(LAZY, multi_hit=MultiHit.MACHINE_CHECK))
    assert seen(split(one, {}))[0] == tuple(range(512))


def test_a_directory_entry_that_is_taken_away_changes_all_its_pages() -> None:
    one = learner()
    assert seen(one.store(one.rig.slot(VA, 2), 0)) == (tuple(range(512)), (), (), True, False)
    assert one.tables.directories_change


def test_an_old_table_that_a_cache_may_still_lead_to_counts() -> None:
    one = learner()
    pte = one.rig.slot(VA)
    one.store(one.rig.slot(VA, 2), 0)
    assert seen(one.store(pte, 0)) == ((0,), (), (), True, False)


def test_a_store_higher_up_changes_everything() -> None:
    one = learner()
    assert seen(one.store(one.rig.slot(VA, 3), 0))[4] is True
    assert one.tables.is_volatile(FIRST + 12345)


def test_it_has_grown_when_it_has_learned_something_and_only_then() -> None:
    one = learner()
    assert one.tables.grown
    one.tables.grown = False
    one.learn()
    one.learn(VA)
    assert not one.tables.grown
    one.store(one.rig.slot(VA), 0)
    assert one.tables.grown
    one.tables.grown = False
    one.store(one.rig.slot(VA), leaf(FRAME))
    assert not one.tables.grown, "that this page changes is known"


@pytest.mark.parametrize("large", [False, True])
def test_what_was_learned_survives_being_saved(large: bool) -> None:
    one = learner(size=PageSize.MIB2 if large else PageSize.KIB4)
    if large:
        split(one, {3: leaf(FRAME)})
    else:
        one.store(one.rig.slot(VA, 3), 0)
    again = Tables(one.rig.memory, LAZY)
    again.load(Place("file", "", one.tables.save()))
    assert again.save() == one.tables.save()
    assert (again.volatile, again.split) == (one.tables.volatile, one.tables.split)
    assert again.everything_changes is not large
    assert not again.grown
