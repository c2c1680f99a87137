"""`hvolab explore --first`, and what is told while it goes on and at the end."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import hvolab
from user_files import PATCH, written

from hvolab.catalog import SCENARIOS
from hvolab.command.exploring.plan import ExplorePlan, carry_out
from hvolab.explore.audience import Audience
from hvolab.explore.coverage import INTERRUPTED
from hvolab.explore.explorer import Exploration
from hvolab.judge.known import KNOWN
from hvolab.subject.axes import option_of
from hvolab.subject.scenario import Setup

WRONG = [(chosen.name, *option_of(bug.deviation)) for chosen in SCENARIOS for bug in chosen.bugs]
WRONG += [(chosen.name,) for chosen in SCENARIOS if chosen.verdicts]
WRONG += [(scenario,) for scenario in sorted({shown.scenario for one in KNOWN for shown in one.shown})]
"""Every finding of the catalogue: the scenario, and the option that makes it go wrong, if it needs one."""

LONG = "rollback-second"  # not found within minutes
QUICK_CPUS = 16
QUICK = ("flush-reader", "frozen-tail", "flush-sleeper", "pool-up-and-down", "invlpg-globals")


EVERY = [
    pytest.param(
        words,
        cpus,
        id=f"{words[0]}-{words[-1]}-{cpus}",
        marks=() if words[0] in QUICK and cpus == QUICK_CPUS else pytest.mark.slow,
    )
    for words in WRONG
    for cpus in (2, 3, 4, 16)
]


def panels(text: str) -> list[tuple[str, list[str]]]:
    """(verdict, the words of its replay line) of each panel."""
    lines = re.findall(r"^╭─ ([a-z: -]+) ─|^replay (hvolab run .* --schedule .*)$", text, re.MULTILINE)
    verdicts = [verdict for verdict, _ in lines if verdict]
    replays = [shlex.split(replay) for _, replay in lines if replay]
    return list(zip(verdicts, replays, strict=True))


@pytest.mark.parametrize(("words", "cpus"), [one for one in EVERY if LONG not in one.id])
def test_what_explore_prints_reproduces_the_finding(words: tuple[str, ...], cpus: int) -> None:
    done = hvolab("explore", *words, "--cpus", str(cpus), "--first")
    assert done.status == 1
    assert "stopped by the first finding" in " ".join(done.out.split())
    found = panels(done.out)
    assert any(verdict.startswith("violation: ") for verdict, _ in found)
    for verdict, replay in found:
        assert set(words) < set(replay)
        again = hvolab(*replay[1:])
        assert (again.status, again.err) == (int(verdict.startswith("violation: ")), "")
        assert f"╭─ {verdict} ─" in again.out


@pytest.mark.parametrize(("words", "cpus"), EVERY)
def test_what_run_prints_reproduces_what_it_found(words: tuple[str, ...], cpus: int) -> None:
    """Where the scenario's own order shows nothing, the run without a finding is reproduced."""
    first = hvolab("run", *words, "--cpus", str(cpus), "--json")
    found = first.json()
    assert (first.status == 1) is bool(found["findings"])
    for replay in {found["replay"], *(one["replay"] for one in found["findings"])}:
        again = hvolab(*shlex.split(replay)[1:], "--json")
        assert (again.status, again.json(), again.err) == (first.status, found, "")


def test_findings_of_one_guilty_store_are_one_panel_and_each_is_told_when_it_is_found(tmp_path: Path) -> None:
    path = written(tmp_path, PATCH)
    done = hvolab("explore", "stale-read", "--load", path, "--no-shrink")
    assert done.status == 1
    assert re.findall(r"╭─ (violation: [a-z-]+)", done.out) == ["violation: missed-flush"]
    also = re.findall(r"^also   (violation: [a-z-]+) in run", done.out, re.MULTILINE)
    assert set(also) == {"violation: missed-flush", "violation: use-after-free", "violation: kernel"}
    told = [line for line in done.err.splitlines() if line.startswith("found in run ")]
    assert len(told) == 3
    assert all(re.match(r"found in run \d+, after \d+\.\d s: violation: ", line) for line in told)


def test_all_scenarios_that_meet_a_patch_are_compared_with_the_port_without_it(tmp_path: Path) -> None:
    path, junit = written(tmp_path, PATCH), tmp_path / "junit.xml"
    only = "tail-write,stale-read,pool-up-and-down"
    done = hvolab(
        "explore", "--all", "--load", f"{path}:Patch", "--only", only, "--seconds", "20", "--junit", junit
    )
    assert done.status == 1
    assert "3 scenarios meet" in done.out
    table = {
        line.split()[0]: line
        for line in done.out.splitlines()
        if line.split()[:1] and line.split()[0] in only
    }
    assert set(table) == {"tail-write", "stale-read", "pool-up-and-down"}
    assert "missed-flush" not in table["pool-up-and-down"]
    assert 'tests="3"' in junit.read_text()
    assert 'classname="hvolab" name="stale-read"' in junit.read_text()


def test_a_patch_that_changes_nothing_finds_nothing_new(tmp_path: Path) -> None:
    same = """
    from hvolab.api import HugetlbVmemmap

    class Same(HugetlbVmemmap):
        async def vmemmap_remap_range(self, start, end, walk):
            return await super().vmemmap_remap_range(start, end, walk)
    """
    done = hvolab(
        "explore", "--all", "--load", written(tmp_path, same), "--only", "tail-write", "--seconds", "20"
    )
    assert done.status == 0
    assert "write-protect" in done.out, "what the unmodified port has too is told"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--all",), "--all goes with --load: it asks what your file changes"),
        (
            ("--all", "stale-read"),
            "--all explores every scenario: leave stale-read out, or name it with --only",
        ),
        (("stale-read", "--only", "x"), "--only and --junit go with --all"),
        (("--all", "--load", "{path}", "--only", "nope"), "there is no scenario 'nope'"),
    ],
)
def test_options_that_do_not_go_together_are_one_line(
    tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    path = written(tmp_path, PATCH)
    done = hvolab("explore", *(word.format(path=path) for word in words))
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert said in done.err


def test_an_interrupt_ends_all_scenarios_and_not_the_one_under_way_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Setup] = []

    def interrupted(setup: Setup, plan: ExplorePlan, audience: Audience) -> Exploration:
        made.append(setup)
        done = carry_out(setup, plan, audience)
        return replace(done, coverage=replace(done.coverage, stopped_by=INTERRUPTED))

    monkeypatch.setattr("hvolab.command.exploring.every.carry_out", interrupted)
    path = written(tmp_path, PATCH)
    done = hvolab("explore", "--all", "--load", path, "--only", "tail-write,stale-read", "--seconds", "5")
    assert (done.status, len(made)) == (130, 1)
    assert "interrupted: 2 of 2 scenarios are left" in done.out


def test_an_interrupt_while_shrinking_loses_no_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hvolab.command.exploring.telling.shrink", interrupted)
    done = hvolab("explore", "tail-write")
    assert done.status == 1
    assert {verdict for verdict, _ in panels(done.out)} >= {"violation: write-protect"}
