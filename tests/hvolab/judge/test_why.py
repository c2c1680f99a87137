"""`hvolab why`: each part of an explanation, against what the scenario is known to do."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.resources import files

import jsonschema
import pytest

from hvolab.catalog import scenario
from hvolab.judge.verdict import RULES, Verdict
from hvolab.judge.why import Explanation, explain
from hvolab.subject.run import run
from hvolab.subject.script import ScriptPicker


def explained(name: str) -> list[Explanation]:
    setup = scenario(name).build(2)
    done = run(setup, lambda system: ScriptPicker(setup.script, system.machine))
    return [explain(finding, done.sight) for finding in done.findings]


def test_every_verdict_has_a_rule() -> None:
    assert set(RULES) == set(Verdict)
    assert all(rule.startswith("row ") for rule in RULES.values())


def test_a_missed_flush_names_the_store_and_the_cpu_that_was_left_out() -> None:
    (one,) = explained("missed-cpu")
    assert one.told.verdict is Verdict.MISSED_FLUSH
    assert one.rule == RULES[Verdict.MISSED_FLUSH]
    assert one.version == "0xffffea0000101000 4K -> pfn 0x7f01 rw nx G D"
    assert one.window is None
    assert one.ended_by is not None
    assert one.ended_by.cpu == 0
    assert one.ended_by.where.startswith("cpu0 in set_pte_at < vmemmap_remap_pte")
    assert [flush.covers for flush in one.flushes] == [False, True]
    split, remap = one.flushes
    assert split.because == "it began before the store"
    assert remap.begun > one.ended_by.event
    assert "left this CPU out, and was complete from event" in remap.because


def test_a_use_after_free_was_covered_by_nothing_complete() -> None:
    (one,) = explained("use-after-free")
    assert one.told.verdict is Verdict.USE_AFTER_FREE
    assert [flush.covers for flush in one.flushes] == [False]
    # The flush of the split reached cpu1: what it uses it has cached since.
    assert one.window is not None
    assert one.ended_by is not None
    assert one.window < one.ended_by.event < one.told.event


def test_a_write_fault_has_a_rule_and_no_store_behind_it_when_a_walk_denied_it() -> None:
    (one,) = explained("tail-write")
    assert one.told.verdict is Verdict.WRITE_PROTECT
    assert one.version is None
    assert one.flushes == ()


def hvolab(*words: str) -> subprocess.CompletedProcess[str]:
    program = "from hvolab.command.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("name", ["missed-cpu", "use-after-free", "lost-update", "tail-write", "stale-read"])
def test_the_json_is_what_the_schema_says(name: str) -> None:
    done = hvolab("why", name, "--json")
    assert done.returncode == int(bool(scenario(name).verdicts))
    schema = json.loads((files("hvolab") / "schema" / "why.json").read_text(encoding="utf-8"))
    jsonschema.validate(json.loads(done.stdout), schema)


def test_the_command_tells_version_store_flushes_and_rule() -> None:
    done = hvolab("why", "missed-cpu")
    assert done.returncode == 1
    labels = [line.split()[0] for line in done.stdout.splitlines() if line]
    assert labels[-6:] == ["version", "window", "store", "flush", "flush", "rule"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing"], "there is no scenario 'nothing'"),
        (["missed-cpu", "--schedule", "v9 0"], "v9"),
        (["missed-cpu", "--schedule", "v2 i1"], "pick 1 of the schedule is i1"),
        (["missed-cpu", "--cpus", "1"], "missed-cpu has actors on 2 CPUs, not 1: --cpus"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(words: list[str], message: str) -> None:
    done = hvolab("why", *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
