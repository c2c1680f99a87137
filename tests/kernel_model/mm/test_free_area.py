"""Free blocks as a real kernel leaves them, and their lists in memory after whatever was taken and given."""

from __future__ import annotations

from typing import Any

from hvo_lab import PAGE, SECTION, STRUCT, VMEMMAP, Lab, StructPage, fixture, huge_2m
from hypothesis import given, settings
from hypothesis import strategies as st

from emu.addr import VirtAddr
from kernel_model.boot import BootConfig, PoolAtBoot
from kernel_model.core.events import BadPage, KernelBug
from kernel_model.layout import FREE_AREA
from kernel_model.mm.hstate import HSTATE_2M

BUDDY, NO_TYPE = 0xF000_0000, 0xFFFF_FFFF
POISON1, POISON2 = 0xDEAD_0000_0000_0100, 0xDEAD_0000_0000_0122
FOLIO = huge_2m()


def listed(lab: Lab, order: int) -> list[int]:
    """The free blocks of that order, as memory links them, forwards and backwards."""
    return [(page - VMEMMAP) // STRUCT for page in lab.linked(FREE_AREA + 16 * order)]


# --- a folio that the pool gave back ----------------------------------------------------------------------


def told(word: Any, folio: int, number: int) -> int:
    """A word of the fixture, its addresses moved to our folio."""
    if word == "self":
        return folio + number * STRUCT + 8
    if word == "page0[same i]":
        return folio + number % 64 * STRUCT + 8
    value = int(word, 16) if isinstance(word, str) else word
    theirs = VMEMMAP + int(fixture("main_structpages")["folio_pfn"], 16) * STRUCT
    return value - theirs + folio if theirs <= value < theirs + 8 * PAGE else value


def real(state: str, folio: int) -> list[StructPage]:
    """The 512 struct pages of the fixture's folio in that state, as if they were of ours."""
    pages = []
    for page in fixture("main_structpages")[state]:
        for first, count, *words in page["struct_pages"]:
            start = page["vmemmap_page"] * 64 + first
            pages += [
                StructPage(*(told(word, folio, number) for word in words))
                for number in range(start, start + count)
            ]
    return pages


def test_a_folio_given_back_does_not_lose_what_a_real_kernel_leaves_in_its_struct_pages() -> None:
    lab = Lab(BootConfig(SECTION, 2, (FOLIO,), pool=PoolAtBoot.POOLED))
    # What would merge with it is taken: theirs stayed a block of order 9, too.
    lab.call(lambda: lab.kernel.pages.alloc_pages(9, "its buddy"))
    assert not lab.kernel.pages.is_free(FOLIO.pfn ^ 512)
    lab.call(lambda: lab.kernel.pool.set_max_huge_pages(HSTATE_2M, 0))
    head, *tails = (lab.struct_page(FOLIO.pfn + number) for number in range(512))
    their_head, *theirs = real("restored", FOLIO.folio)
    assert len(theirs) == 511
    assert tails == theirs
    # Whom it is linked with is a matter of what else is free.
    assert head == their_head._replace(next=head.next, prev=head.prev)
    assert (head.page_type, head.private) == (BUDDY, 9)
    assert FOLIO.pfn in listed(lab, 9)


def test_a_block_that_is_taken_again_is_on_no_list_and_no_buddy_page() -> None:
    lab = Lab(BootConfig(SECTION, 2, (FOLIO,), pool=PoolAtBoot.POOLED))
    lab.call(lambda: lab.kernel.pool.set_max_huge_pages(HSTATE_2M, 0))
    taken = []
    while (page := lab.call(lambda: lab.kernel.pages.alloc_page("test"))) is not None:
        taken.append((page - VMEMMAP) // STRUCT)
    assert FOLIO.pfn in taken
    assert [listed(lab, order) for order in range(11)] == [[]] * 11
    pages = [lab.struct_page(pfn) for pfn in taken]
    assert {(page.page_type, page.private, page.refcount) for page in pages} == {(NO_TYPE, 0, 1)}
    head = lab.struct_page(FOLIO.pfn)
    assert (head.next, head.prev) == (POISON1, POISON2)


def test_a_single_page_that_is_freed_is_not_written_into_the_free_lists() -> None:
    """It goes to its CPU's list, which is not in memory, and costs no step more."""
    lab = Lab(BootConfig(SECTION, 2, ()))
    page = lab.call(lambda: lab.kernel.pages.alloc_page("test"))
    before = [listed(lab, order) for order in range(11)]
    steps = lab.machine.steps
    lab.call(lambda: lab.kernel.pages.free_page(page))
    assert [listed(lab, order) for order in range(11)] == before
    # The count, flags, mapping, mapcount and flags again; the poison; the step that starts.
    assert lab.machine.steps - steps == 7


# --- whatever happens -------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 10), st.integers(0, 50)), max_size=12))
def test_memory_links_just_the_blocks_that_are_free(calls: list[tuple[int, int, int]]) -> None:
    lab = Lab(BootConfig(SECTION, 2, ()))
    pages = lab.kernel.pages
    held: list[tuple[VirtAddr, int]] = []
    for cpu, order, which in calls:
        if order > 1 and held and which % 2:
            page, size = held.pop(which % len(held))
            lab.call(lambda: pages.free_pages(page, size), cpu)  # noqa: B023
        else:
            page = lab.call(lambda: pages.alloc_pages(max(order, 6), "block"), cpu)  # noqa: B023
            held += [(page, max(order, 6))] if page is not None else []
        if order == 0:
            lab.call(lambda: pages.alloc_page("single"), cpu)
    blocks = {order: listed(lab, order) for order in range(11)}
    frames = {pfn + n for order, some in blocks.items() for pfn in some for n in range(1 << order)}
    assert len(frames) == sum(len(some) << order for order, some in blocks.items())
    assert all(pages.is_free(pfn) for pfn in frames)
    heads = {pfn: order for order, some in blocks.items() for pfn in some}
    kinds = {pfn: lab.struct_page(pfn) for pfn in range(0x800, 0x8000)}
    assert {pfn: page.private for pfn, page in kinds.items() if page.page_type == BUDDY} == heads
    assert lab.heard(KernelBug, BadPage) == []
