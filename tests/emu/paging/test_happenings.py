"""What a CPU did to its own TLB: the last word on an entry is the last invalidation that removes it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from invalidations import INVALIDATIONS, PAGES, PCIDS, RULES, entry, usable_for
from paging_rig import PAGE, VA, PagingRig
from property_settings import PROPERTY

from emu.addr import PageSize, PhysAddr, VirtAddr
from emu.memory import Journal
from emu.paging.happenings import Happenings, Time
from emu.paging.psc import drops
from emu.paging.tlb import ALL_RULES, InvalidateAll, Invalidation, Invlpg, Rule, removes, removes_all


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
            asked.loaded_root(10 * number)
        else:
            asked.invalidated(what, 10 * number)
        if data.draw(st.booleans()) or number == len(happened):
            done = list(enumerate(happened[:number]))
            all_gone = [n for n, one in done if one is not None and removes_all(one, page, pcid, rules)]
            gone = [n for n, one in done if one is not None and removes(one, held, rules)]
            dropped = [n for n, one in done if one is None or drops(one, rules)]
            assert asked.emptied(page, pcid).own == max(all_gone, default=-1) + 1
            assert asked.survives(held, since) == all(n < since.own for n in gone)
            later = [n for n in dropped if n >= since.own]
            if since.own <= number:
                assert asked.directory_end(since, page).own == (later[0] if later else number)


def test_stores_and_happenings_are_put_in_order() -> None:
    rig = PagingRig()
    asked = Happenings(rig.memory.journal, ALL_RULES)
    for value in range(3):
        rig.set(PhysAddr(0x5000), value)
        asked.invalidated(Invlpg(VA), 10 * value)
    assert [asked.before_store(index) for index in range(3)] == [Time(0, 0), Time(1, 1), Time(2, 2)]
    assert (asked.now(), asked.dropped_at()) == (Time(3, 3), 3)
    assert [asked.last_event(Time(3, own)) for own in range(4)] == [-1, 0, 10, 20]


def test_a_flush_of_everything_is_remembered_for_pages_never_asked_about() -> None:
    asked = Happenings(Journal(), ALL_RULES)
    asked.invalidated(InvalidateAll(), 7)
    asked.everything_removed()
    assert asked.emptied(VA, 0) == Time(0, 1)
    held = entry(VA, PageSize.MIB2, 0, is_global=True)
    assert not asked.survives(held, Time(0, 0))
    assert asked.survives(replace(held, pcid=1), Time(0, 1))


@pytest.mark.parametrize("pages", [1, 512])
def test_an_invlpg_says_nothing_of_pages_it_does_not_name(pages: int) -> None:
    asked = Happenings(Journal(), ALL_RULES)
    asked.invalidated(Invlpg(VA, 0, pages), 7)
    assert asked.emptied(VirtAddr(VA + pages * PAGE), 0) == Time(0, 0)
    assert asked.emptied(VirtAddr(VA + (pages - 1) * PAGE), 0) == Time(0, 1)
