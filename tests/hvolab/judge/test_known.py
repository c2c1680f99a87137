"""The unmodified port, explored: what it finds is listed as known, and what is listed is found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from emu.paging.lazy import LazySpec
from emu.paging.models import LAZY
from hvolab.catalog import SCENARIOS, scenario
from hvolab.explore.budget import Budget
from hvolab.explore.explorer import Exploration, explore
from hvolab.explore.reduce.dpor import Reduced
from hvolab.explore.search.interface import Freedom
from hvolab.judge.known import KNOWN, Shown, known
from hvolab.judge.verdict import Finding
from hvolab.subject.run import run
from hvolab.subject.scenario import Group, Setup
from hvolab.subject.script import ScriptPicker
from hvolab.subject.script_text import parse_script

ALL = frozenset({Freedom.SCHEDULE, Freedom.IRQ, Freedom.TLB})
# The others show one thing each, in their own order, some with a kernel that does it.
UPSTREAM = [
    chosen.name for chosen in SCENARIOS if chosen.group not in (Group.REMAP, Group.STALE, Group.FAULT)
]
# Complete, but not in a few seconds.
LONG = (
    "restore-reader",
    "optimize-neighbours",
    "restore-neighbour",
    "demote-get-page",
    "demote-shrink",
    "atomic-free-memory-failure",
    "shrink-memory-failure",
    "dissolve-memory-failure",
    "error-while-shrinking",
    "two-sizes",
)
# Too many orders to wait for: the first runs find nothing unknown, and scripts show what is known.
BOUNDED = {
    "grow-memory-failure": 60,
    "error-while-growing": 60,
    "second-error": 60,
    "demote-memory-failure": 30,
    "atomic-free-grow": 60,
}
# One run takes seconds.
LARGE = ("rollback", "rollback-second")
SCRIPTS = {
    "grow-memory-failure": """
        cpu0 until an IPI is sent 2 times
        cpu1 takes an interrupt
        cpu1 translates 0xffffea0000100000 to pfn 0x7f00 rw 5 times
        """,
    "error-while-growing": """
        cpu0 until an IPI is sent 2 times
        cpu1 takes an interrupt
        cpu1 translates 0xffffea0000100000 to pfn 0x7f00 rw 5 times
        """,
    "demote-memory-failure": """
        cpu0 until an IPI is sent
        cpu1 until Load(0xffffea0000100028)
        cpu1 makes 2 steps
        cpu0 until Store(0xffff888000401020)
        cpu0 makes 8 steps
        cpu1 until Load(0xffffea0000108030)
        cpu1 makes 2 steps
        cpu0 until an IPI is sent 2 times
        cpu1 takes an interrupt
        """,
}
DOCUMENT = Path(__file__).parents[3] / "docs" / "findings.md"


def built(name: str) -> Setup:
    setup = scenario(name).build(2)
    if isinstance(setup.boot.model.tlb, LazySpec):
        return setup
    return replace(setup, boot=replace(setup.boot, model=LAZY))


def explored(name: str, budget: Budget) -> Exploration:
    return explore(built(name), Reduced(), ALL, budget)


def shown(name: str, findings: list[Finding]) -> set[Shown]:
    """What of the known findings these show; no violation is unknown."""
    violations = [finding for finding in findings if finding.verdict.is_violation]
    assert [finding.cause for finding in violations if known(name, finding) is None] == []
    return {Shown(name, finding.verdict, finding.where.code) for finding in violations}


def listed(name: str) -> set[Shown]:
    return {one for finding in KNOWN for one in finding.shown if one.scenario == name}


def check_all(name: str) -> None:
    done = explored(name, Budget())
    assert done.coverage.complete
    assert shown(name, [one.finding for one in done.found]) == listed(name)


@pytest.mark.parametrize("name", [name for name in UPSTREAM if name not in (*LONG, *BOUNDED, *LARGE)])
def test_upstream_has_exactly_the_known_findings_in_every_order(name: str) -> None:
    check_all(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
def test_upstream_has_exactly_the_known_findings_in_every_order_of_long_ones(name: str) -> None:
    check_all(name)


@pytest.mark.parametrize("name", [*BOUNDED, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)])
def test_upstream_has_no_unknown_finding_in_the_first_orders_of_very_long_ones(name: str) -> None:
    done = explored(name, Budget(runs=BOUNDED.get(name, 3)))
    assert shown(name, [one.finding for one in done.found]) <= listed(name)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_shows_what_is_known_of_those(name: str) -> None:
    script = parse_script(SCRIPTS[name])
    done = run(built(name), lambda system: ScriptPicker(script, system.machine))
    seen = shown(name, list(done.findings))
    assert seen
    assert seen <= listed(name)


def test_every_scenario_with_a_known_finding_is_looked_at() -> None:
    assert {one.scenario for finding in KNOWN for one in finding.shown} <= {*UPSTREAM}
    assert set(BOUNDED) | set(LONG) <= set(UPSTREAM)
    assert {*SCRIPTS} <= {*BOUNDED}


@pytest.mark.parametrize("one", KNOWN, ids=lambda one: one.name)
def test_a_known_finding_is_analysed_under_its_name(one) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert f"## {one.name}\n" in text
    assert {shows.scenario for shows in one.shown if shows.scenario not in text} == set()
