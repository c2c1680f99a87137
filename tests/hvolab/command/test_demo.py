"""`hvolab demo`."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module

import pytest
from command_line import Printed, hvolab

from hvolab.catalog import SCENARIOS, scenario
from hvolab.subject.scenario import Scenario


@pytest.mark.slow
def test_demo_runs_every_scenario() -> None:
    done = hvolab("demo")
    assert (done.status, done.err) == (0, "")
    for chosen in SCENARIOS:
        assert f" {chosen.name}, " in done.out
    assert "each as expected" in done.out


def demo_of(monkeypatch: pytest.MonkeyPatch, *scenarios: Scenario) -> Printed:
    """`hvolab demo` of a catalogue with these alone."""
    monkeypatch.setattr(import_module("hvolab.command.demo"), "SCENARIOS", scenarios)
    return hvolab("demo")


def test_a_demo_ends_well_where_each_is_as_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    done = demo_of(monkeypatch, scenario("stale-read"), scenario("missed-cpu"))
    assert (done.status, done.err) == (0, "")
    assert "2 scenarios, each as expected." in done.out


def test_a_demo_names_what_is_not_as_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    """The expectation is taken away: what is found then is a surprise, which is our own error."""
    surprising = replace(scenario("missed-cpu"), verdicts=frozenset())
    done = demo_of(monkeypatch, scenario("stale-read"), surprising)
    assert done.status == 3
    assert done.out.splitlines()[-1] == "not as expected: missed-cpu"
