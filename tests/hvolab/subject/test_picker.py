"""The pickers: following a schedule, following it as far as it goes, and lowest CPU first."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu.addr import VirtAddr
from emu.choice import Choice, DecideQuestion, Question, Step, TakeInterrupt, VersionQuestion
from hvolab.catalog import scenario
from hvolab.explore.search.guide import Guide
from hvolab.explore.search.interface import Freedom
from hvolab.explore.search.randomly import Uniform
from hvolab.subject.fingerprint import fingerprint
from hvolab.subject.picker import CutHere, Diverged, InOrder, Replay, ReplayThenInOrder, Stale
from hvolab.subject.run import run
from hvolab.subject.schedule import Schedule, ScheduleError, parse


def versions(options: int) -> VersionQuestion:
    """Which of that many versions, the last of them a walk? No picker looks at the entries."""
    entries: tuple[Any, ...] = (None,) * (options - 1)
    return VersionQuestion(0, VirtAddr(0x1000), entries, walk=True)


def decide(options: int) -> DecideQuestion:
    return DecideQuestion(0, "fails?", options)


choices = st.one_of(st.integers(0, 7).map(Step), st.integers(0, 7).map(TakeInterrupt))
# `enabled` as the machine gives it: by CPU, a step before an interrupt, none twice.
enabled_lists = st.lists(choices, min_size=1, max_size=8, unique=True).map(
    lambda found: sorted(found, key=lambda choice: (choice.cpu, isinstance(choice, TakeInterrupt)))
)
questions = st.one_of(st.integers(1, 9).map(versions), st.integers(1, 9).map(decide))


# --- Replay ---------------------------------------------------------------------------------------------


def test_a_schedule_is_followed_pick_by_pick() -> None:
    replay = Replay(parse("v2 0 t1/3 i2 d1/2 1"))
    both: list[Choice] = [Step(0), Step(1), TakeInterrupt(2)]
    assert replay.pick(both) == Step(0)
    assert replay.answer(versions(3)) == 1
    assert replay.pick(both) == TakeInterrupt(2)
    assert replay.answer(decide(2)) == 1
    assert replay.pick(both) == Step(1)
    replay.finish()


def diverges(text: str, what: Callable[[Replay], object]) -> str:
    with pytest.raises(ScheduleError) as caught:
        what(Replay(parse(text)))
    return str(caught.value)


def picking(*enabled: Choice) -> Callable[[Replay], object]:
    return lambda replay: replay.pick(list(enabled))


def answering(question: Question) -> Callable[[Replay], object]:
    return lambda replay: replay.answer(question)


@pytest.mark.parametrize(
    ("text", "what", "message"),
    [
        ("v2 1", picking(Step(0)), "pick 1 of the schedule is 1, but the run can run: 0"),
        (
            "v2 2",
            picking(Step(0), TakeInterrupt(0), Step(1)),
            "pick 1 of the schedule is 2, but the run can run: 0, i0, 1",
        ),
        ("v2 i0", picking(Step(0)), "pick 1 of the schedule is i0, but the run can run: 0"),
        ("v2 0", picking(TakeInterrupt(0)), "pick 1 of the schedule is 0, but the run can run: i0"),
        ("v2 t0/2", picking(Step(0)), "pick 1 of the schedule is t0/2, but the run can run: 0"),
        ("v2 d1/2", picking(Step(3)), "pick 1 of the schedule is d1/2, but the run can run: 3"),
        (
            "v2 0",
            answering(versions(2)),
            "pick 1 of the schedule is 0, but the run asks for t1/2 or the like",
        ),
        (
            "v2 t0/2",
            answering(versions(3)),
            "pick 1 of the schedule is t0/2, but the run asks for t2/3 or the like",
        ),
        ("v2", picking(Step(0)), "the schedule ends after 0 picks, but the run goes on"),
        ("v2", answering(decide(2)), "the schedule ends after 0 picks, but the run goes on"),
        ("v2 0", lambda replay: replay.finish(), "the run ended after 0 of the schedule's 1 picks"),
        ("v2 0*3 i1", lambda replay: replay.finish(), "the run ended after 0 of the schedule's 4 picks"),
    ],
)
def test_a_run_that_is_another_one_is_noticed(
    text: str, what: Callable[[Replay], object], message: str
) -> None:
    assert diverges(text, what) == message


@pytest.mark.parametrize(("text", "question"), [("v2 t0/2", decide(2)), ("v2 d0/2", versions(2))])
def test_an_answer_to_another_kind_of_question_is_none(text: str, question: Question) -> None:
    assert diverges(text, answering(question)).startswith(
        f"pick 1 of the schedule is {text.split()[1]}, but "
    )


def test_the_pick_is_numbered_from_the_start() -> None:
    replay = Replay(parse("v2 0*2 t0/2 1 0"))
    replay.pick([Step(0)])
    replay.pick([Step(0)])
    replay.answer(versions(2))
    with pytest.raises(ScheduleError) as caught:
        replay.pick([Step(0)])
    assert str(caught.value) == "pick 4 of the schedule is 1, but the run can run: 0"


def test_a_run_that_stops_short_says_how_far_it_came() -> None:
    replay = Replay(parse("v2 0*3 1*2"))
    replay.pick([Step(0)])
    replay.pick([Step(0)])
    with pytest.raises(ScheduleError) as caught:
        replay.finish()
    assert str(caught.value) == "the run ended after 2 of the schedule's 5 picks"


@pytest.mark.parametrize("follow", [Replay, ReplayThenInOrder])
def test_a_run_that_was_cut_off_is_followed_to_where_it_was(follow: type[Replay | ReplayThenInOrder]) -> None:
    replay = follow(parse("v2 0 1 cut"))
    replay.pick([Step(0)])
    replay.pick([Step(1)])
    with pytest.raises(CutHere):
        replay.pick([Step(1)])


def test_a_run_that_ends_before_it_was_cut_off_or_asks_more_is_another() -> None:
    assert (
        diverges("v2 0 cut", lambda replay: replay.finish())
        == "the run ended after 0 of the schedule's 1 picks"
    )
    asked = diverges("v2 cut", answering(versions(2)))
    assert asked == "the schedule ends after 0 picks, but the run goes on"


@given(st.lists(enabled_lists, max_size=12), st.data())
def test_what_was_picked_is_what_is_replayed(offers: list[list[Choice]], data: st.DataObject) -> None:
    picked = [data.draw(st.sampled_from(enabled)) for enabled in offers]
    replay = Replay(Schedule(tuple(picked)))
    assert [replay.pick(enabled) for enabled in offers] == picked
    replay.finish()


# --- schedules made from another setup ------------------------------------------------------------------

MADE_FROM, OTHER = "1a2b3c4d", "deadbeef"
STALE = "the schedule was made from another setup (@1a2b3c4d, this one is @deadbeef)"


@pytest.mark.parametrize(
    ("text", "runs_on", "stale"),
    [
        ("v2 @1a2b3c4d 0", OTHER, Stale(MADE_FROM, OTHER)),
        ("v2 @1a2b3c4d 0", MADE_FROM, None),
        ("v2 @1a2b3c4d 0", None, None),
        ("v2 0", OTHER, None),
        ("v1 0", OTHER, None),
        ("v2 0", None, None),
    ],
)
@pytest.mark.parametrize("follow", [Replay, ReplayThenInOrder])
def test_stale_is_what_was_made_from_another_setup(
    text: str, runs_on: str | None, stale: Stale | None, follow: type[Replay | ReplayThenInOrder]
) -> None:
    assert follow(parse(text), runs_on).stale == stale


def test_what_stale_says() -> None:
    assert str(Stale(MADE_FROM, OTHER)) == STALE


@pytest.mark.parametrize(
    ("text", "what", "at", "why"),
    [
        ("0 1", picking(Step(0)), 2, "pick 2 of the schedule is 1, but the run can run: 0"),
        (
            "0 d0/2",
            answering(versions(2)),
            2,
            "pick 2 of the schedule is d0/2, but the run asks for t1/2 or the like",
        ),
        ("0", picking(Step(0)), 2, "the schedule ends after 1 picks, but the run goes on"),
        ("0 1 0", lambda replay: replay.finish(), 2, "the run ended after 1 of the schedule's 3 picks"),
    ],
)
def test_where_a_stale_schedule_diverges_both_fingerprints_are_said(
    text: str, what: Callable[[Replay], object], at: int, why: str
) -> None:
    for runs_on, message in ((OTHER, f"{why}; {STALE}"), (MADE_FROM, why), (None, why)):
        replay = Replay(parse(f"v2 @{MADE_FROM} {text}"), runs_on)
        assert replay.pick([Step(0)]) == Step(0)
        with pytest.raises(Diverged) as caught:
            what(replay)
        assert (caught.value.at, str(caught.value)) == (at, message)


def test_a_stale_schedule_that_fits_is_followed() -> None:
    replay = Replay(parse(f"v2 @{MADE_FROM} 1 t0/2 i0"), OTHER)
    assert replay.pick([Step(0), Step(1)]) == Step(1)
    assert replay.answer(versions(2)) == 0
    assert replay.pick([Step(0), TakeInterrupt(0)]) == TakeInterrupt(0)
    replay.finish()
    assert replay.stale is not None


# --- ReplayThenInOrder ----------------------------------------------------------------------------------


def test_a_schedule_that_fits_is_followed_to_its_end() -> None:
    replay = ReplayThenInOrder(parse("v2 1 t0/3 i2 d1/2"))
    both: list[Choice] = [Step(0), Step(1), TakeInterrupt(2)]
    assert replay.pick(both) == Step(1)
    assert replay.answer(versions(3)) == 0
    assert replay.pick(both) == TakeInterrupt(2)
    assert replay.answer(decide(2)) == 1
    replay.finish()
    assert (replay.diverged_at, replay.why) == (None, None)


def test_from_a_pick_that_cannot_be_on_it_goes_in_order() -> None:
    """Although the schedule's later picks could be made again."""
    replay = ReplayThenInOrder(parse("v2 1 7 1 t0/3 d1/2 1"))
    both: list[Choice] = [Step(0), Step(1)]
    assert replay.pick(both) == Step(1)
    assert replay.diverged_at is None
    assert replay.pick(both) == Step(0)
    assert replay.pick(both) == Step(0)
    assert replay.answer(versions(3)) == 2
    assert replay.answer(decide(2)) == 0
    assert replay.pick([Step(1)]) == Step(1)
    replay.finish()
    why = "pick 2 of the schedule is 7, but the run can run: 0, 1"
    assert (replay.diverged_at, replay.why) == (2, why)


