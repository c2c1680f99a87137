"""`hvolab demo`."""

from __future__ import annotations

import pytest
from command_line import hvolab

from hvolab.catalog import SCENARIOS


@pytest.mark.slow
def test_demo_runs_every_scenario() -> None:
    done = hvolab("demo")
    assert (done.status, done.err) == (0, "")
    for chosen in SCENARIOS:
        assert f" {chosen.name}, " in done.out
    assert "each as expected" in done.out
