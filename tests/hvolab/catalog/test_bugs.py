"""The catalogue of bugs: a script shows each, upstream is not wrong in that order, and none is missing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from emu.paging.models import LAZY, CpuModel
from hvolab.catalog import SCENARIOS
from hvolab.catalog.bugs.all import BUGS
from hvolab.explore.budget import Budget
from hvolab.explore.explorer import explore
from hvolab.explore.reduce.dpor import Reduced
from hvolab.explore.search.interface import Freedom
from hvolab.judge.known import known
from hvolab.judge.verdict import Verdict
from hvolab.subject.axes import BUILT_IN
from hvolab.subject.names import UnknownName
from hvolab.subject.outcome import Completed, Run
from hvolab.subject.run import run
from hvolab.subject.scenario import Bug, Group, Scenario, Setup, with_deviation
from hvolab.subject.script import Script, ScriptPicker, ordering
from hvolab.subject.script_text import parse_script
from kernel_model.flush.broken import SKIPS_LAST_CPU
from kernel_model.variants.catalog import VARIANTS
from kernel_model.variants.named import UPSTREAM_HVO, Effect

ALL = frozenset({Freedom.SCHEDULE, Freedom.IRQ, Freedom.TLB})
PAIRS = [(chosen, bug) for chosen in SCENARIOS for bug in chosen.bugs]
IDS = [f"{chosen.name}-{bug.deviation.name}" for chosen, bug in PAIRS]
# A run of it takes seconds, and the search many runs: its script is what shows it.
SEARCHED = [pair for pair in PAIRS if pair[0].name != "rollback-second"]


def built(chosen: Scenario) -> Setup:
    return chosen.build(max(2, chosen.cpus_min))


def followed(setup: Setup, script: Script) -> Run:
    return run(setup, lambda system: ScriptPicker(script, system.machine))


def wrong(done: Run) -> set[Verdict]:
    return {
        finding.verdict
        for finding in done.findings
        if finding.verdict.is_violation or finding.verdict is Verdict.MODEL_ERROR
    }


@pytest.mark.parametrize(("chosen", "bug"), PAIRS, ids=IDS)
def test_the_script_shows_the_bug(chosen: Scenario, bug: Bug) -> None:
    assert bug.verdict in wrong(followed(with_deviation(built(chosen), bug.deviation), bug.script))


@pytest.mark.parametrize(("chosen", "bug"), PAIRS, ids=IDS)
def test_upstream_is_not_wrong_in_the_order_of_the_bug(chosen: Scenario, bug: Bug) -> None:
    """Every constraint is met: an order that upstream makes impossible is written so that it says so."""
    done = followed(built(chosen), ordering(bug.script))
    unknown = [finding for finding in done.findings if known(chosen.name, finding) is None]
    assert [finding.cause for finding in unknown if finding.verdict.is_violation] == []
    assert isinstance(done.outcome, Completed)


@pytest.mark.slow
@pytest.mark.parametrize(("chosen", "bug"), SEARCHED, ids=lambda one: getattr(one, "name", ""))
def test_the_bug_is_found_from_the_actors_alone(chosen: Scenario, bug: Bug) -> None:
    setup = with_deviation(replace(built(chosen), script=()), bug.deviation)
    done = explore(setup, Reduced(), ALL, Budget(seconds=120))
    assert bug.verdict in {one.finding.verdict for one in done.found}


QUICK = [
    row for row in PAIRS if row[0].name in ("flush-head-reader", "split-writer", "hotplugged", "key-optimize")
]


@pytest.mark.parametrize(("chosen", "bug"), QUICK, ids=lambda one: getattr(one, "name", ""))
def test_some_bugs_are_found_quickly(chosen: Scenario, bug: Bug) -> None:
    setup = with_deviation(replace(built(chosen), script=()), bug.deviation)
    done = explore(setup, Reduced(), ALL, Budget(runs=60))
    assert bug.verdict in {one.finding.verdict for one in done.found}


@pytest.mark.parametrize("chosen", BUGS, ids=lambda one: one.name)
def test_a_scenario_of_bugs_has_one_and_its_own_order_is_upstreams(chosen: Scenario) -> None:
    assert chosen.bugs
    assert chosen.group in (Group.FLUSH, Group.KERNEL, Group.HARDWARE)
    assert chosen.verdicts == frozenset()
    assert built(chosen).boot.variant is UPSTREAM_HVO


def test_every_violation_has_a_scenario() -> None:
    shown = {bug.deviation.name for _, bug in PAIRS}
    assert {one.name for one in VARIANTS if one.effect is Effect.VIOLATION} - shown == {"upstream"}


@pytest.mark.parametrize("one", VARIANTS, ids=lambda one: one.name)
def test_a_variant_is_found_by_its_name_and_says_what_it_is(one) -> None:
    assert BUILT_IN.variant(one.name) is one
    assert one.summary
    if one.history is not None:
        assert len(one.history.commit) == 12
        assert one.history.seen


def test_an_unknown_variant_says_where_they_are_listed() -> None:
    with pytest.raises(
        UnknownName, match=r"^there is no variant 'typo'; `hvolab list variants` has all \d\d$"
    ):
        BUILT_IN.variant("typo")


def test_scripts_survive_their_text() -> None:
    assert PAIRS
    for _, bug in PAIRS:
        assert parse_script("\n".join(map(str, bug.script))) == bug.script


def test_the_cpus_of_a_bug_are_lazy_unless_it_needs_its_own() -> None:
    assert PAIRS
    for chosen, bug in PAIRS:
        model = with_deviation(built(chosen), bug.deviation).boot.model
        assert model.name.startswith(LAZY.name)
        assert model is bug.deviation or not isinstance(bug.deviation, CpuModel)


ON_MORE = [pair for pair in PAIRS if not pair[0].name.startswith("rollback") and pair[0].cpus_min <= 3]


@pytest.mark.parametrize("cpus", [3, 16, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("chosen", "bug"), ON_MORE, ids=lambda one: getattr(one, "name", ""))
def test_a_script_that_shows_a_bug_shows_it_on_more_cpus(chosen: Scenario, bug: Bug, cpus: int) -> None:
    """It once could not be met there: CPUs that nobody runs on kept their interrupts waiting."""
    setup = with_deviation(chosen.build(cpus), bug.deviation)
    done = run(setup, lambda system: ScriptPicker(bug.script, system.machine))
    found = {finding.verdict for finding in done.findings if finding.verdict.is_violation}
    # The CPU left out is then one that nobody runs on: that it may have cached anything is found at rest.
    elsewhere = {Verdict.KERNEL} if bug.deviation is SKIPS_LAST_CPU else set()
    assert found & {bug.verdict, *elsewhere}
