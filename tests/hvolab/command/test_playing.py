"""In which order a scenario is run when no other is asked for."""

from __future__ import annotations

import pytest
from command_line import hvolab

from hvolab.subject.axes import POLICIES


@pytest.mark.parametrize("policy", POLICIES.names)
@pytest.mark.parametrize(
    "name",
    [
        "flush-begun-before",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("flush-reader", "stale-read", "remap")),
    ],
)
def test_a_scenario_is_run_under_any_policy_also_one_that_does_not_what_its_order_waits_for(
    name: str, policy: str
) -> None:
    """It was an error: there is no interrupt to wait for where hardware tells the others."""
    done = hvolab("run", name, "--policy", policy)
    assert done.err == ""
    assert done.status in (0, 1)


def test_an_order_that_was_made_for_a_policy_is_kept_to() -> None:
    done = hvolab("run", "switching-cpu", "--policy", "skip-switching-late")
    assert done.status == 1
    assert "violation: missed-flush" in done.out
