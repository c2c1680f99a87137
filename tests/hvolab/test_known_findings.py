"""The unmodified port, explored: what it finds is listed as known, and what is listed is found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from emu.models import LAZY
from hvolab.catalog import SCENARIOS, scenario
from hvolab.explore.budget import Budget
from hvolab.explore.dpor import Reduced
from hvolab.explore.explorer import Exploration, explore
from hvolab.explore.search import Freedom
from hvolab.known import KNOWN, known
from hvolab.scenario import Group

ALL = frozenset({Freedom.SCHEDULE, Freedom.IRQ, Freedom.TLB})
RACES = [chosen.name for chosen in SCENARIOS if chosen.group is Group.RACE]
LONG = ("restore-reader", "optimize-neighbours", "restore-neighbour")
DOCUMENT = Path(__file__).parents[2] / "docs" / "findings.md"


def explored(name: str, budget: Budget) -> Exploration:
    setup = scenario(name).build(2)
    return explore(replace(setup, boot=replace(setup.boot, model=LAZY)), Reduced(), ALL, budget)


def check(name: str, done: Exploration) -> None:
    violations = [one.finding for one in done.found if one.finding.verdict.is_violation]
    assert [finding.cause for finding in violations if known(name, finding) is None] == []
    found = {recognised for finding in violations if (recognised := known(name, finding)) is not None}
    assert found == {one for one in KNOWN if one.scenario == name}


@pytest.mark.parametrize("name", [name for name in RACES if name not in LONG])
def test_upstream_has_exactly_the_known_findings_in_every_order(name: str) -> None:
    done = explored(name, Budget())
    assert done.coverage.complete
    check(name, done)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["restore-reader", "optimize-neighbours"])
def test_upstream_has_exactly_the_known_findings_in_every_order_of_long_ones(name: str) -> None:
    done = explored(name, Budget())
    assert done.coverage.complete
    check(name, done)


@pytest.mark.slow
def test_upstream_has_no_unknown_finding_in_the_first_orders_of_a_concurrent_restore() -> None:
    check("restore-neighbour", explored("restore-neighbour", Budget(runs=500)))


@pytest.mark.parametrize("one", KNOWN, ids=lambda one: one.name)
def test_a_known_finding_is_analysed_under_its_name(one) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert f"## {one.name}\n" in text
    assert one.scenario in text
    assert one.scenario in RACES
