"""`hvolab show`: who does what, in which order, and on which kernels it goes wrong."""

from __future__ import annotations

import shlex

from command_line import hvolab

from hvolab.catalog import SCENARIOS, scenario
from hvolab.subject.axes import option_of


def test_a_scenario_is_explained_with_its_actors_order_and_bugs() -> None:
    done = hvolab("show", "flush-head-reader")
    assert (done.status, done.err) == (0, "")
    chosen, text = scenario("flush-head-reader"), " ".join(done.out.split())
    assert chosen.bugs
    for said in (chosen.question, chosen.means, *(bug.verdict.value for bug in chosen.bugs)):
        assert said in text
    assert "cpu0" in text
    assert "cpu1" in text


def test_the_lines_to_try_are_commands_that_name_each_deviation() -> None:
    shown = {chosen.name: hvolab("show", chosen.name) for chosen in SCENARIOS}
    assert {name for name, done in shown.items() if (done.status, done.err) != (0, "")} == set()
    tried = {
        (name, *shlex.split(line.split(maxsplit=1)[1]))
        for name, done in shown.items()
        for line in done.out.splitlines()
        if line.startswith("try ")
    }
    assert tried == {
        (chosen.name, "hvolab", "run", chosen.name, *option_of(bug.deviation))
        for chosen in SCENARIOS
        for bug in chosen.bugs
    }


def test_a_known_finding_says_where_it_was_seen() -> None:
    text = " ".join(hvolab("show", "key-restore").out.split())
    assert "known a fake head that becomes a tail between two loads" in text
    assert "seen on a real Linux 6.12.95" in text


def test_a_policy_says_where_it_is_from_and_what_it_owes() -> None:
    """A published design is no step taken out."""
    text = " ".join(hvolab("show", "unfreeze-before-sweep").out.split())
    assert "from Kumar et al., LATR" in text
    assert "owes a page is held until every CPU has caught up" in text
    assert "taken out" not in text


def test_an_unknown_scenario_is_one_line() -> None:
    done = hvolab("show", "lost-updte")
    assert (done.status, done.out) == (2, "")
    assert done.err == "hvolab: there is no scenario 'lost-updte'; did you mean lost-update?\n"
