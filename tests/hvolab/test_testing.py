"""`hvolab.testing`: what a test of one's own is told when it fails."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from command_line import hvolab
from user_files import PATCH, written

from hvolab.explore.budget import Budget
from hvolab.explore.search.randomly import Pct
from hvolab.subject.axes import Chosen
from hvolab.testing import Unsafe, assert_replayed, assert_safe


def test_what_is_safe_returns_what_was_covered() -> None:
    done = assert_safe("freeze-get-page")
    assert (done.coverage.complete, done.coverage.cpus) == (True, 2)


def test_a_failure_has_report_explanation_and_a_replay_line_that_works(tmp_path: Path) -> None:
    path = written(tmp_path, PATCH)
    with pytest.raises(Unsafe) as raised:
        assert_safe("flush-reader", load_file=f"{path}:Patch")
    lines = str(raised.value).splitlines()
    assert any("violation: " in line for line in lines)
    assert any(line.startswith("store ") and "set_pte_at < vmemmap_remap_pte" in line for line in lines)
    assert any(line.startswith("rule ") for line in lines)
    (replay,) = [line.removeprefix("replay ") for line in lines if line.startswith("replay ")]
    words = shlex.split(replay)
    assert words[:2] == ["hvolab", "run"]
    assert hvolab(*words[1:]).status == 1
    schedule = words[words.index("--schedule") + 1]
    with pytest.raises(Unsafe, match="rule "):
        assert_replayed("flush-reader", schedule, load_file=f"{path}:Patch")


def test_a_budget_that_ends_first_is_no_proof() -> None:
    with pytest.raises(Unsafe, match="not complete"):
        assert_safe("flush-reader", budget=Budget(runs=2))


def test_a_strategy_that_samples_what_was_asked_is_complete() -> None:
    assert assert_safe("flush-reader", strategy=Pct(0, 5, 3)).coverage.schedules == 5


def test_what_is_asked_for_is_in_the_replay_line() -> None:
    with pytest.raises(Unsafe, match="--policy never --cpu-model lazy-single --schedule"):
        assert_safe("flush-reader", chosen=Chosen(policy="never", cpu_model="lazy-single"), cpus=3)
