"""Memory errors: where they are kept, on how many pages they end up, and what the caller is told."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hvo_lab import MIB, Lab
from hvo_pool import POOLED, SECOND, at_rest, free_list, resize

from emu.addr import Pfn
from emu.events import MachineEvent, Stored
from kernel_model.boot import BootConfig, PoolAtBoot
from kernel_model.core.events import ActionResult
from kernel_model.layout import FOLIO_LIST, HstateFields, pfn_to_page
from kernel_model.mm.hstate import HSTATE_2M, Hstate
from kernel_model.mm.image import HugePage

POISON = 1 << 20


def test_an_error_in_a_pool_page_is_kept_with_its_head_until_it_is_freed() -> None:
    lab = Lab(POOLED)
    raw = SECOND.pfn + 100
    lab.call(lambda: lab.kernel.raw.memory_failure(pfn_to_page(raw)))
    assert lab.struct_page(SECOND.pfn).flags & POISON
    assert not lab.struct_page(raw).flags & POISON
    resize(lab, 0)
    assert lab.struct_page(raw).flags & POISON
    assert not lab.struct_page(SECOND.pfn).flags & POISON
    assert not lab.struct_page(raw + 1).flags & POISON
    # The block leaves circulation when somebody wants it.
    resize(lab, 3)
    assert raw - 100 not in free_list(lab)
    at_rest(lab)


def test_an_error_in_an_ordinary_page_is_kept_in_its_own_struct_page() -> None:
    lab = Lab(POOLED)
    page = pfn_to_page(0x3000)
    lab.call(lambda: lab.kernel.raw.memory_failure(page))
    assert lab.struct_page(0x3000).flags & POISON


HEAD_IN_ALL = list(range(0, 512, 64))
"""Where an optimized folio's head is seen: at the start of each vmemmap page."""


def poisoned(lab: Lab, first: int, count: int = 512) -> list[int]:
    """The numbers of the pages, counted from `first`, that are marked."""
    return [number for number in range(count) if lab.struct_page(first + number).flags & POISON]


# -- a block that is allocated and not hugetlb yet -------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "marked"),
    [
        # A struct page in the head page is copied with it; each restored tail page is a copy of that one,
        # whose structs 0 to 2 are overwritten by 3 to 5.
        (5, [5, 66, 69, 130, 133, 194, 197, 258, 261, 322, 325, 386, 389, 450, 453]),
        (3, [3, 64, 67, 128, 131, 192, 195, 256, 259, 320, 323, 384, 387, 448, 451]),
        (63, [63, 127, 191, 255, 319, 383, 447, 511]),
        # What lies in a tail page is given back with it.
        (64, []),
        (100, []),
        (511, []),
    ],
)
def test_an_error_in_a_block_not_hugetlb_yet_is_not_on_one_page_after_it_was_restored(
    raw: int, marked: list[int]
) -> None:
    """Error in page 5: 15 pages on a real 6.12.95. From page 64 on: none."""
    lab = Lab(BootConfig(128 * MIB, 2, ()))
    folio = lab.call(lambda: lab.kernel.pages.alloc_pages(9, "huge page"))
    first = (folio - pfn_to_page(0)) // 64
    assert lab.call(lambda: lab.kernel.raw.memory_failure(pfn_to_page(first + raw))) == 0
    assert poisoned(lab, first) == [raw]

    async def join_and_leave() -> int:
        await lab.kernel.pool.init_new_hugetlb_folio(folio)
        await lab.kernel.hvo.hugetlb_vmemmap_optimize_folio(HSTATE_2M, folio)
        return await lab.kernel.hvo.hugetlb_vmemmap_restore_folio(HSTATE_2M, folio)

    lab.write_struct(first, lab.struct_page(first)._replace(refcount=0))
    assert lab.call(join_and_leave) == 0
    assert poisoned(lab, first) == marked


# -- a folio on its way into the pool --------------------------------------------------------------------


def copied(event: MachineEvent) -> bool:
    return type(event).__name__ == "Copied"


def remapped(event: MachineEvent) -> bool:
    return isinstance(event, Stored) and str(event.site) == "set_pte_at"


def returned(event: MachineEvent) -> bool:
    return type(getattr(event, "payload", None)).__name__ == "OperationReturned"


@pytest.mark.parametrize(
    ("when", "kept"),
    [(None, True), (copied, False), (remapped, True), (returned, True)],
    ids=["before the copy", "after the copy", "after the remap", "after the flush"],
)
def test_the_caller_is_not_told_whether_the_error_of_a_busy_folio_was_kept(
    when: Callable[[MachineEvent], bool] | None, kept: bool
) -> None:
    """-EBUSY and "Ignored" in every order. After the remap it is lost only through an old translation."""
    first = HugePage(Pfn(0x4000), HSTATE_2M)
    lab = Lab(BootConfig(128 * MIB, 2, (first,)))
    pool, raw = lab.kernel.pool, pfn_to_page(first.pfn + 100)
    lab.start(lambda: pool.prep_and_add_allocated_folios(HSTATE_2M, FOLIO_LIST), 0)
    if when is not None:
        lab.run_until(0, when)
    failing = lab.start(lambda: lab.kernel.raw.memory_failure(raw), 1)
    while not failing.returned:
        enabled = lab.machine.enabled()
        lab.perform(next((choice for choice in enabled if choice.cpu == 1), enabled[0]))
    lab.run()
    assert failing.value == -16
    assert lab.heard(ActionResult) == [ActionResult(Pfn(first.pfn + 100), "get hwpoison page", "Ignored")]
    assert poisoned(lab, first.pfn) == HEAD_IN_ALL * kept
    assert free_list(lab) == [first.pfn]


# -- a folio that is taken apart -------------------------------------------------------------------------

SMALL = HSTATE_2M
LARGE = Hstate("4M", 10)
BOTH = HugePage(Pfn(0x4000), LARGE)


@pytest.mark.parametrize("raw", [5, 100, 512 + 100], ids=["head page", "first small", "second small"])
def test_the_error_of_a_page_being_demoted_is_forgotten_in_the_first_small_page_too(raw: int) -> None:
    """The first small page counts as free, is never handed out, and good when the pool shrinks."""
    lab = Lab(BootConfig(128 * MIB, 2, (BOTH,), pool=PoolAtBoot.POOLED))
    lab.start(lambda: lab.kernel.pool.demote_pool_huge_page(LARGE, SMALL, 1), 0)
    lab.run_until(0, lambda event: str(getattr(event, "site", "")) == "synchronize_rcu")
    failing = lab.start(lambda: lab.kernel.raw.memory_failure(pfn_to_page(BOTH.pfn + raw)), 1)
    while not failing.returned:
        enabled = lab.machine.enabled()
        lab.perform(next((choice for choice in enabled if choice.cpu == 1), enabled[0]))
    lab.run()
    assert poisoned(lab, BOTH.pfn, 1024) == HEAD_IN_ALL
    of = HstateFields(SMALL.order)
    assert [lab.word_at(va) for va in (of.nr_huge_pages, of.free_huge_pages)] == [2, 2]
    taken = [lab.call(lambda: lab.kernel.pool.dequeue_hugetlb_folio(SMALL)) for _ in range(2)]
    assert taken == [pfn_to_page(BOTH.pfn + 512), None]
    assert lab.word_at(of.free_huge_pages) == 1
    lab.call(lambda: lab.kernel.pool.set_max_huge_pages(SMALL, 0))
    assert poisoned(lab, BOTH.pfn, 1024) == []
    assert lab.kernel.pages.is_free(BOTH.pfn + 5)
