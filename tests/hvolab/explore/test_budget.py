"""When an exploration has to end."""

from __future__ import annotations

import pytest

from hvolab.explore.budget import Budget


@pytest.mark.parametrize(
    ("budget", "runs", "seconds", "spent"),
    [
        (Budget(), 1 << 40, 1e9, None),
        (Budget(runs=3), 2, 1e9, None),
        (Budget(runs=3), 3, 0.0, "the budget of 3 runs"),
        (Budget(seconds=1.5), 1 << 40, 1.4, None),
        (Budget(seconds=1.5), 0, 1.5, "the budget of 1.5 s"),
        (Budget(seconds=60.0), 0, 61.0, "the budget of 60 s"),
        (Budget(runs=3, seconds=1.5), 3, 2.0, "the budget of 3 runs"),
    ],
)
def test_a_budget_is_spent_by_runs_or_by_time(
    budget: Budget, runs: int, seconds: float, spent: str | None
) -> None:
    assert budget.spent(runs, seconds) == spent
