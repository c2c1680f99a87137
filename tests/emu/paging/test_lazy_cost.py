"""What an access of the lazy TLB costs, in words looked at: it grows with its own page's changes alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from paging_rig import FRAME, MIB2, PAGE, TABLE, VA, PagingRig, leaf, offered

from emu.addr import Pfn, PhysAddr, VirtAddr
from emu.memory import MIB, Moment, PhysicalMemory
from emu.mmu import Mmu
from emu.paging.models import LAZY
from emu.paging.pte import Pte
from emu.paging.tlb import FaultedAt, InvalidateAll, Invalidation, Invlpg

COUNTS = (1, 4, 16, 64)


class Counting(PhysicalMemory):
    """Counts the words of the past that it is asked for."""

    looked_at = 0

    def word_at(self, pa: PhysAddr, moment: Moment) -> int:
        self.looked_at += 1
        return super().word_at(pa, moment)


def looked_at(change: Callable[[PagingRig, int], None], count: int, *after: Invalidation) -> tuple[int, int]:
    """After these: how many words an access looks at, and how many older versions it is offered."""
    rig = PagingRig()
    rig.memory = memory = Counting(16 * MIB)
    rig.map(VA, FRAME)
    mmu: Mmu = rig.mmu(LAZY)
    for number in range(count):
        change(rig, number)
    for what in after:
        mmu.invalidate(what)
    versions = len(offered(mmu, VA))
    return memory.looked_at, versions


def leaf_changes(rig: PagingRig, number: int) -> None:
    rig.set(rig.slot(VA), leaf(FRAME + 1 + number))


def directory_changes(rig: PagingRig, number: int) -> None:
    """Each time another table, with one entry in it."""
    table = Pfn(0x600 + number)
    rig.preset(PhysAddr(table * PAGE), leaf(FRAME + 1 + number))
    rig.set(rig.slot(VA, 2), Pte.make(table, TABLE))


@pytest.mark.parametrize("change", [leaf_changes, directory_changes])
def test_it_grows_in_proportion_to_the_changes_of_the_path(change: Callable[[PagingRig, int], None]) -> None:
    first, *found = [looked_at(change, count) for count in COUNTS]
    assert [versions for _, versions in (first, *found)] == list(COUNTS)
    each = (found[0][0] - first[0]) // 3
    assert 0 < each <= 3
    assert [words - first[0] for words, _ in found] == [each * (count - 1) for count in COUNTS[1:]]


@pytest.mark.parametrize(
    "what", [InvalidateAll(), Invlpg(VA), FaultedAt(VA, 0)], ids=["all", "INVLPG", "fault"]
)
@pytest.mark.parametrize("change", [leaf_changes, directory_changes])
def test_what_invalidates_the_page_cuts_it_to_that_of_a_page_never_changed(
    change: Callable[[PagingRig, int], None], what: Invalidation
) -> None:
    assert looked_at(change, 64, what) == looked_at(change, 0)


def test_an_invlpg_of_another_page_does_not_cut_it() -> None:
    other = Invlpg(VirtAddr(VA + MIB2))
    assert looked_at(leaf_changes, 64, other)[1] == 64


def test_stores_beside_the_path_cost_nothing() -> None:
    def beside(rig: PagingRig, number: int) -> None:
        rig.set(rig.slot(VA + (1 + number) * PAGE), leaf(FRAME))

    assert looked_at(beside, 64) == looked_at(beside, 0)
