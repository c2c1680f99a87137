"""`hvolab why`: the findings of one run, explained in text and JSON, in its own order or another."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from command_line import hvolab


def test_each_part_of_an_explanation_has_a_line() -> None:
    done = hvolab("why", "missed-cpu")
    assert (done.status, done.err) == (1, "")
    labels = [line.split()[0] for line in done.out.splitlines() if line.strip()]
    assert {"version", "window", "store", "flush", "rule"} <= set(labels)
    assert labels.count("flush") == 2


def test_a_schedule_is_followed_and_the_exit_status_is_that_of_the_run() -> None:
    own = hvolab("why", "missed-cpu", "--json")
    schedule = hvolab("run", "missed-cpu", "--json").json()["schedule"]
    again = hvolab("why", "missed-cpu", "--schedule", schedule, "--json")
    assert (again.status, again.err, again.json()) == (1, "", own.json())


def test_a_run_in_which_nothing_stale_was_used_has_nothing_to_explain() -> None:
    done = hvolab("why", "remap")
    assert (done.status, done.err) == (0, "")
    assert "nothing to explain" in done.out


def test_a_stale_use_that_was_allowed_is_explained_as_a_wrong_one_is() -> None:
    done = hvolab("why", "stale-read")
    assert (done.status, done.err) == (0, "")
    labels = [line.split()[0] for line in done.out.splitlines() if line and not line.startswith(" ")]
    assert [label for label in labels if label in ("saw", "version", "window", "store", "flush", "rule")] == [
        "saw",
        "version",
        "window",
        "store",
        "flush",
        "rule",
    ]
    assert "does not cover it: it began before the store" in done.out


def test_a_flush_left_to_the_next_tick_asked_nobody_and_was_taken_for_settled(tmp_path: Path) -> None:
    script = tmp_path / "script.txt"
    script.write_text(
        """
        cpu1 until Load(0xffffea0000100034)
        cpu0 to its end
        cpu0 takes an interrupt
        cpu0 until free(pfn 0x7f01)
        cpu1 translates 0xffffea0000100000 to pfn 0x7f00 rw
        cpu1 to its end
        """,
        encoding="ascii",
    )
    asked = ("unfreeze-before-sweep", "--policy", "latr-short", "--cpu-model", "lazy")
    replay = re.findall(r"^replay hvolab run (.*)$", hvolab("run", *asked, "--script", script).out, re.M)[0]
    text = " ".join(hvolab("why", *shlex.split(replay)).out.split())
    assert "is for this CPU to catch up with, and was taken for settled from event" in text
    assert "asked this CPU" not in text


def test_a_schedule_that_does_not_fit_is_one_line() -> None:
    done = hvolab("why", "missed-cpu", "--schedule", "v2 0 9")
    assert (done.status, done.out) == (2, "")
    assert done.err.count("\n") == 1
