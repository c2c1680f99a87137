"""`hvolab explore`: what it reports, and options that are wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.resources import files

import jsonschema
import pytest


def hvolab(*words: str) -> subprocess.CompletedProcess[str]:
    program = "from hvolab.command.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=False
    )


def test_the_command_reports_in_json_what_it_found_and_covered() -> None:
    done = hvolab("explore", "use-after-free", "--json")
    assert done.returncode == 1
    told = json.loads(done.stdout)
    schema = json.loads((files("hvolab") / "schema" / "explore.json").read_text(encoding="utf-8"))
    jsonschema.validate(told, schema)
    assert told["coverage"]["complete"] is True
    assert told["coverage"]["extent"] == "exhaustive"
    assert {finding["verdict"] for finding in told["findings"]} == {"violation: use-after-free"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--nondet", "weather"], "'weather' is not one of schedule, irq, tlb, alloc"),
        (
            ["--strategy", "luck"],
            "'pct', 'walk', 'uniform', 'portfolio'.",
        ),
        (["--runs", "0"], "0 is not in the range x>=1."),
        (
            ["--nondet", "tlb"],
            "reduction needs the freedoms schedule and irq: use --strategy unreduced, or another",
        ),
        (
            ["--cpu-model", "skylake"],
            "skylake has one with a geometry: use --strategy unreduced, or another",
        ),
        (["--jobs", "2", "--strategy", "pct"], "--jobs is for --strategy exhaustive, not pct"),
        (["--jobs", "2", "--checkpoint", "x"], "--checkpoint is for one process: leave --jobs out"),
        (["--checkpoint", "/dev/null/x"], "cannot write /dev/null/x: Not a directory"),
        (["--cpus", "1"], "use-after-free has actors on 2 CPUs, not 1: --cpus"),
    ],
)
def test_wrong_options_are_one_line_and_status_2(words: list[str], message: str) -> None:
    done = hvolab("explore", "use-after-free", *words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.rstrip().endswith(message)


def test_memory_bounds_the_states_that_are_remembered_and_nought_remembers_none() -> None:
    def covered(*words: str) -> dict[str, object]:
        done = hvolab("explore", "stale-read", "--json", *words)
        coverage: dict[str, object] = json.loads(done.stdout)["coverage"]
        return {name: coverage[name] for name in ("complete", "states", "seen_before", "distinct_states")}

    none, some = covered("--memory", "0"), covered("--memory", "1")
    assert (none["states"], none["seen_before"]) == (0, 0)
    assert isinstance(some["states"], int)
    assert 0 < some["states"] <= 512
    assert (none["complete"], none["distinct_states"]) == (some["complete"], some["distinct_states"])
