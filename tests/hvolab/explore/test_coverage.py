"""What an exploration says it has covered."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from small_schedules import setup_of

from emu.addr import PhysAddr
from emu.choice import Step
from emu.memory import MIB, PhysicalMemory
from hvolab.checked.error import InputError
from hvolab.checked.place import Place
from hvolab.explore.coverage import Coverage, Tally
from hvolab.explore.search.interface import Freedom, InMemory
from hvolab.subject.outcome import Completed, Deadlocked, Outcome, OutOfSteps, Run
from hvolab.subject.schedule import Schedule

FREEDOMS = frozenset({Freedom.SCHEDULE, Freedom.TLB})


def ended(outcome: Outcome, picks: int, value: int) -> Run:
    """A run of that many steps, after which a word holds that value."""
    memory = PhysicalMemory(16 * MIB)
    memory.write_word(PhysAddr(0), 99)
    memory.write_word(PhysAddr(0), value)
    system = SimpleNamespace(machine=SimpleNamespace(steps=picks, memory=memory))
    schedule = Schedule(tuple(Step(0) for _ in range(picks)))
    return Run(schedule, outcome, (), (), 0, system, None)  # type: ignore[arg-type]


def tally() -> Tally:
    made = Tally()
    made.completed(ended(Completed(), 5, 1))
    made.completed(ended(Completed(), 7, 1))
    made.completed(ended(Deadlocked(()), 5, 2))
    made.completed(ended(OutOfSteps(9, ((0, "f"),)), 9, 3))
    made.completed(ended(OutOfSteps(9, ((1, "g"),)), 9, 3))
    made.given_up(4)
    made.gone_back(3)
    made.seen_before(6)
    made.remembered = InMemory(8)
    return made


def covered(made: Tally, stopped_by: str | None = None) -> Coverage:
    return made.coverage("exhaustive", FREEDOMS, replace(setup_of(1, 1, 1)), 2.0, stopped_by)


COVERED = Coverage(
    extent="exhaustive",
    freedoms=FREEDOMS,
    cpus=3,
    actors=frozenset({0, 1, 2}),
    schedules=5,
    seen_before=1,
    remembered=InMemory(8),
    steps=5 + 7 + 5 + 9 + 9 + 4 + 6,
    saved=3,
    longest=9,
    cut_off=2,
    cut_at="cut off after 9 steps; cpu0 was in f",
    no_progress="",
    deadlocks=1,
    redundant=1,
    learning=0,
    distinct_schedules=3,
    distinct_states=3,
    seconds=2.0,
    stopped_by=None,
)


def test_runs_are_counted_with_what_tells_them_apart() -> None:
    assert covered(tally()) == COVERED


def test_runs_that_only_taught_the_search_count_as_learning() -> None:
    made = tally()
    made.learned()
    made.completed(ended(Completed(), 5, 1))
    assert covered(made) == replace(
        COVERED,
        schedules=1,
        steps=COVERED.steps + 5,
        longest=5,
        cut_off=0,
        deadlocks=0,
        redundant=0,
        seen_before=0,
        remembered=InMemory(),
        learning=7,
        distinct_schedules=1,
        distinct_states=1,
    )


def test_a_tally_survives_a_file() -> None:
    again = Tally()
    again.load(Place("file", "", json.loads(json.dumps(tally().save()))))
    assert covered(again) == COVERED
    assert again.save() == tally().save()


def test_what_another_process_counted_is_added_and_the_same_orders_are_one() -> None:
    made = Tally()
    made.completed(ended(Completed(), 11, 1))
    made.add(Place("file", "", tally().save()))
    assert covered(made) == replace(
        COVERED, schedules=6, steps=COVERED.steps + 11, longest=11, distinct_schedules=4
    )


def test_a_digest_that_is_none_is_refused() -> None:
    saved = tally().save()
    assert isinstance(saved, dict)
    with pytest.raises(InputError, match=r"final_states\[0\]: expected a digest in hexadecimal, found 'xyz'"):
        Tally().load(Place("file", "", {**saved, "final_states": ["xyz"]}))


@pytest.mark.parametrize(
    ("coverage", "text"),
    [
        (
            replace(COVERED, cut_off=0, cut_at="", redundant=0, seen_before=0),
            "exhaustive over {schedule, tlb} at 3 CPUs: 5 schedules, 3 final states, at most 9 picks",
        ),
        (
            replace(COVERED, actors=frozenset({2, 0}), cut_off=0, freedoms=frozenset()),
            (
                "exhaustive over {nothing} at 3 CPUs (actors on 0, 2): 5 schedules, 1 that ended at one of 8"
                " states seen before and 1 given up as redundant, 3 final states, at most 9 picks"
            ),
        ),
        (
            replace(COVERED, redundant=0, seen_before=0),
            (
                "not complete (exhaustive), stopped by the step budget of a run; over {schedule, tlb} at 3"
                " CPUs: 5 schedules, 2 of them cut off after 9 steps; cpu0 was in f, 3 final states, at most"
                " 9 picks"
            ),
        ),
        (
            replace(COVERED, redundant=0, seen_before=0, cut_off=0, stopped_by="the budget of 5 runs"),
            (
                "not complete (exhaustive), stopped by the budget of 5 runs; over {schedule, tlb} at 3 CPUs:"
                " 5 schedules, a run that taught the search something was cut off after 9 steps; cpu0 was in"
                " f, 3 final states, at most 9 picks"
            ),
        ),
    ],
)
def test_coverage_in_words(coverage: Coverage, text: str) -> None:
    assert str(coverage) == text
    assert coverage.complete is text.startswith("exhaustive")


def test_what_it_took_says_where_memory_ended() -> None:
    assert COVERED.work == "42 steps made; 3 were gone back over, and not made again"
    full = replace(COVERED, remembered=InMemory(8, full=True)).work
    assert full == f"{COVERED.work}; memory was full, with 8 states in it (--memory)"


def test_a_word_that_was_changed_and_put_back_makes_no_other_final_state() -> None:
    """It once did: what had been stored to was looked at, not what memory holds."""
    made, changed = Tally(), ended(Completed(), 5, 99)
    changed.system.machine.memory.write_word(PhysAddr(8), 1)
    changed.system.machine.memory.write_word(PhysAddr(8), 0)
    made.completed(ended(Completed(), 5, 99))
    made.completed(changed)
    assert covered(made).distinct_states == 1