def test_from_a_question_that_is_another_on_it_goes_in_order() -> None:
    replay = ReplayThenInOrder(parse("v2 1 t0/2 1"))
    both: list[Choice] = [Step(0), Step(1)]
    assert replay.pick(both) == Step(1)
    assert replay.answer(versions(3)) == 2
    assert replay.pick(both) == Step(0)
    why = "pick 2 of the schedule is t0/2, but the run asks for t2/3 or the like"
    assert (replay.diverged_at, replay.why) == (2, why)


def test_behind_the_schedules_end_it_goes_in_order() -> None:
    replay = ReplayThenInOrder(parse("v2 1*2"))
    both: list[Choice] = [Step(0), Step(1)]
    assert [replay.pick(both) for _ in range(4)] == [Step(1), Step(1), Step(0), Step(0)]
    assert replay.diverged_at == 3
    assert replay.why == "the schedule ends after 2 picks, but the run goes on"


def test_a_run_that_ends_before_the_schedule_diverged_there() -> None:
    replay = ReplayThenInOrder(parse("v2 0*5"))
    assert [replay.pick([Step(0)]) for _ in range(3)] == [Step(0)] * 3
    replay.finish()
    assert (replay.diverged_at, replay.why) == (4, "the run ended after 3 of the schedule's 5 picks")


