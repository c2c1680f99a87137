"""Exit statuses of what was run."""

from __future__ import annotations

from typing import assert_never

from hvolab.explore.explorer import Exploration
from hvolab.judge.verdict import Verdict
from hvolab.subject.outcome import Completed, Deadlocked, OutOfSteps, OutOfTime, Run

WRONG, BAD_INPUT, OUR_ERROR, NOT_COMPLETE, INTERRUPTED = 1, 2, 3, 4, 130


def status_of(done: Run) -> int:
    """Of one run: 3 our own error, 1 a violation, 4 cut off with nothing found, else 0."""
    if done.model_error:
        return OUR_ERROR
    if done.wrong:
        return WRONG
    match done.outcome:
        case Completed() | Deadlocked():
            return 0
        case OutOfSteps() | OutOfTime():
            return NOT_COMPLETE
        case _:
            assert_never(done.outcome)


def status_of_exploration(done: Exploration) -> int:
    """The same of many runs."""
    verdicts = {found.finding.verdict for found in done.found}
    if Verdict.MODEL_ERROR in verdicts:
        return OUR_ERROR
    if any(verdict.is_violation for verdict in verdicts):
        return WRONG
    if done.coverage.interrupted:
        return INTERRUPTED
    return 0 if done.coverage.complete else NOT_COMPLETE
