"""Flush requests, and the invalidations that CPUs carried out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from paging_rig import PAGE, VA, PagingRig

from emu.addr import VirtAddr
from emu.events import Invalidated
from emu.paging.models import SKYLAKE
from emu.paging.tlb import InvalidateAll, Invlpg, Rule, TlbEntry, entry_from
from emu.paging.walk import Control, Walk
from hvolab.judge.sight.requests import Request, Requests
from kernel_model.core.events import FlushBegun, FlushCompleted

ALL = frozenset(Rule)
RANGE = FlushBegun("flush_tlb_kernel_range", VA, VA + 2 * PAGE, frozenset({1, 0}))


def an_entry(*, filled_at: int, moment: int = 5) -> TlbEntry:
    rig = PagingRig()
    rig.map(VA, 0x800)
    found = rig.mmu(SKYLAKE).peek(VA)
    assert isinstance(found, Walk)
    return entry_from(found, 0, Control(), filled_at, moment, moment, filled_at)


def test_a_request_is_under_way_until_it_is_completed() -> None:
    requests = Requests(ALL)
    requests.begun(10, 0, RANGE)
    assert requests.of(VA) == [Request(10, 0, RANGE)]
    assert str(requests.of(VA)[0]) == (
        "flush_tlb_kernel_range by cpu0, begun at event 10, for cpus 0, 1; not completed"
    )
    done = requests.completed(14, FlushCompleted(10))
    assert requests.of(VA) == [done] == [Request(10, 0, RANGE, 14)]
    assert str(done).endswith("for cpus 0, 1; completed at event 14")


def test_a_generation_settles_those_before_it_and_none_that_stands_alone() -> None:
    requests = Requests(ALL)
    for number, generation in ((10, 1), (12, 0), (14, 2), (16, 3)):
        requests.begun(number, 0, replace(RANGE, generation=generation))
    assert [one.begun for one in requests.settled(20, 2)] == [10, 14]
    assert [one.begun for one in requests.open()] == [12, 16]
    assert requests.settled(22, 2) == []
    assert [(one.begun, one.completed) for one in requests.of(VA)] == [
        (10, 20),
        (12, None),
        (14, 20),
        (16, None),
    ]


@pytest.mark.parametrize(
    ("page", "inside"),
    [(VA - 1, False), (VA, True), (VA + PAGE + 8, True), (VA + 2 * PAGE - 1, True), (VA + 2 * PAGE, False)],
)
def test_a_request_is_for_whole_pages(page: int, inside: bool) -> None:
    for what in (RANGE, replace(RANGE, start=VA + 100, end=VA + PAGE + 1)):
        assert Request(0, 0, what).in_range(VirtAddr(page)) is inside


def test_requests_are_told_in_the_order_they_were_begun() -> None:
    requests = Requests(ALL)
    for number in (10, 12, 14):
        requests.begun(number, 0, RANGE if number != 12 else replace(RANGE, start=VA + PAGE))
    requests.completed(20, FlushCompleted(14))
    assert [one.begun for one in requests.of(VA)] == [10, 14]


def test_an_invalidation_after_the_fill_must_have_removed_what_was_cached() -> None:
    requests, cached = Requests(ALL), an_entry(filled_at=20)
    requests.invalidated(19, 9, Invalidated(1, Invlpg(VA)))
    assert requests.removed(1, cached) is None
    requests.invalidated(21, 9, Invalidated(0, Invlpg(VA)))
    requests.invalidated(22, 9, Invalidated(1, Invlpg(VirtAddr(VA + PAGE))))
    assert requests.removed(1, cached) is None, "another CPU's, another page's"
    requests.invalidated(23, 9, Invalidated(1, Invlpg(VA)))
    requests.invalidated(24, 9, Invalidated(1, InvalidateAll()))
    assert requests.removed(1, cached) == 23, "the first that must have"


def test_what_a_lazy_tlb_offers_was_current_until_its_moment() -> None:
    """It was cached at no event: an invalidation counts that came after the store that ended it."""
    requests, offered = Requests(ALL), an_entry(filled_at=-1, moment=5)
    requests.invalidated(30, 5, Invalidated(1, Invlpg(VA)))
    assert requests.removed(1, offered) is None
    requests.invalidated(31, 6, Invalidated(1, Invlpg(VA)))
    assert requests.removed(1, offered) == 31


def test_a_rule_that_the_model_does_not_promise_removes_nothing() -> None:
    global_one = replace(an_entry(filled_at=20), is_global=True)
    found = {}
    for rules in (ALL, ALL - {Rule.INVLPG_REMOVES_GLOBALS}):
        requests = Requests(rules)
        requests.invalidated(21, 9, Invalidated(1, Invlpg(VA)))
        found[rules] = requests.removed(1, global_one)
    assert list(found.values()) == [21, None]


def test_the_last_removal_before_an_event() -> None:
    requests, cached = Requests(ALL), an_entry(filled_at=20)
    for number in (5, 10, 30):
        requests.invalidated(number, 9, Invalidated(1, Invlpg(VA)))
    assert [requests.last_removal(1, cached, before) for before in (5, 6, 30, 31)] == [None, 5, 10, 30]
    assert requests.last_removal(0, cached, 31) is None
