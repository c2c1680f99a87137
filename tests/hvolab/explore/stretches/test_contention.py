"""What is private to a process, what is so only as far as anybody knows, and what is not."""

from __future__ import annotations

import pytest

from hvolab.explore.footprint.conflict import NOTHING, Footprint
from hvolab.explore.stretches.contention import Contention
from hvolab.judge.sight.resource import Kind, Resource, Touched


def reads(*touched: Touched) -> Footprint:
    return NOTHING._replace(reads=frozenset(touched))


def writes(*touched: Touched) -> Footprint:
    return NOTHING._replace(writes=frozenset(touched))


def marks(*touched: Touched) -> Footprint:
    return NOTHING._replace(marks=frozenset(touched))


KINDS = {"read": reads, "write": writes, "mark": marks}
COMMUTE = {("read", "read"), ("mark", "mark")}


@pytest.mark.parametrize("mine", KINDS)
@pytest.mark.parametrize("theirs", KINDS)
def test_there_is_doubt_about_what_another_touches_so_that_the_order_matters(mine: str, theirs: str) -> None:
    contention = Contention()
    contention.note(2, KINDS[theirs](8))
    expected = frozenset() if (mine, theirs) in COMMUTE else frozenset({8})
    assert contention.doubts(0, KINDS[mine](8, 9)) == expected


def test_what_a_process_touches_itself_is_no_doubt() -> None:
    contention = Contention()
    contention.note(0, writes(8))
    assert contention.doubts(0, writes(8)) == frozenset()


def test_what_has_been_conflicted_over_is_not_private_to_who_may_conflict_over_it() -> None:
    contention = Contention()
    contention.note(2, reads(8))
    contention.met(writes(8), reads(8, 9))
    assert contention.doubts(0, writes(8)) is None
    assert contention.doubts(0, reads(8)) == frozenset(), "both read"
    assert contention.doubts(2, writes(8)) == frozenset(), "the other has not touched it"


def test_a_new_touch_may_concern_any_step_and_an_old_one_what_there_is_doubt_about() -> None:
    contention = Contention()
    assert contention.note(2, writes(8)) == writes(8)
    assert contention.note(2, writes(8)) == NOTHING
    contention.doubts(0, reads(8, 9))
    assert contention.note(2, writes(8)) == writes(8)
    assert contention.doubted(reads(8, 9)) == reads(8)


def test_a_handler_does_not_touch_what_it_interrupts() -> None:
    contention = Contention()
    context = Resource(Kind.CONTEXT, 1)
    assert contention.note(3, writes(context)) == NOTHING
    assert contention.doubts(2, reads(context)) == frozenset()


def test_what_it_is_blind_to_does_not_count() -> None:
    contention = Contention(frozenset({Kind.MEMORY}))
    contention.note(2, writes(8))
    assert contention.doubts(0, writes(8)) == frozenset()


def test_news_are_what_others_touch_of_it_and_conflicts_over_what_was_doubtful() -> None:
    contention = Contention()
    contention.note(2, writes(7))
    touched, doubts, since = reads(7, 8), frozenset({7}), contention.now

    def is_news() -> bool:
        return contention.has_news(0, touched, doubts, since)

    contention.note(0, writes(8))
    contention.note(2, writes(9))
    contention.conflicted(frozenset({9}))
    assert not is_news()
    contention.conflicted(frozenset({7, 9}))
    assert is_news()
    since = contention.now
    contention.conflicted(frozenset({7}))
    assert not is_news(), "that was known"
    contention.note(2, writes(8))
    assert is_news()
    since = contention.now
    contention.varied += 1
    assert is_news()
