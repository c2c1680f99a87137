"""Every scenario of the catalogue: what it says of itself, its verdicts, its schedule."""

from __future__ import annotations

import pytest
from catalog_runs import CASES, seen

from emu.events import Faulted, GuestSite, Loaded, Stored
from hvolab.catalog import SCENARIOS, scenario
from hvolab.catalog.pool import POOL
from hvolab.judge.verdict import Verdict
from hvolab.subject.names import UnknownName
from hvolab.subject.outcome import Completed
from hvolab.subject.picker import Replay
from hvolab.subject.run import run
from hvolab.subject.scenario import Group, Scenario
from hvolab.subject.schedule import parse

# --- the catalogue --------------------------------------------------------------------------------------


def test_names_are_unique_and_found() -> None:
    assert len({chosen.name for chosen in SCENARIOS}) == len(SCENARIOS)
    for chosen in SCENARIOS:
        assert scenario(chosen.name) is chosen


def test_an_unknown_name_says_where_they_are_listed() -> None:
    with pytest.raises(UnknownName) as caught:
        scenario("nowhere")
    said = f"there is no scenario 'nowhere'; `hvolab list` has all {len(SCENARIOS)}"
    assert str(caught.value) == said


def test_a_name_with_a_slip_names_those_like_it() -> None:
    with pytest.raises(UnknownName) as caught:
        scenario("lost-updte")
    assert str(caught.value) == "there is no scenario 'lost-updte'; did you mean lost-update?"


@pytest.mark.parametrize("chosen", SCENARIOS, ids=lambda chosen: chosen.name)
def test_a_scenario_says_what_it_asks_expects_and_means(chosen: Scenario) -> None:
    assert chosen.question.endswith("?")
    assert chosen.expected
    assert chosen.means.endswith(".")
    assert {verdict for verdict in chosen.verdicts if not verdict.is_violation} == set()


@pytest.mark.parametrize("chosen", SCENARIOS, ids=lambda chosen: chosen.name)
def test_cpus_min_is_the_fewest_the_actors_fit_on(chosen: Scenario) -> None:
    assert max(actor.cpu for actor in chosen.build(chosen.cpus_min).actors) == chosen.cpus_min - 1


# --- every scenario -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "cpus"), CASES)
def test_the_violations_are_exactly_those_expected(name: str, cpus: int) -> None:
    done = seen(name, cpus).run
    assert isinstance(done.outcome, Completed)
    assert {f.verdict for f in done.findings if f.verdict.is_violation} == scenario(name).verdicts
    assert done.wrong is bool(scenario(name).verdicts)
    assert not done.model_error


@pytest.mark.parametrize(("name", "cpus"), CASES)
def test_every_violation_among_the_uses_is_a_finding_and_nothing_is_found_twice(name: str, cpus: int) -> None:
    done = seen(name, cpus).run
    of_uses = [f for f in done.findings if f.verdict in (Verdict.MISSED_FLUSH, Verdict.USE_AFTER_FREE)]
    wrong = [use for use in done.uses if use.verdict.is_violation]
    assert [(f.verdict, f.where, f.event) for f in of_uses] == [(u.verdict, u.where, u.event) for u in wrong]
    assert len({(f.verdict, f.where) for f in done.findings}) == len(done.findings)


@pytest.mark.parametrize(("name", "cpus"), CASES)
def test_its_schedule_replays_to_the_same_run(name: str, cpus: int) -> None:
    first = seen(name, cpus).run
    again = run(scenario(name).build(cpus), lambda _system: Replay(parse(str(first.schedule))))
    assert again.uses == first.uses
    assert again.findings == first.findings
    assert again.events == first.events
    assert again.outcome == first.outcome
    assert again.schedule == first.schedule


@pytest.mark.parametrize(("name", "cpus"), CASES)
def test_the_events_are_numbered_without_gaps(name: str, cpus: int) -> None:
    done = seen(name, cpus)
    assert [number for number, _ in done.events] == list(range(done.run.events))


TELLING = {
    "remap-batch",
    "stale-read",
    "flush-begun-before",
    "use-after-free",
    "missed-cpu",
    "lost-update",
    "tail-write",
    "spurious-write",
}
"""The scenarios in which something is worth telling of, wrong or not."""


@pytest.mark.parametrize(("name", "cpus"), CASES)
def test_findings_and_uses_point_at_events_of_their_cpu(name: str, cpus: int) -> None:
    done = seen(name, cpus)
    told_of = (*done.run.findings, *done.run.uses)
    assert bool(told_of) is (name in TELLING)
    for told in told_of:
        event = done.events[told.event][1]
        assert event.cpu == told.where.cpu
        if told.where.rip is not None:
            assert isinstance(event, Loaded | Stored | Faulted)
            assert isinstance(event.site, GuestSite)
            assert event.site.rip == told.where.rip


def test_the_groups_are_as_listed() -> None:
    assert {chosen.name: chosen.group for chosen in SCENARIOS} == {
        "remap": Group.REMAP,
        "remap-1g": Group.REMAP,
        "remap-batch": Group.REMAP,
        "stale-read": Group.STALE,
        "flush-begun-before": Group.STALE,
        "use-after-free": Group.STALE,
        "missed-cpu": Group.STALE,
        "lost-update": Group.STALE,
        "tail-write": Group.FAULT,
        "spurious-write": Group.FAULT,
        "optimize-reader": Group.RACE,
        "optimize-compound-head": Group.RACE,
        "optimize-get-page": Group.RACE,
        "freeze-get-page": Group.RACE,
        "unfreeze-get-page": Group.RACE,
        "restore-reader": Group.RACE,
        "optimize-neighbours": Group.RACE,
        "restore-neighbour": Group.RACE,
        "unfreeze-get-page-2025": Group.RACE,
        "freeze-get-page-v6-9": Group.RACE,
        "optimize-kpageflags": Group.RACE,
        "optimize-compaction": Group.RACE,
        "optimize-gup-fast": Group.RACE,
        "nmi-walker": Group.RACE,
        "irqs-off-walker": Group.RACE,
        **{chosen.name: Group.POOL for chosen in POOL},
        "flush-reader": Group.FLUSH,
        "flush-head-reader": Group.FLUSH,
        "flush-sleeper": Group.FLUSH,
        "switching-cpu": Group.FLUSH,
        "unfreeze-before-sweep": Group.FLUSH,
        "pool-up-and-down": Group.KERNEL,
        "frozen-tail": Group.KERNEL,
        "split-neighbours": Group.KERNEL,
        "split-writer": Group.KERNEL,
        "hotplugged": Group.KERNEL,
        "key-optimize": Group.KERNEL,
        "key-restore": Group.KERNEL,
        "error-while-growing": Group.KERNEL,
        "error-while-shrinking": Group.KERNEL,
        "second-error": Group.KERNEL,
        "rollback": Group.KERNEL,
        "rollback-second": Group.KERNEL,
        "restore-out-of-memory": Group.KERNEL,
        "restore-bulk-retry": Group.KERNEL,
        "invlpg-globals": Group.HARDWARE,
        "two-sizes": Group.HARDWARE,
    }
