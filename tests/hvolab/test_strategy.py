"""The three strategies: following a schedule, random priorities from a seed, and lowest CPU first."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu.addr import VirtAddr
from emu.choice import Choice, DecideQuestion, Question, Step, TakeInterrupt, VersionQuestion
from hvolab.catalog import scenario
from hvolab.run import run
from hvolab.schedule import Schedule, ScheduleError, parse
from hvolab.strategy import InOrder, Priorities, Replay


def versions(options: int) -> VersionQuestion:
    """Which of that many versions, the last of them a walk? No strategy looks at the entries."""
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
    replay = Replay(parse("v1 0 t1/3 i2 d1/2 1"))
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
        ("v1 1", picking(Step(0)), "pick 1 of the schedule is 1, but the run can run: 0"),
        (
            "v1 2",
            picking(Step(0), TakeInterrupt(0), Step(1)),
            "pick 1 of the schedule is 2, but the run can run: 0, i0, 1",
        ),
        ("v1 i0", picking(Step(0)), "pick 1 of the schedule is i0, but the run can run: 0"),
        ("v1 0", picking(TakeInterrupt(0)), "pick 1 of the schedule is 0, but the run can run: i0"),
        ("v1 t0/2", picking(Step(0)), "pick 1 of the schedule is t0/2, but the run can run: 0"),
        ("v1 d1/2", picking(Step(3)), "pick 1 of the schedule is d1/2, but the run can run: 3"),
        (
            "v1 0",
            answering(versions(2)),
            "pick 1 of the schedule is 0, but the run asks for t1/2 or the like",
        ),
        (
            "v1 t0/2",
            answering(versions(3)),
            "pick 1 of the schedule is t0/2, but the run asks for t2/3 or the like",
        ),
        ("v1", picking(Step(0)), "the schedule ends after 0 picks, but the run goes on"),
        ("v1", answering(decide(2)), "the schedule ends after 0 picks, but the run goes on"),
        ("v1 0", lambda replay: replay.finish(), "the run ended after 0 of the schedule's 1 picks"),
        ("v1 0*3 i1", lambda replay: replay.finish(), "the run ended after 0 of the schedule's 4 picks"),
    ],
)
def test_a_run_that_is_another_one_is_noticed(
    text: str, what: Callable[[Replay], object], message: str
) -> None:
    assert diverges(text, what) == message


@pytest.mark.parametrize(("text", "question"), [("v1 t0/2", decide(2)), ("v1 d0/2", versions(2))])
def test_an_answer_to_another_kind_of_question_is_none(text: str, question: Question) -> None:
    assert diverges(text, answering(question)).startswith(
        f"pick 1 of the schedule is {text.split()[1]}, but "
    )


def test_the_pick_is_numbered_from_the_start() -> None:
    replay = Replay(parse("v1 0*2 t0/2 1 0"))
    replay.pick([Step(0)])
    replay.pick([Step(0)])
    replay.answer(versions(2))
    with pytest.raises(ScheduleError) as caught:
        replay.pick([Step(0)])
    assert str(caught.value) == "pick 4 of the schedule is 1, but the run can run: 0"


def test_a_run_that_stops_short_says_how_far_it_came() -> None:
    replay = Replay(parse("v1 0*3 1*2"))
    replay.pick([Step(0)])
    replay.pick([Step(0)])
    with pytest.raises(ScheduleError) as caught:
        replay.finish()
    assert str(caught.value) == "the run ended after 2 of the schedule's 5 picks"


@given(st.lists(enabled_lists, max_size=12), st.data())
def test_what_was_picked_is_what_is_replayed(offers: list[list[Choice]], data: st.DataObject) -> None:
    picked = [data.draw(st.sampled_from(enabled)) for enabled in offers]
    replay = Replay(Schedule(tuple(picked)))
    assert [replay.pick(enabled) for enabled in offers] == picked
    replay.finish()


# --- Priorities -----------------------------------------------------------------------------------------


@given(st.integers(0, 2**32), st.lists(st.one_of(enabled_lists, questions), max_size=60))
def test_a_seed_gives_the_same_picks_every_time(seed: int, asked: list[list[Choice] | Question]) -> None:
    def picks() -> list[Choice | int]:
        strategy = Priorities(seed)
        return [strategy.pick(a) if isinstance(a, list) else strategy.answer(a) for a in asked]

    assert picks() == picks()


@given(st.integers(0, 2**32), st.lists(enabled_lists, max_size=60))
def test_only_what_can_happen_is_picked(seed: int, offers: list[list[Choice]]) -> None:
    strategy = Priorities(seed)
    for enabled in offers:
        assert strategy.pick(list(enabled)) in enabled
    strategy.finish()


@given(st.integers(0, 2**32), st.lists(st.integers(1, 9), max_size=30))
def test_versions_are_drawn_and_decisions_stay_ordinary(seed: int, options: list[int]) -> None:
    strategy = Priorities(seed)
    for number in options:
        assert 0 <= strategy.answer(versions(number)) < number
        assert strategy.answer(decide(number)) == 0


def test_every_version_is_drawn_by_some_seed() -> None:
    assert {Priorities(seed).answer(versions(4)) for seed in range(64)} == {0, 1, 2, 3}


def test_seeds_differ() -> None:
    three: list[Choice] = [Step(0), Step(1), Step(2)]
    assert {Priorities(seed).pick(three) for seed in range(40)} == set(three)


@pytest.mark.parametrize("seed", range(20))
def test_the_cpu_changes_at_a_few_points_only(seed: int) -> None:
    strategy = Priorities(seed)
    three: list[Choice] = [Step(0), Step(1), Step(2)]
    picked = [strategy.pick(three) for _ in range(2 * Priorities.RUN_LENGTH)]
    changes = [index for index, (a, b) in enumerate(pairwise(picked), start=1) if a != b]
    assert len(changes) <= Priorities.CHANGE_POINTS
    assert all(index < Priorities.RUN_LENGTH for index in changes)


def test_interrupts_have_priorities_of_their_own() -> None:
    both: list[Choice] = [Step(0), TakeInterrupt(0)]
    assert {Priorities(seed).pick(both) for seed in range(40)} == set(both)


# --- InOrder --------------------------------------------------------------------------------------------


@given(enabled_lists)
def test_in_order_takes_the_first(enabled: list[Choice]) -> None:
    strategy = InOrder()
    assert strategy.pick(enabled) == enabled[0]
    strategy.finish()


def test_in_order_answers_as_if_nothing_were_free() -> None:
    assert InOrder().answer(versions(3)) == 2
    assert InOrder().answer(decide(3)) == 0


# --- on a machine ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_a_run_from_a_seed_is_repeated_by_the_seed_and_by_its_schedule(seed: int) -> None:
    setup = scenario("stale-read").build(3)
    first = run(setup, lambda _system: Priorities(seed))
    by_seed = run(setup, lambda _system: Priorities(seed))
    replayed = run(setup, lambda _system: Replay(parse(str(first.schedule))))
    for again in (by_seed, replayed):
        assert again.schedule == first.schedule
        assert (again.uses, again.findings, again.events) == (first.uses, first.findings, first.events)


def test_a_schedule_of_one_number_of_cpus_does_not_fit_another() -> None:
    two = run(scenario("stale-read").build(2), lambda _system: InOrder())
    with pytest.raises(ScheduleError) as caught:
        run(scenario("stale-read").build(3), lambda _system: Replay(two.schedule))
    assert re.fullmatch(
        r"pick \d+ of the schedule is \S+, but the run can run: \S+(, \S+)*", str(caught.value)
    )
