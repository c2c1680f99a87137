"""What a CPU may still use of a page, and when an invalidation disturbs nobody."""

from __future__ import annotations

import pytest

from emu.addr import VirtAddr
from emu.mmu import without_rule
from emu.paging.models import LAZY
from emu.paging.tlb import InvalidateAll, InvalidateNonGlobal, Invlpg, NewRoot, Rule
from hvolab.explore.footprint.tables import PAGES_OF_ALL
from hvolab.explore.footprint.windows import Windows

PAGE = Invlpg(VirtAddr(0x5000))


def test_a_window_is_open_from_a_change_to_the_cpus_own_invalidation() -> None:
    windows = Windows(2, LAZY)
    assert not windows.is_open(0, 5)
    windows.changed([5, ~512])
    assert [windows.is_open(cpu, page) for cpu in (0, 1) for page in (5, ~512, 6)] == [True, True, False] * 2
    assert windows.close(0, PAGE, [5, 6]) == {5}
    assert (windows.is_open(0, 5), windows.is_open(0, ~512), windows.is_open(1, 5)) == (False, True, True)
    assert windows.close(0, PAGE, [5, 6]) == set(), "nothing has changed since"


@pytest.mark.parametrize("what", [InvalidateNonGlobal(), NewRoot(0)], ids=str)
def test_what_may_leave_globals_closes_no_window(what: InvalidateNonGlobal | NewRoot) -> None:
    windows = Windows(1, LAZY)
    windows.changed([5])
    assert windows.close(0, what, [5, 6]) == {5, 6}
    assert windows.is_open(0, 5)


def test_a_cpu_that_does_not_obey_its_invalidations_keeps_its_windows_open() -> None:
    windows = Windows(1, without_rule(LAZY, Rule.INVLPG_REMOVES_LARGE))
    windows.changed([5])
    assert windows.close(0, InvalidateAll(), [5]) == {5}
    assert windows.is_open(0, 5)


def test_a_change_too_high_up_to_list_opens_every_window_for_good() -> None:
    windows = Windows(1, LAZY)
    windows.changed([PAGES_OF_ALL])
    assert windows.is_open(0, 77)
    assert windows.close(0, InvalidateAll(), [77]) == {77}
    assert windows.is_open(0, 77)
