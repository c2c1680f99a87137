"""`--trace FILE`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import hvolab


def test_a_full_disk_under_the_trace_is_no_internal_error() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    done = hvolab("run", "stale-read", "--json", "--trace", "/dev/full")
    assert done.status == 2
    assert done.err.count("\n") == 1
    assert "/dev/full" in done.err


# --- trace and dump -------------------------------------------------------------------------------------


def test_a_trace_does_not_change_the_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    assert (
        hvolab("run", "tail-write", "--json", "--trace", trace).out
        == hvolab("run", "tail-write", "--json").out
    )
    finding = hvolab("run", "tail-write", "--json").json()["findings"][0]
    lines = [json.loads(line) for line in trace.read_text(encoding="utf-8").splitlines()]
    event = lines[finding["event"]]
    assert (event["n"], event["event"], event["cpu"]) == (finding["event"], "Faulted", finding["cpu"])
