"""What a CPU did to its own TLB: the last word on an entry is the last invalidation that removes it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paging_rig import GIB1, MIB2, PAGE, VA, PagingRig, leaf
from property_settings import PROPERTY

from emu.addr import PageSize, Pfn, PhysAddr, VirtAddr, page_start
from emu.memory import Journal
from emu.paging.happenings import Happenings, Time
from emu.paging.psc import drops
from emu.paging.tlb import (
    ALL_RULES,
    FaultedAt,
    InvalidateAll,
    InvalidateNonGlobal,
    Invalidation,
    Invlpg,
    InvpcidAddress,
    InvpcidContext,
    NewRoot,
    Rule,
    TlbEntry,
    removes,
    removes_all,
)
from emu.paging.walk import ALL_RIGHTS, WalkStep

PAGES = st.sampled_from((0, PAGE, 3 * PAGE, MIB2, MIB2 + PAGE, GIB1)).map(
    lambda offset: VirtAddr(VA + offset)
)
PCIDS = st.integers(0, 1)
INVALIDATIONS: st.SearchStrategy[Invalidation] = st.one_of(
    st.builds(Invlpg, PAGES.map(lambda page: VirtAddr(page + 8)), PCIDS, st.integers(1, 4)),
    st.builds(InvpcidAddress, PAGES, PCIDS),
    st.builds(InvpcidContext, PCIDS),
    st.just(InvalidateAll()),
    st.just(InvalidateNonGlobal()),
    st.builds(NewRoot, PCIDS),
    st.builds(FaultedAt, PAGES, PCIDS),
)
RULES = st.sets(st.sampled_from(Rule)).map(lambda without: ALL_RULES - without)


def entry(page: VirtAddr, size: PageSize, pcid: int, *, is_global: bool) -> TlbEntry:
    level = {PageSize.KIB4: 1, PageSize.MIB2: 2, PageSize.GIB1: 3}[size]
    step = WalkStep(level, PhysAddr(0x1000), leaf(0x800, size=size))
    first = page_start(page, size)
    return TlbEntry(first, size, Pfn(0x800), ALL_RIGHTS, is_global, True, pcid, (step,), -1, 0, 0)


def usable_for(page: VirtAddr, pcid: int) -> list[TlbEntry]:
    return [
        entry(page, size, of, is_global=is_global)
        for size in PageSize
        for is_global in (False, True)
        for of in (pcid, pcid + 1)
        if is_global or of == pcid
    ]


@PROPERTY
@given(INVALIDATIONS, PAGES, PCIDS, RULES)
def test_what_removes_all_removes_every_entry_and_every_directory_entry(
    what: Invalidation, page: VirtAddr, pcid: int, rules: frozenset[Rule]
) -> None:
    each = all(removes(what, one, rules) for one in usable_for(page, pcid)) and drops(what, rules)
    assert removes_all(what, page, pcid, rules) == each


@PROPERTY
@given(st.lists(st.one_of(INVALIDATIONS, st.none()), max_size=8), PAGES, PCIDS, RULES, st.data())
def test_asking_often_is_asking_once(
    happened: list[Invalidation | None],
    page: VirtAddr,
    pcid: int,
    rules: frozenset[Rule],
    data: st.DataObject,
) -> None:
    """Against a plain scan of everything that happened, asked after some of it and after all of it."""
    journal = Journal()
    asked = Happenings(journal, rules)
    held = data.draw(st.sampled_from(usable_for(page, pcid)))
    since = Time(0, data.draw(st.integers(0, 8)))
    for number, what in enumerate(happened, 1):
        if what is None:
            asked.loaded_root()
        else:
            asked.invalidated(what)
        if data.draw(st.booleans()) or number == len(happened):
            done = list(enumerate(happened[:number]))
            all_gone = [n for n, one in done if one is not None and removes_all(one, page, pcid, rules)]
            gone = [n for n, one in done if one is not None and removes(one, held, rules)]
            dropped = [n for n, one in done if one is None or drops(one, rules)]
            assert asked.emptied(page, pcid).own == max(all_gone, default=-1) + 1
            assert asked.survives(held, since) == all(n < since.own for n in gone)
            later = [n for n in dropped if n >= since.own]
            if since.own <= number:
                assert asked.directory_end(since).own == (later[0] if later else number)


def test_stores_and_happenings_are_put_in_order() -> None:
    rig = PagingRig()
    asked = Happenings(rig.memory.journal, ALL_RULES)
    for value in range(3):
        rig.set(PhysAddr(0x5000), value)
        asked.invalidated(Invlpg(VA))
    assert [asked.before_store(index) for index in range(3)] == [Time(0, 0), Time(1, 1), Time(2, 2)]
    assert (asked.now(), asked.dropped_at()) == (Time(3, 3), 3)


def test_a_flush_of_everything_is_remembered_for_pages_never_asked_about() -> None:
    asked = Happenings(Journal(), ALL_RULES)
    asked.invalidated(InvalidateAll())
    asked.everything_removed()
    assert asked.emptied(VA, 0) == Time(0, 1)
    held = entry(VA, PageSize.MIB2, 0, is_global=True)
    assert not asked.survives(held, Time(0, 0))
    assert asked.survives(replace(held, pcid=1), Time(0, 1))


@pytest.mark.parametrize("pages", [1, 512])
def test_an_invlpg_says_nothing_of_pages_it_does_not_name(pages: int) -> None:
    asked = Happenings(Journal(), ALL_RULES)
    asked.invalidated(Invlpg(VA, 0, pages))
    assert asked.emptied(VirtAddr(VA + pages * PAGE), 0) == Time(0, 0)
    assert asked.emptied(VirtAddr(VA + (pages - 1) * PAGE), 0) == Time(0, 1)
