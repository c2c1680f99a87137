"""A guest that never ends is an outcome: where it was cut off, exit status 4, no conclusion over it."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from hvolab.catalog import scenario

PROGRAM = "from hvolab.command.main import main; main()"
SPINS = "again:\n    mov rax, [rdi]\n    jmp again\n"


def hvolab(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, check=False
    )


@pytest.fixture
def spins(tmp_path: Path) -> str:
    path = tmp_path / "spins.S"
    path.write_text(SPINS, encoding="utf-8")
    return str(path)


def test_a_guest_that_never_ends_is_not_as_expected(spins: str) -> None:
    done = hvolab("run", "optimize-reader", "--program", spins, "--steps", "2000")
    assert (done.returncode, done.stderr) == (4, "")
    said = " ".join(done.stdout.split())
    assert (
        "cut off after 2000 steps; cpu0 was in csd_lock_wait; cpu1 was in spins.S 0xffffffff8110000" in said
    )
    assert "the run did not come to its end" in said
    chosen = scenario("optimize-reader")
    assert " ".join(chosen.expected.split()) not in said
    assert " ".join(chosen.means.split()) not in said


def test_the_outcome_is_in_the_json(spins: str) -> None:
    done = hvolab("run", "optimize-reader", "--program", spins, "--steps", "500", "--json")
    assert done.returncode == 4
    assert json.loads(done.stdout)["outcome"].startswith("cut off after 500 steps; cpu0 was in ")


def test_the_time_of_an_exploration_is_not_exceeded_by_one_run(spins: str) -> None:
    """Without steps to stop it, or states by which the loop is seen, the first run would never end."""
    words = ("explore", "optimize-reader", "--program", spins, "--seconds", "1", "--steps", "100000000")
    words = (*words, "--memory", "0")
    done = hvolab(*words, "--no-shrink", "--json")
    assert done.returncode == 4
    coverage = json.loads(done.stdout)["coverage"]
    assert not coverage["complete"]
    assert coverage["cut_at"].startswith("cut off after 1 s; cpu")


def test_a_run_that_comes_to_its_end_is_no_4() -> None:
    assert hvolab("run", "stale-read", "--json").returncode == 0


@pytest.mark.parametrize("more", [(), ("--no-shrink",)])
def test_what_a_run_found_before_it_was_cut_off_replays(more: tuple[str, ...]) -> None:
    done = hvolab("explore", "tail-write", "--steps", "300", "--json", *more)
    assert done.returncode == 1
    (finding,) = json.loads(done.stdout)["findings"]
    assert finding["replay"].endswith(" cut'")
    words = shlex.split(finding["replay"])[1:]
    for command in ("run", "why"):
        again = hvolab(command, *words[1:], "--json")
        assert (again.returncode, again.stderr) == (1, "")
        assert finding["verdict"] in again.stdout