def test_why_says_that_the_schedule_is_stale() -> None:
    replay = ReplayThenInOrder(parse(f"v2 @{MADE_FROM}"), OTHER)
    assert replay.pick([Step(0)]) == Step(0)
    why = f"the schedule ends after 0 picks, but the run goes on; {STALE}"
    assert (replay.diverged_at, replay.why) == (1, why)


@given(st.lists(choices, max_size=12), st.lists(enabled_lists, max_size=12))
def test_only_what_can_happen_is_picked(wanted: list[Choice], offers: list[list[Choice]]) -> None:
    """As long as possible what the schedule says, and from the first difference on the first."""
    replay = ReplayThenInOrder(Schedule(tuple(wanted)))
    picked = [replay.pick(enabled) for enabled in offers]
    replay.finish()
    fits = 0
    while fits < min(len(wanted), len(offers)) and wanted[fits] in offers[fits]:
        fits += 1
    assert picked == [*wanted[:fits], *(enabled[0] for enabled in offers[fits:])]
    same = fits == len(wanted) == len(offers)
    assert replay.diverged_at == (None if same else fits + 1)


# --- InOrder --------------------------------------------------------------------------------------------


@given(enabled_lists)
def test_in_order_takes_the_first(enabled: list[Choice]) -> None:
    picker = InOrder()
    assert picker.pick(enabled) == enabled[0]
    picker.finish()


