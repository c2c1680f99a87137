"""`hvolab demo`: five stories and a table on a screen and a half; or scenarios with everything told."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module

import pytest
from command_line import Printed, hvolab

from hvolab.catalog import SCENARIOS, scenario
from hvolab.command.stories.five import NotAsExpected
from hvolab.subject.scenario import Scenario

STORIES = [
    "1  A remap.",
    "2  A stale entry, read legally.",
    "3  A missed flush.",
    "4  A write to a read-only tail.",
    "5  One of Linux's own bugs,",
]
# Of each story, what must have come out of its run.
FACTS = [
    "optimized:  head in pfn 0x4200, 7 tails in pfn 0x4200 ro",
    "29702 frames are free; cpu1 takes the first tail page for a head",
    "page table    pfn 0x4200 ro nx",
    "TLB of cpu1   pfn 0x7f01 rw nx   <- stale",
    "legal: no flush that covers the page has completed yet",
    "violation: missed-flush by cpu1, read_twice: mov rbx, qword ptr [rdi]",
    "by cpu0 in set_pte_at < vmemmap_remap_pte",
    "BUG: unable to handle page fault for address: ffffea0000101028",
    "violation: write-protect",
    "with it: nothing, in all orders that can matter (",
]


def test_the_stories_come_first_and_then_every_scenario_in_less_than_a_hundred_lines() -> None:
    done = hvolab("demo")
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    assert len(lines) < 100
    assert max(map(len, lines)) <= 80
    told = [line for line in lines if line[:1].isdigit()]
    assert [line.startswith(title) for line, title in zip(told, [*STORIES, "60"], strict=True)] == [True] * 6
    for fact in FACTS:
        assert fact in done.out
    table = lines[lines.index(told[-1]) + 1 : -1]
    assert [line.split()[0] for line in table] == [chosen.name for chosen in SCENARIOS]
    marked = {line.split()[0] for line in table if ": " in line and line.split()[1].endswith((":", ","))}
    assert marked == {chosen.name for chosen in SCENARIOS if chosen.verdicts}


def test_one_scenario_is_told_whole() -> None:
    done = hvolab("demo", "missed-cpu")
    assert (done.status, done.err) == (0, "")
    assert "as expected" in done.out
    assert "replay hvolab run missed-cpu" in done.out


@pytest.mark.slow
def test_all_of_them_are_run_when_that_is_asked() -> None:
    done = hvolab("demo", "--all")
    assert (done.status, done.err) == (0, "")
    for chosen in SCENARIOS:
        assert f" {chosen.name}, " in done.out
    assert "each as expected" in done.out


def demo_of(monkeypatch: pytest.MonkeyPatch, *scenarios: Scenario) -> Printed:
    """`hvolab demo --all` of a catalogue with these alone."""
    monkeypatch.setattr(import_module("hvolab.command.demo"), "SCENARIOS", scenarios)
    return hvolab("demo", "--all")


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


def test_a_story_that_does_not_come_about_is_our_own_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_story() -> list[str]:
        raise NotAsExpected("tail-write: no violation: write-protect")

    monkeypatch.setattr(import_module("hvolab.command.demo"), "STORIES", (no_story,))
    done = hvolab("demo")
    assert (done.status, done.out) == (3, "not as expected: tail-write: no violation: write-protect\n")


def test_a_name_and_all_are_too_much() -> None:
    done = hvolab("demo", "missed-cpu", "--all")
    assert (done.status, done.err) == (2, "hvolab: --all is every scenario: leave missed-cpu out\n")
