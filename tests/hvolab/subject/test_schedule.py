"""Schedules as text: what is written is read back the same, and what is no schedule is refused by name."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hvolab.subject.schedule
from emu.addr import VirtAddr
from emu.choice import DecideQuestion, Step, TakeInterrupt, VersionQuestion
from hvolab.subject.schedule import (
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
fingerprints = st.none() | st.text("0123456789abcdef", min_size=8, max_size=8)
schedules = st.builds(
    lambda drawn, fingerprint: Schedule(
        tuple(pick for pick, times in drawn for _ in range(times)), fingerprint
    ),
    st.lists(runs, max_size=20),
    fingerprints,
)


# --- there and back -------------------------------------------------------------------------------------


@given(schedules)
def test_a_schedule_survives_being_written_and_read(schedule: Schedule) -> None:
    text = str(schedule)
    assert text.isascii()
    assert text.isprintable()
    assert parse(text) == schedule


TEXTS = {
    "v2": (),
    "v2 0": (Step(0),),
    "v2 0*3": (Step(0),) * 3,
    "v2 0*2 1 0": (Step(0), Step(0), Step(1), Step(0)),
    "v2 255*2 i255": (Step(255), Step(255), TakeInterrupt(255)),
    "v2 i1 i1 i1": (TakeInterrupt(1),) * 3,
    "v2 t0/2 t1/2 t1/2": (VersionPick(0, 2), VersionPick(1, 2), VersionPick(1, 2)),
    "v2 d0/2 d999998/999999": (DecidePick(0, 2), DecidePick(999_998, 999_999)),
    "v2 0*12 i1 1*3 t0/2 d1/2": (
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
    ("text", "schedule"),
    [
        ("v2 @1a2b3c4d", Schedule((), "1a2b3c4d")),
        ("v2 @00000000 0*2 i1", Schedule((Step(0), Step(0), TakeInterrupt(1)), "00000000")),
        ("v2 @deadbeef t0/2 7", Schedule((VersionPick(0, 2), Step(7)), "deadbeef")),
    ],
)
def test_the_text_form_with_a_fingerprint(text: str, schedule: Schedule) -> None:
    assert str(schedule) == text
    assert parse(text) == schedule


@pytest.mark.parametrize("text", TEXTS)
def test_the_text_form_of_a_run_that_was_cut_off(text: str) -> None:
    schedule = Schedule(TEXTS[text], cut=True)
    assert str(schedule) == f"{text} cut"
    assert parse(str(schedule)) == schedule
    assert schedule != Schedule(TEXTS[text])


@pytest.mark.parametrize(("text", "word"), [("v2 cut 0", 2), ("v2 0 cut cut", 3), ("v2 @1a2b3c4d cut i0", 3)])
def test_a_run_is_cut_off_at_its_end_only(text: str, word: int) -> None:
    with pytest.raises(ScheduleError) as caught:
        parse(text)
    assert str(caught.value) == f"word {word} of the schedule is not a pick: 'cut'"


@pytest.mark.parametrize("text", TEXTS)
def test_the_format_before_fingerprints_is_still_read(text: str) -> None:
    assert parse(text.replace("v2", "v1")) == Schedule(TEXTS[text])


def test_schedules_of_two_setups_are_two() -> None:
    one, other, unknown = (parse(f"v2 {word}0*3") for word in ("@1a2b3c4d ", "@1a2b3c4e ", ""))
    assert len({one, other, unknown}) == 3
    assert one.picks == other.picks == unknown.picks == (Step(0),) * 3


@pytest.mark.parametrize(
    "digits", ["", "1a2b3c4", "1a2b3c4d5", "1A2B3C4D", "1a2b3c4g", "1a2b3c4 ", "1a2b3c4d\n"]
)
def test_a_schedule_with_a_fingerprint_that_cannot_be_written_is_none(digits: str) -> None:
    with pytest.raises(ValueError) as caught:
        Schedule((), digits)
    assert str(caught.value) == f"{digits!r} is no fingerprint: 8 digits, 0-9 or a-f"


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("  v2\t0*2\n1  ", "v2 0*2 1"),
        ("v2\n@1a2b3c4d\t0", "v2 @1a2b3c4d 0"),
        ("v2 0 0 0", "v2 0*3"),
        ("v2 0*1 007", "v2 0 7"),
        ("v2 0*2 0*2", "v2 0*4"),
        ("v2 t00/02", "v2 t0/2"),
        ("v1 0*2 1", "v2 0*2 1"),
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
        ("0", "a schedule begins with 'v2' (or 'v1'), this one with '0'"),
        ("V2 0", "a schedule begins with 'v2' (or 'v1'), this one with 'V2'"),
        ("v3 0", "a schedule begins with 'v2' (or 'v1'), this one with 'v3'"),
        ("v20", "a schedule begins with 'v2' (or 'v1'), this one with 'v20'"),
        ("v2,0", "a schedule begins with 'v2' (or 'v1'), this one with 'v2,0'"),
        ("v0", "a schedule begins with 'v2' (or 'v1'), this one with 'v0'"),
        ("@1a2b3c4d v2", "a schedule begins with 'v2' (or 'v1'), this one with '@1a2b3c4d'"),
    ],
)
def test_a_text_that_does_not_begin_as_one(text: str, message: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        parse(text)
    assert str(caught.value) == message


NOT_PICKS = (
    *(
        "x",
        "v1",
        "v2",
        "@1a2b3c4d",
        "-1",
        "+1",
        "0x1",
        "1.0",
        "1e3",
        "٣",
        "i",
        "i-1",
        "ix",
        "0*",
        "*3",
        "0*x",
        "0**3",
        "0*3*3",
    ),
    *("t", "t1", "t/2", "t0/", "t0", "t-1/2", "d", "d1/x", "T0/2", "I1", "0*-1", "0,1", "i1*2", "t0/2*2"),
    # CPUs and counts that there cannot be
    *("256", "999", "1000", "256*2", "i256", "i1000", "0*0", f"0*{MOST_PICKS + 1}", "0*999999999"),
    # answers that are none of the options
    *("t2/2", "d2/2", "t0/0", "d1/0", "t5/3", "t0/1000000", "t1000000/2000000"),
)


@pytest.mark.parametrize(
    "word", ["@", "@1a2b3c4", "@1a2b3c4d5", "@1A2B3C4D", "@1a2b3c4g", "@@1a2b3c4", "@0*3"]
)
def test_a_fingerprint_that_is_none_is_named(word: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        parse(f"v2 {word} 0*3")
    what = "a fingerprint, @ and 8 digits, 0-9 or a-f"
    assert str(caught.value) == f"word 2 of the schedule is not {what}: {word!r}"


@pytest.mark.parametrize(
    ("text", "number"), [("v1 @1a2b3c4d 0", 2), ("v2 0 @1a2b3c4d", 3), ("v2 @1a2b3c4d @1a2b3c4d", 3)]
)
def test_a_fingerprint_where_none_can_be_is_no_pick(text: str, number: int) -> None:
    with pytest.raises(ScheduleError) as caught:
        parse(text)
    assert str(caught.value) == f"word {number} of the schedule is not a pick: '@1a2b3c4d'"


def test_a_word_after_a_fingerprint_is_counted_with_it() -> None:
    with pytest.raises(ScheduleError) as caught:
        parse("v2 @1a2b3c4d 0*3 x")
    assert str(caught.value) == "word 4 of the schedule is not a pick: 'x'"


@pytest.mark.parametrize("word", NOT_PICKS)
def test_a_word_that_is_no_pick_is_named_with_its_place(word: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        parse(f"v2 0*3 i1 {word} 1")
    assert str(caught.value) == f"word 4 of the schedule is not a pick: {word!r}"


@given(st.text(max_size=40))
def test_any_text_is_a_schedule_or_a_schedule_error(text: str) -> None:
    for candidate in (text, f"v1 {text}", f"v2 {text}", f"v2 @{text}", f"v2 @1a2b3c4d {text}"):
        try:
            schedule = parse(candidate)
        except ScheduleError:
            continue
        assert parse(str(schedule)) == schedule


# --- limits ---------------------------------------------------------------------------------------------


def test_the_longest_text_is_read() -> None:
    assert parse("v2 7".ljust(LONGEST_TEXT)) == Schedule((Step(7),))


def test_a_longer_text_is_refused_before_it_is_looked_at() -> None:
    with pytest.raises(ScheduleError) as caught:
        parse("?" * (LONGEST_TEXT + 1))
    assert str(caught.value) == (
        f"schedule text of {LONGEST_TEXT + 1} characters; at most {LONGEST_TEXT} are read"
    )


def test_the_limits_are_as_documented() -> None:
    assert (LONGEST_TEXT, MOST_PICKS) == (4 << 20, 16 << 20)


@pytest.mark.parametrize("text", ["v2 0*8", "v2 0*7 1", "v2 i0 i0 i0 i0 i0 i0 i0 i0", "v2 @1a2b3c4d 0*8"])
def test_as_many_picks_as_allowed_are_read(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hvolab.subject.schedule, "MOST_PICKS", 8)
    assert len(parse(text).picks) == 8


@pytest.mark.parametrize(
    ("text", "word"),
    [("v2 0*8 1", 3), ("v2 0*5 1*5 2", 3), ("v2" + " i0" * 12, 10), ("v2 @1a2b3c4d 0*8 1", 4)],
)
def test_more_picks_than_allowed_are_refused_at_the_word_that_goes_over(
    text: str, word: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hvolab.subject.schedule, "MOST_PICKS", 8)
    with pytest.raises(ScheduleError) as caught:
        parse(text)
    assert str(caught.value) == f"more than 8 picks at word {word} of the schedule"


# --- picks that record answers --------------------------------------------------------------------------


def test_an_answer_is_recorded_with_the_number_of_options() -> None:
    versions = VersionQuestion(1, VirtAddr(0x1000), (), walk=True)
    assert answer_to(versions, 0) == VersionPick(0, 1)
    assert answer_to(DecideQuestion(0, "fails?", 3), 2) == DecidePick(2, 3)
