"""Schedules as text: what is written is read back the same, and what is no schedule is refused by name."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hvolab.schedule
from emu.addr import VirtAddr
from emu.choice import DecideQuestion, Step, TakeInterrupt, VersionQuestion
from hvolab.schedule import (
    LONGEST_TEXT,
    MOST_PICKS,
    DecidePick,
    Pick,
    Schedule,
    ScheduleError,
    VersionPick,
    answer_to,
    parse,
)


def answers(kind: Callable[[int, int], Pick]) -> st.SearchStrategy[Pick]:
    return st.integers(1, 999_999).flatmap(
        lambda options: st.integers(0, options - 1).map(lambda pick: kind(pick, options))
    )


cpus = st.integers(0, 255)
picks = st.one_of(cpus.map(Step), cpus.map(TakeInterrupt), answers(VersionPick), answers(DecidePick))
# Runs of one pick are what the text shortens, so they are drawn as such.
runs = st.tuples(picks, st.integers(1, 40))
schedules = st.lists(runs, max_size=20).map(
    lambda drawn: Schedule(tuple(pick for pick, times in drawn for _ in range(times)))
)


# --- there and back -------------------------------------------------------------------------------------


@given(schedules)
def test_a_schedule_survives_being_written_and_read(schedule: Schedule) -> None:
    text = str(schedule)
    assert text.isascii()
    assert text.isprintable()
    assert parse(text) == schedule


TEXTS = {
    "v1": (),
    "v1 0": (Step(0),),
    "v1 0*3": (Step(0),) * 3,
    "v1 0*2 1 0": (Step(0), Step(0), Step(1), Step(0)),
    "v1 255*2 i255": (Step(255), Step(255), TakeInterrupt(255)),
    "v1 i1 i1 i1": (TakeInterrupt(1),) * 3,
    "v1 t0/2 t1/2 t1/2": (VersionPick(0, 2), VersionPick(1, 2), VersionPick(1, 2)),
    "v1 d0/2 d999998/999999": (DecidePick(0, 2), DecidePick(999_998, 999_999)),
    "v1 0*12 i1 1*3 t0/2 d1/2": (
        *(Step(0),) * 12,
        TakeInterrupt(1),
        *(Step(1),) * 3,
        VersionPick(0, 2),
        DecidePick(1, 2),
    ),
}


@pytest.mark.parametrize("text", TEXTS)
def test_the_text_form(text: str) -> None:
    assert str(Schedule(TEXTS[text])) == text
    assert parse(text) == Schedule(TEXTS[text])


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("  v1\t0*2\n1  ", "v1 0*2 1"),
        ("v1 0 0 0", "v1 0*3"),
        ("v1 0*1 007", "v1 0 7"),
        ("v1 0*2 0*2", "v1 0*4"),
        ("v1 t00/02", "v1 t0/2"),
    ],
)
def test_other_ways_to_write_it_are_read_too(text: str, same: str) -> None:
    assert str(parse(text)) == same


# --- what is no schedule --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the schedule is empty"),
        (" \n\t ", "the schedule is empty"),
        ("0", "a schedule begins with 'v1', this one with '0'"),
        ("V1 0", "a schedule begins with 'v1', this one with 'V1'"),
        ("v2 0", "a schedule begins with 'v1', this one with 'v2'"),
        ("v10", "a schedule begins with 'v1', this one with 'v10'"),
        ("v1,0", "a schedule begins with 'v1', this one with 'v1,0'"),
    ],
)
def test_a_text_that_does_not_begin_as_one(text: str, message: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        parse(text)
    assert str(caught.value) == message


NOT_PICKS = (
    *("x", "v1", "-1", "+1", "0x1", "1.0", "1e3", "٣", "i", "i-1", "ix", "0*", "*3", "0*x", "0**3", "0*3*3"),
    *("t", "t1", "t/2", "t0/", "t0", "t-1/2", "d", "d1/x", "T0/2", "I1", "0*-1", "0,1", "i1*2", "t0/2*2"),
    # CPUs and counts that there cannot be
    *("256", "999", "1000", "256*2", "i256", "i1000", "0*0", f"0*{MOST_PICKS + 1}", "0*999999999"),
    # answers that are none of the options
    *("t2/2", "d2/2", "t0/0", "d1/0", "t5/3", "t0/1000000", "t1000000/2000000"),
)


@pytest.mark.parametrize("word", NOT_PICKS)
def test_a_word_that_is_no_pick_is_named_with_its_place(word: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        parse(f"v1 0*3 i1 {word} 1")
    assert str(caught.value) == f"word 4 of the schedule is not a pick: {word!r}"


@given(st.text(max_size=40))
def test_any_text_is_a_schedule_or_a_schedule_error(text: str) -> None:
    for candidate in (text, f"v1 {text}"):
        try:
            schedule = parse(candidate)
        except ScheduleError:
            continue
        assert parse(str(schedule)) == schedule


# --- limits ---------------------------------------------------------------------------------------------


def test_the_longest_text_is_read() -> None:
    assert parse("v1 7".ljust(LONGEST_TEXT)) == Schedule((Step(7),))


def test_a_longer_text_is_refused_before_it_is_looked_at() -> None:
    with pytest.raises(ScheduleError) as caught:
        parse("?" * (LONGEST_TEXT + 1))
    assert str(caught.value) == (
        f"schedule text of {LONGEST_TEXT + 1} characters; at most {LONGEST_TEXT} are read"
    )


def test_the_limits_are_as_documented() -> None:
    assert (LONGEST_TEXT, MOST_PICKS) == (4 << 20, 16 << 20)


@pytest.mark.parametrize("text", ["v1 0*8", "v1 0*7 1", "v1 i0 i0 i0 i0 i0 i0 i0 i0"])
def test_as_many_picks_as_allowed_are_read(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hvolab.schedule, "MOST_PICKS", 8)
    assert len(parse(text).picks) == 8


@pytest.mark.parametrize(("text", "word"), [("v1 0*8 1", 3), ("v1 0*5 1*5 2", 3), ("v1" + " i0" * 12, 10)])
def test_more_picks_than_allowed_are_refused_at_the_word_that_goes_over(
    text: str, word: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hvolab.schedule, "MOST_PICKS", 8)
    with pytest.raises(ScheduleError) as caught:
        parse(text)
    assert str(caught.value) == f"more than 8 picks at word {word} of the schedule"


# --- picks that record answers --------------------------------------------------------------------------


def test_an_answer_is_recorded_with_the_number_of_options() -> None:
    versions = VersionQuestion(1, VirtAddr(0x1000), (), walk=True)
    assert answer_to(versions, 0) == VersionPick(0, 1)
    assert answer_to(DecideQuestion(0, "fails?", 3), 2) == DecidePick(2, 3)