def test_in_order_answers_as_if_nothing_were_free() -> None:
    assert InOrder().answer(versions(3)) == 2
    assert InOrder().answer(decide(3)) == 0


# --- on a machine ---------------------------------------------------------------------------------------


ANY = frozenset({Freedom.SCHEDULE, Freedom.IRQ, Freedom.TLB})


@pytest.mark.parametrize("seed", [0, 1, 7])
@pytest.mark.parametrize("follow", [Replay, ReplayThenInOrder])
def test_a_random_run_is_repeated_by_its_schedule(
    seed: int, follow: type[Replay | ReplayThenInOrder]
) -> None:
    setup = scenario("stale-read").build(3)
    first = run(setup, lambda _system: Guide(Uniform(seed, 1), ANY))
    replay = follow(parse(str(first.schedule)), fingerprint(setup))
    again = run(setup, lambda _system: replay)
    assert again.schedule == first.schedule
    assert (again.uses, again.findings, again.events) == (first.uses, first.findings, first.events)
    assert replay.stale is None


def test_a_schedule_of_one_number_of_cpus_does_not_fit_another() -> None:
    two, three = (scenario("stale-read").build(cpus) for cpus in (2, 3))
    done = run(two, lambda _system: InOrder())
    with pytest.raises(Diverged) as caught:
        run(three, lambda _system: Replay(done.schedule, fingerprint(three)))
    assert re.fullmatch(
        r"pick \d+ of the schedule is \S+, but the run can run: \S+(, \S+)*; the schedule was made from "
        rf"another setup \(@{fingerprint(two)}, this one is @{fingerprint(three)}\)",
        str(caught.value),
    )


def test_a_run_goes_on_past_the_divergence_and_is_repeated_by_its_own_schedule() -> None:
    two, three = (scenario("stale-read").build(cpus) for cpus in (2, 3))
    old = run(two, lambda _system: InOrder()).schedule
    replay = ReplayThenInOrder(old, fingerprint(three))
    done = run(three, lambda _system: replay)
    at = replay.diverged_at
    assert at is not None
    assert done.schedule.picks[: at - 1] == old.picks[: at - 1]
    assert done.schedule.picks[at - 1] != old.picks[at - 1]
    assert done.schedule.fingerprint == fingerprint(three)
    again = run(three, lambda _system: Replay(done.schedule, fingerprint(three)))
    assert (again.schedule, again.events) == (done.schedule, done.events)
