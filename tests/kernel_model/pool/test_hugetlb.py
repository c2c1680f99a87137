"""The pool: its numbers, its lists, what each huge page's vmemmap looks like, when memory runs out too."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hvo_lab import MIB, Lab, pages_of
from hvo_pool import EMPTY, FIRST, POOLED, SECOND, THIRD, at_rest, free_list, numbers, optimized, resize

from emu.addr import Pfn
from kernel_model.boot import BootConfig, PoolAtBoot
from kernel_model.core.events import (
    AllocationFailed,
    KernelBug,
    KernelWarning,
    OperationReturned,
    PageAllocated,
    PageFreed,
)
from kernel_model.core.spinlock import HUGETLB_LOCK
from kernel_model.layout import (
    FOLIO_LIST,
    FREE_HPAGE_WORK_PENDING,
    FREE_HPAGE_WORK_RUNNING,
    HPAGE_FREELIST,
    pfn_to_page,
)
from kernel_model.mm.failures import FailAt, FailFrom, NoFailures
from kernel_model.mm.hstate import HSTATE_1G, HSTATE_2M, Hstate
from kernel_model.mm.image import HugePage
from kernel_model.pool.hugetlb import EBUSY


def test_growing_allocates_optimizes_and_accounts() -> None:
    lab = Lab(EMPTY)
    free = lab.kernel.pages.free_frames()
    resize(lab, 2)
    assert numbers(lab) == (2, 2, 0, 2)
    pfns = free_list(lab)
    assert len(set(pfns)) == 2
    assert all(pfn % 512 == 0 and optimized(lab, pfn) for pfn in pfns)
    # Two blocks of 512; a page table for each section touched and a new head each; 8 pages back for each.
    assert lab.kernel.pages.free_frames() == free - 2 * 512 - 1 - 2 + 2 * 8
    at_rest(lab)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_what_is_grown_and_shrunk_leaves_the_memory_it_took_but_page_tables(count: int) -> None:
    lab = Lab(EMPTY)
    free = lab.kernel.pages.free_frames()
    resize(lab, count)
    pfns = free_list(lab)
    resize(lab, 0)
    assert numbers(lab) == (0, 0, 0, 0)
    assert free_list(lab) == []
    assert lab.kernel.pages.free_frames() == free - 1
    assert not any(optimized(lab, pfn) for pfn in pfns)
    assert all(lab.struct_page(pfn + n).refcount == 0 for pfn in pfns for n in (0, 1, 2, 63, 64, 511))
    at_rest(lab)


def test_what_was_freed_can_be_allocated_again() -> None:
    lab = Lab(EMPTY)
    resize(lab, 2)
    before = sorted(free_list(lab))
    resize(lab, 0)
    resize(lab, 2)
    assert sorted(free_list(lab)) == before
    assert numbers(lab) == (2, 2, 0, 2)
    at_rest(lab)


def test_a_pool_at_boot_is_one_that_was_grown() -> None:
    lab = Lab(POOLED)
    assert numbers(lab) == (3, 3, 0, 3)
    assert sorted(free_list(lab)) == [FIRST.pfn, SECOND.pfn, THIRD.pfn]
    assert all(optimized(lab, pfn) for pfn in free_list(lab))
    assert lab.events == []
    assert lab.machine.steps == 0
    assert lab.linked(FOLIO_LIST) == []
    at_rest(lab)


def test_the_sysctl_may_change_between_growing_and_shrinking() -> None:
    lab = Lab(EMPTY)
    resize(lab, 1)
    lab.call(lambda: lab.kernel.hvo.write_sysctl(0))
    resize(lab, 2)
    assert sorted(optimized(lab, pfn) for pfn in free_list(lab)) == [False, True]
    lab.call(lambda: lab.kernel.hvo.write_sysctl(1))
    resize(lab, 0)
    assert numbers(lab) == (0, 0, 0, 0)
    at_rest(lab)


def test_growing_stops_where_memory_ends() -> None:
    lab = Lab(replace(EMPTY, failures=FailAt(frozenset({1}))))
    resize(lab, 3)
    assert [failed.purpose for failed in lab.heard(AllocationFailed)] == ["huge page"]
    assert numbers(lab) == (1, 1, 0, 1)
    at_rest(lab)


def test_without_a_page_table_a_page_joins_the_pool_as_it_is() -> None:
    lab = Lab(replace(EMPTY, failures=FailFrom(1)))
    resize(lab, 1)
    assert numbers(lab) == (1, 1, 0, 1)
    assert not optimized(lab, free_list(lab)[0])
    assert lab.key() == 0
    at_rest(lab)


def test_a_speculative_reference_costs_a_page_one_more_try() -> None:
    lab = Lab(EMPTY)

    def holds(event: object) -> bool:
        return isinstance(getattr(event, "payload", None), PageAllocated)

    call = lab.start(lambda: lab.kernel.pool.set_max_huge_pages(HSTATE_2M, 1))
    lab.run_until(0, holds)
    (taken,) = lab.heard(PageAllocated)
    last_page = lambda event: getattr(event, "va", 0) == pfn_to_page(taken.pfn) + 7 * 4096  # noqa: E731
    lab.run_until(0, last_page)
    held = lab.struct_page(taken.pfn)
    lab.write_struct(taken.pfn, held._replace(refcount=2))
    lab.run()
    assert call.returned
    assert numbers(lab) == (1, 1, 0, 1)
    assert free_list(lab) != [taken.pfn]
    assert lab.struct_page(taken.pfn).refcount == 1
    assert lab.heard(KernelWarning) == []


def test_what_cannot_be_restored_becomes_surplus() -> None:
    """No memory for any vmemmap page: every page stays, free, surplus."""
    lab = Lab(replace(POOLED, failures=FailFrom(0)))
    resize(lab, 0)
    assert numbers(lab) == (3, 3, 3, 0)
    assert sorted(free_list(lab)) == [FIRST.pfn, SECOND.pfn, THIRD.pfn]
    assert all(optimized(lab, pfn) for pfn in free_list(lab))
    at_rest(lab)


def test_one_folio_restored_singly_pays_for_the_others() -> None:
    """The first try of the list fails at once; one folio is restored singly and freed; then all go."""
    lab = Lab(replace(POOLED, failures=FailAt(frozenset({0}))))
    resize(lab, 0)
    assert numbers(lab) == (0, 0, 0, 0)
    results = [done.result for done in lab.heard(OperationReturned) if "restore" in done.function]
    assert results == [-12, 0, 2]
    at_rest(lab)


def test_what_the_list_restored_before_it_failed_is_freed_first() -> None:
    lab = Lab(replace(POOLED, failures=FailAt(frozenset({7}))))
    resize(lab, 0)
    assert numbers(lab) == (0, 0, 0, 0)
    results = [done.result for done in lab.heard(OperationReturned) if "restore" in done.function]
    assert results == [-12, 2]
    assert [freed.order for freed in lab.heard(PageFreed) if freed.order].count(9) == 3
    at_rest(lab)


def test_surplus_pages_are_persistent_again_when_they_are_wanted() -> None:
    lab = Lab(replace(POOLED, failures=FailFrom(0)))
    resize(lab, 0)
    assert numbers(lab) == (3, 3, 3, 0)
    resize(lab, 2)
    assert numbers(lab) == (3, 3, 1, 2)


# -- handed out, and freed where nobody may sleep --------------------------------------------------------


def handed_out(lab: Lab) -> int:
    folio = lab.call(lambda: lab.kernel.pool.dequeue_hugetlb_folio(HSTATE_2M))
    assert folio is not None
    return int(folio)


def test_a_folio_is_handed_out_with_one_reference_and_comes_back() -> None:
    lab = Lab(POOLED)
    folio = handed_out(lab)
    pfn = (folio - pfn_to_page(0)) // 64
    assert numbers(lab) == (3, 2, 0, 3)
    assert lab.struct_page(pfn).refcount == 1
    lab.write_struct(pfn, lab.struct_page(pfn)._replace(refcount=0))
    lab.call(lambda: lab.kernel.pool.free_huge_folio(folio))
    assert numbers(lab) == (3, 3, 0, 3)
    assert pfn in free_list(lab)
    at_rest(lab)


def test_a_surplus_folio_is_left_to_the_worker_which_may_sleep() -> None:
    lab = Lab(POOLED)
    folio = handed_out(lab)
    pfn = (folio - pfn_to_page(0)) // 64
    resize(lab, 0)  # two are free and go; the third is in use, and surplus
    assert numbers(lab) == (1, 0, 1, 0)
    lab.write_struct(pfn, lab.struct_page(pfn)._replace(refcount=0))
    lab.call(lambda: lab.kernel.pool.free_huge_folio(folio))
    assert numbers(lab) == (0, 0, 0, 0)
    assert lab.word_at(FREE_HPAGE_WORK_PENDING) == 1
    assert lab.word_at(HPAGE_FREELIST) == folio + 24
    assert optimized(lab, pfn)
    lab.call(lab.kernel.pool.kworker, cpu=1)
    assert lab.word_at(HPAGE_FREELIST) == lab.word_at(FREE_HPAGE_WORK_PENDING) == 0
    assert lab.word_at(FREE_HPAGE_WORK_RUNNING) == 0
    assert not optimized(lab, pfn)
    assert lab.kernel.pages.is_free(pfn)
    at_rest(lab)


# -- dissolving and demoting -----------------------------------------------------------------------------


def test_dissolving_takes_one_free_folio_out() -> None:
    lab = Lab(POOLED)
    assert lab.call(lambda: lab.kernel.pool.dissolve_free_hugetlb_folio(SECOND.folio)) == 0
    assert numbers(lab) == (2, 2, 0, 2)
    assert lab.kernel.pages.is_free(SECOND.pfn)
    assert lab.call(lambda: lab.kernel.pool.dissolve_free_hugetlb_folio(SECOND.folio)) == 0
    at_rest(lab)


def test_a_folio_in_use_is_not_dissolved() -> None:
    lab = Lab(POOLED)
    folio = handed_out(lab)
    assert lab.call(lambda: lab.kernel.pool.dissolve_free_hugetlb_folio(folio)) == -EBUSY
    assert numbers(lab) == (3, 2, 0, 3)
    assert lab.word_named(HUGETLB_LOCK.name) == 0


def test_without_memory_for_its_vmemmap_a_folio_stays_in_the_pool() -> None:
    lab = Lab(replace(POOLED, failures=FailFrom(0)))
    assert lab.call(lambda: lab.kernel.pool.dissolve_free_hugetlb_folio(FIRST.folio)) == -12
    assert numbers(lab) == (3, 3, 0, 3)
    assert optimized(lab, FIRST.pfn)
    at_rest(lab)


@pytest.mark.slow
def test_a_gigantic_page_becomes_512_smaller_ones() -> None:
    huge = HugePage(Pfn(1 << 18), HSTATE_1G)
    config = BootConfig(2304 * MIB, 1, (huge,), pool=PoolAtBoot.POOLED)
    lab = Lab(config, keep=(KernelBug,))
    assert numbers(lab, HSTATE_1G) == (1, 1, 0, 1)
    made = lab.call(lambda: lab.kernel.pool.demote_pool_huge_page(HSTATE_1G, HSTATE_2M, 1))
    assert made == 1
    assert numbers(lab, HSTATE_1G) == (0, 0, 0, 0)
    assert numbers(lab, HSTATE_2M) == (512, 512, 0, 512)
    assert sorted(free_list(lab)) == [huge.pfn + 512 * n for n in range(512)]


def test_of_a_gigantic_page_of_boot_only_what_is_needed_is_initialised() -> None:
    """An order of 12 stands for 1G: 64 vmemmap pages. Optimized, its tails show the one page there is."""
    h = Hstate("16M", 12)
    huge = HugePage(Pfn(0x4000), h)
    config = BootConfig(128 * MIB, 1, (huge,), pool=PoolAtBoot.BOOTMEM)
    for failures, initialised in ((NoFailures(), False), (FailFrom(0), True)):
        lab = Lab(replace(config, failures=failures))
        assert lab.struct_page(huge.pfn + 64).next == 0
        lab.call(lambda lab=lab: lab.kernel.pool.prep_and_add_bootmem_folios(h, FOLIO_LIST))
        assert lab.struct_page(huge.pfn + 65).next == huge.folio + 1
        frames = {lab.frame(va) for va in pages_of(huge)}
        assert (len(frames) == 64) is initialised
