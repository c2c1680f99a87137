"""`hvolab why`: the findings of one run, explained in text and JSON, in its own order or another."""

from __future__ import annotations

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


def test_a_schedule_that_does_not_fit_is_one_line() -> None:
    done = hvolab("why", "missed-cpu", "--schedule", "v2 0 9")
    assert (done.status, done.out) == (2, "")
    assert done.err.count("\n") == 1
