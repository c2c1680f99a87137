"""Exit statuses: our own error before a violation, a violation before what is not complete."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from hvolab.command.status import status_of, status_of_exploration
from hvolab.judge.verdict import Verdict
from hvolab.subject.outcome import Completed, Deadlocked, Outcome, OutOfSteps, OutOfTime


@pytest.mark.parametrize(
    ("outcome", "wrong", "model_error", "status"),
    [
        (Completed(), False, False, 0),
        (Deadlocked(((0, "x"),)), True, False, 1),
        (Completed(), True, False, 1),
        (Completed(), True, True, 3),
        (OutOfSteps(5), False, False, 4),
        (OutOfTime(1.0), False, False, 4),
        (OutOfTime(1.0), True, False, 1),
        (OutOfSteps(5), False, True, 3),
    ],
)
def test_of_a_run(outcome: Outcome, wrong: bool, model_error: bool, status: int) -> None:
    done = SimpleNamespace(outcome=outcome, wrong=wrong, model_error=model_error)
    assert status_of(done) == status  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("verdicts", "complete", "status"),
    [
        ((), True, 0),
        ((), False, 4),
        ((Verdict.SPURIOUS,), True, 0),
        ((Verdict.SPURIOUS,), False, 4),
        ((Verdict.SPURIOUS, Verdict.KERNEL), False, 1),
        ((Verdict.KERNEL, Verdict.MODEL_ERROR), True, 3),
        ((), None, 130),
        ((Verdict.KERNEL,), None, 1),
    ],
)
def test_of_an_exploration(verdicts: tuple[Verdict, ...], complete: bool | None, status: int) -> None:
    """`complete` None: it was interrupted."""
    found = [SimpleNamespace(finding=SimpleNamespace(verdict=verdict)) for verdict in verdicts]
    coverage = SimpleNamespace(complete=bool(complete), interrupted=complete is None)
    done = SimpleNamespace(found=found, coverage=coverage)
    assert status_of_exploration(done) == status  # type: ignore[arg-type]
