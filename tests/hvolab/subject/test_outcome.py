"""How a run ended, in words; and when it is late."""

from __future__ import annotations

import time

import pytest

from hvolab.subject.outcome import NO_LIMITS, Completed, Deadlocked, Limits, Outcome, OutOfSteps, OutOfTime


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        (Completed(), "completed"),
        (Deadlocked(((0, "x = 1"), (2, "y = 0"))), "deadlock: cpu0 waits for x = 1; cpu2 waits for y = 0"),
        (OutOfSteps(500, ((0, "f"), (1, "g"))), "cut off after 500 steps; cpu0 was in f; cpu1 was in g"),
        (OutOfTime(60.0), "cut off after 60 s"),
    ],
)
def test_an_outcome_in_words(outcome: Outcome, text: str) -> None:
    assert str(outcome) == text


def test_only_a_run_with_a_time_of_its_own_is_late() -> None:
    now = time.monotonic()
    assert [limits.is_late() for limits in (NO_LIMITS, Limits(until=now + 1000), Limits(until=now - 1))] == [
        False,
        False,
        True,
    ]
