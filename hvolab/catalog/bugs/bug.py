"""How a scenario of bugs is put together."""

from __future__ import annotations

from dataclasses import replace

from hvolab.judge.verdict import Verdict
from hvolab.subject.axes import Deviation
from hvolab.subject.scenario import Bug, Scenario
from hvolab.subject.script import ordering
from hvolab.subject.script_text import parse_script


def ordered(scenario: Scenario) -> Scenario:
    """The scenario with the order of its first bug as its own, without what that asks of TLBs."""
    order = ordering(scenario.bugs[0].script)
    return replace(scenario, build=lambda cpus: replace(scenario.build(cpus), script=order))


def bug(deviation: Deviation, verdict: Verdict, script: str) -> Bug:
    return Bug(deviation, verdict, parse_script(script))
