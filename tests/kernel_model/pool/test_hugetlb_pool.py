"""The pool's counts, which are unsigned longs: what becomes of them when more is surplus than there is."""

from __future__ import annotations

from collections.abc import Callable

from hvo_lab import MIB, Lab
from hvo_pool import numbers

from emu.addr import Pfn
from kernel_model.boot import BootConfig, PoolAtBoot
from kernel_model.core.events import AllocationFailed, PageAllocated
from kernel_model.layout import HstateFields
from kernel_model.mm.failures import FailAt, NoFailures
from kernel_model.mm.hstate import HSTATE_2M, Hstate
from kernel_model.mm.image import HugePage

ULONG_MAX = 18446744073709551615
LARGE = Hstate("4M", 10)
FIRST, SECOND = HugePage(Pfn(0x4000), LARGE), HugePage(Pfn(0x4800), LARGE)


def resized(lab: Lab, count: int) -> None:
    lab.call(lambda: lab.kernel.pool.set_max_huge_pages(LARGE, count))


def surplus_demoted(*huge: HugePage) -> Lab:
    """The list cannot be restored, nor the folio singly: it is surplus, and demoted when there is memory."""
    failures = FailAt(frozenset({0, 1}))
    lab = Lab(BootConfig(128 * MIB, 2, huge, pool=PoolAtBoot.POOLED, failures=failures))
    resized(lab, len(huge) - 1)
    assert numbers(lab, LARGE) == (len(huge), len(huge), 1, len(huge) - 1)
    lab.kernel.pages.failures = NoFailures()
    made: Callable[[], object] = lambda: lab.kernel.pool.demote_pool_huge_page(LARGE, HSTATE_2M, 1)  # noqa: E731
    assert lab.call(made) == 1
    lab.mark()
    return lab


def test_the_last_page_demoted_as_surplus_leaves_a_pool_that_cannot_grow_any_more() -> None:
    """nr 0, free 0, surplus 1, vm.nr_hugepages 18446744073709551615; growing succeeds and does nothing."""
    lab = surplus_demoted(FIRST)
    assert numbers(lab, LARGE) == (0, 0, 1, ULONG_MAX)
    assert numbers(lab) == (2, 2, 0, 2)
    for count in (1, 3):
        resized(lab, count)
        assert numbers(lab, LARGE) == (0, 0, 1, ULONG_MAX)
    assert lab.heard(PageAllocated, AllocationFailed) == []


def test_with_a_second_page_left_growing_by_one_heals_it() -> None:
    lab = surplus_demoted(FIRST, SECOND)
    assert numbers(lab, LARGE) == (1, 1, 1, 0)
    resized(lab, 1)
    assert numbers(lab, LARGE) == (1, 1, 0, 1)
    resized(lab, 2)
    assert numbers(lab, LARGE) == (2, 2, 0, 2)


def test_shrinking_does_not_count_more_surplus_pages_than_there_are() -> None:
    lab = surplus_demoted(FIRST)
    resized(lab, 0)
    of = HstateFields(LARGE.order)
    assert lab.word_at(of.surplus_huge_pages) == 1
    assert numbers(lab, LARGE) == (0, 0, 1, ULONG_MAX)
