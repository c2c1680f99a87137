"""The lazy TLB: versions that only a remembered directory entry still gives."""

from __future__ import annotations

import pytest
from lazy_setups import replaced_directory
from paging_rig import GIB1, VA, A, P, PagingRig, Pick, leaf, possible, read, write

from emu.addr import VirtAddr
from emu.paging.models import LAZY, LAZY_NO_PSC, CpuModel
from emu.paging.pte import Pte
from emu.paging.tlb import FaultedAt, Invlpg


def find(rig: PagingRig, value: int) -> int:
    """Where in the tables that word is."""
    return next(pa for pa in range(0x100_000, 0x110_000, 8) if rig.memory.read_word(pa) == value)


@pytest.mark.parametrize("model", [LAZY, LAZY_NO_PSC], ids=lambda model: model.name)
def test_a_version_by_a_replaced_directory_entry_is_in_the_window(model: CpuModel) -> None:
    _, mmu = replaced_directory(model)
    assert possible(mmu, VA) == {1, 2}


@pytest.mark.parametrize("model", [LAZY, LAZY_NO_PSC], ids=lambda model: model.name)
def test_invlpg_ends_a_version_by_a_replaced_directory_entry(model: CpuModel) -> None:
    """The INVLPG that empties the paging-structure caches removes what they filled just before it, too."""
    _, mmu = replaced_directory(model)
    mmu.invalidate(Invlpg(VA))
    assert possible(mmu, VA) == {2}


@pytest.mark.parametrize("model", [LAZY, LAZY_NO_PSC], ids=lambda model: model.name)
def test_a_fault_ends_a_version_by_a_replaced_directory_entry(model: CpuModel) -> None:
    _, mmu = replaced_directory(model)
    mmu.invalidate(FaultedAt(VA, 0))
    assert possible(mmu, VA) == {2}


def test_invlpg_elsewhere_leaves_what_the_directory_entry_had_given_so_far() -> None:
    """Only a TLB entry made before it: the table is not walked through any more."""
    rig, mmu = replaced_directory(LAZY)
    mmu.invalidate(Invlpg(VirtAddr(VA + GIB1)))
    assert possible(mmu, VA) == {1, 2}
    rig.set(find(rig, leaf(1)), leaf(3))
    assert possible(mmu, VA) == {1, 2}


def test_invlpg_of_the_address_after_one_elsewhere_ends_that_too() -> None:
    _, mmu = replaced_directory(LAZY)
    mmu.invalidate(Invlpg(VirtAddr(VA + GIB1)))
    mmu.invalidate(Invlpg(VA))
    assert possible(mmu, VA) == {2}


def test_through_a_remembered_directory_entry_later_contents_of_the_table_are_seen() -> None:
    rig, mmu = replaced_directory(LAZY)
    rig.set(find(rig, leaf(1)), leaf(3))
    assert possible(mmu, VA) == {1, 3, 2}


def test_a_store_to_a_table_taken_out_is_not_missed_after_the_page_was_used() -> None:
    """That table is on no path a walk would take now, and yet a walk may go through it."""
    rig, mmu = replaced_directory(LAZY)
    mmu.answerer = Pick(-1)
    assert read(mmu, VA) == 2
    rig.set(find(rig, leaf(1)), leaf(3))
    assert possible(mmu, VA) == {1, 3, 2}


def test_without_directory_caching_later_contents_of_a_table_taken_out_are_not_seen() -> None:
    rig, mmu = replaced_directory(LAZY_NO_PSC)
    rig.set(find(rig, leaf(1)), leaf(3))
    assert possible(mmu, VA) == {1, 2}


@pytest.mark.parametrize("level", [4, 3, 2])
def test_a_remembered_entry_counts_at_every_level_of_directories(level: int) -> None:
    rig = PagingRig()
    slot = rig.map(VA, 1)
    mmu = rig.mmu(LAZY)
    rig.set(rig.slot(VA, level), 0)
    rig.set(slot, leaf(2))
    assert possible(mmu, VA) == {1, 2, None}
    mmu.invalidate(Invlpg(VA))
    assert possible(mmu, VA) == {None}


def test_rights_of_a_version_are_those_of_its_own_path() -> None:
    """The directory entry was read-only once: by it a write is denied, by the present one it is not."""
    rig = PagingRig()
    rig.map(VA, 1)
    pde = rig.slot(VA, 2)
    full = rig.get(pde)
    rig.preset(pde, Pte.make(full.pfn, P | A))
    mmu = rig.mmu(LAZY)
    rig.set(pde, full)
    mmu.answerer = Pick(0)
    assert write(mmu, VA) is None
    assert write(mmu, VA) == 1
