"""The paging-structure caches of the geometry models: directory entries that memory has lost."""

from __future__ import annotations

import pytest
from paging_rig import MIB2, PAGE, VA, PagingRig, leaf, read
from rule_shows import NEW, OLD

from emu.paging.models import SKYLAKE, ZEN_3


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
