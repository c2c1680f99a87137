"""The pytest plugin, in a pytest of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from user_files import PATCH, written

ROOT = Path(__file__).resolve().parents[2]
TEST = """
import pytest

def test_mine(hvolab_safe):
    hvolab_safe("flush-reader", load_file="mine.py:Patch")

@pytest.mark.hvolab("pct", runs=5)
def test_sampled(hvolab_safe):
    assert hvolab_safe("flush-reader").coverage.schedules == 5

def test_fixtures(hvolab_subject, hvolab_explore):
    done = hvolab_explore(hvolab_subject("tail-write", cpus=3))
    assert done.coverage.complete
    assert done.coverage.cpus == 3
    assert "violation: write-protect" in {one.finding.verdict.value for one in done.found}

@pytest.mark.hvolab("luck")
def test_slip(hvolab_safe):
    hvolab_safe("flush-reader")
"""


def pytest_in(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    plugins = ["-p", "no:cacheprovider", "-p", "hvolab.pytest_plugin"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugins, *words],
        cwd=directory,
        env={"PYTHONPATH": str(ROOT), "COLUMNS": "100", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    written(tmp_path, PATCH)
    written(tmp_path, TEST, "test_mine.py")
    return tmp_path


def test_a_failing_test_shows_the_whole_report_and_replays_from_pytests_command_line(directory: Path) -> None:
    done = pytest_in(directory, "test_mine.py::test_mine")
    assert done.returncode == 1
    told = done.stdout
    assert "violation: " in told
    assert "rule     row " in told
    found = re.search(r"--schedule '(v2 [^']+)'", told)
    assert found is not None
    again = pytest_in(directory, "test_mine.py::test_mine", "--hvolab-schedule", found[1])
    assert again.returncode == 1
    assert found[1] in again.stdout
    assert "schedules" not in again.stdout, "one run, no exploration"


def test_subject_and_explorer_are_fixtures(directory: Path) -> None:
    assert pytest_in(directory, "-k", "fixtures").returncode == 0


def test_a_marker_names_a_strategy_and_a_slip_in_it_is_said(directory: Path) -> None:
    assert pytest_in(directory, "-k", "sampled").returncode == 0
    assert (
        "the marker hvolab names 'luck': want pct, walk or uniform"
        in pytest_in(directory, "-k", "slip").stdout
    )
