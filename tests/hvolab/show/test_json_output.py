"""What `--json` prints, and that its schemas are strict: a document that is wrong in any way is refused."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from large_runs import LARGE_RUNS

from hvolab.catalog import SCENARIOS, scenario
from hvolab.catalog.listing import listing
from hvolab.judge.verdict import Finding, Use, Verdict, Where
from hvolab.show.json_output import SCHEMA, run_json
from hvolab.show.report import Invocation
from hvolab.subject.outcome import Deadlocked, OutOfSteps, Run
from hvolab.subject.run import run
from hvolab.subject.schedule import Schedule, parse
from hvolab.subject.script import ScriptPicker

ROOT = Path(__file__).resolve().parents[3]
SCHEMAS = ROOT / "hvolab" / "schema"
HEXADECIMAL = {"va", "pfn", "current_pfn", "rip", "cr2"}

Change = Callable[[dict[str, Any]], None]


def schema(name: str) -> jsonschema.Draft202012Validator:
    document = json.loads((SCHEMAS / f"{name}.json").read_text(encoding="utf-8"))
    return jsonschema.Draft202012Validator(document)


@cache
def own_run(name: str) -> Run:
    setup = scenario(name).build(3)
    return run(setup, lambda system: ScriptPicker(setup.script, system.machine))


def document_of(name: str, cpus: int = 3) -> dict[str, Any]:
    """As it is printed and read back."""
    document = run_json(Invocation(scenario(name), cpus), own_run(name))
    read: dict[str, Any] = json.loads(json.dumps(document))
    return read


def replaced(done: Run, **changes: Any) -> Run:
    fields = ("schedule", "outcome", "uses", "findings", "events", "system", "sight")
    return Run(**{name: changes.get(name, getattr(done, name)) for name in fields})


# --- the schemas ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(SCHEMAS.glob("*.json")), ids=lambda path: path.stem)
def test_a_schema_is_one_of_draft_2020_12(path: Path) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(document)


def objects_in(part: object) -> list[dict[str, Any]]:
    """Every sub-schema that describes an object."""
    if isinstance(part, list):
        return [found for item in part for found in objects_in(item)]
    if not isinstance(part, dict):
        return []
    own = [part] if part.get("type") == "object" else []
    return own + [found for item in part.values() for found in objects_in(item)]


@pytest.mark.parametrize("name", ["list", "run"])
def test_every_object_of_a_schema_is_closed_and_complete(name: str) -> None:
    document = json.loads((SCHEMAS / f"{name}.json").read_text(encoding="utf-8"))
    found = objects_in(document)
    assert found
    for part in found:
        assert part["additionalProperties"] is False
        assert sorted(part["required"]) == sorted(part["properties"])


def test_the_schemas_know_every_verdict_there_is() -> None:
    """Each verdict is one of a use or one of a finding; a new one must be added to the schema."""
    document = json.loads((SCHEMAS / "run.json").read_text(encoding="utf-8"))
    of_uses = set(document["$defs"]["use"]["properties"]["verdict"]["enum"])
    of_findings = set(document["$defs"]["finding"]["properties"]["verdict"]["enum"])
    assert of_uses | of_findings == {verdict.value for verdict in Verdict}
    assert {v for v in of_findings if v.startswith("violation")} == {
        v.value for v in Verdict if v.is_violation
    }


def test_the_documentation_names_every_field() -> None:
    text = (ROOT / "docs" / "json.md").read_text(encoding="utf-8")
    for name in ("list", "run"):
        document = json.loads((SCHEMAS / f"{name}.json").read_text(encoding="utf-8"))
        named = [field for part in objects_in(document) for field in part["properties"]]
        assert named
        assert [field for field in named if f"`{field}`" not in text and f".{field}`" not in text] == []


# --- what is printed ------------------------------------------------------------------------------------


def test_list_json_is_what_the_schema_says() -> None:
    schema("list").validate(listing())
    assert listing()["schema"] == SCHEMA == 1


@pytest.mark.parametrize(
    "name",
    [chosen.name for chosen in SCENARIOS if chosen.name not in LARGE_RUNS],
)
def test_run_json_is_what_the_schema_says(name: str) -> None:
    document = document_of(name)
    schema("run").validate(document)
    done = own_run(name)
    assert parse(document["schedule"]) == done.schedule
    assert [use["verdict"] for use in document["uses"]] == [use.verdict.value for use in done.uses]
    assert [finding["event"] for finding in document["findings"]] == [
        finding.event for finding in done.findings
    ]


def test_tail_write_in_full() -> None:
    (finding,) = document_of("tail-write")["findings"]
    assert {key: value for key, value in finding.items() if key not in ("why", "log", "event", "replay")} == {
        "verdict": "violation: write-protect",
        "also": [],
        "cpu": 1,
        "va": "0xffffea0000101028",
        "cr2": "0xffffea0000101028",
        "error_code": 3,
        "pfn": "0x4200",
        "code": "write_tail",
        "instruction": "mov qword ptr [rdi], rsi",
        "rip": "0xffffffff81003000",
        "cause": "a write to a vmemmap page that the kernel maps read-only",
        "guilty": None,
    }


def test_missed_cpu_lists_what_else_holds() -> None:
    (finding,) = document_of("missed-cpu")["findings"]
    assert finding["verdict"] == "violation: missed-flush"
    assert finding["also"] == ["violation: use-after-free"]
    assert finding["guilty"] == "cpu0 in set_pte_at < vmemmap_remap_pte < vmemmap_pte_entry"
    assert (finding["cr2"], finding["error_code"]) == (None, None)


def test_the_policy_and_the_variant_are_named() -> None:
    named = {
        name: (document_of(name)["policy"], document_of(name)["variant"]) for name in ("missed-cpu", "remap")
    }
    assert named == {"missed-cpu": ("skips-last-cpu", "upstream"), "remap": ("upstream", "upstream")}
    assert document_of("use-after-free")["variant"] == "free-before-flush"


@pytest.mark.parametrize("name", ["missed-cpu", "stale-read", "spurious-write"])
def test_no_number_loses_bits_in_a_reader_of_doubles(name: str) -> None:
    """Addresses and frame numbers are text; integers are counts, and small."""

    def check(key: str, value: object) -> None:
        if isinstance(value, dict):
            for inner, item in value.items():
                check(inner, item)
        elif isinstance(value, list):
            for item in value:
                check(key, item)
        elif isinstance(value, int):
            assert abs(value) < 1 << 53, key
            assert key not in HEXADECIMAL
        elif key in HEXADECIMAL and value is not None:
            assert isinstance(value, str)
            assert hex(int(value, 16)) == value

    check("", document_of(name))


@pytest.mark.parametrize(
    "outcome", [Deadlocked(((0, "zone.lock = 0"), (3, "a word it spins on"))), OutOfSteps(500)]
)
def test_other_outcomes_are_what_the_schema_says(outcome: Deadlocked | OutOfSteps) -> None:
    document = run_json(Invocation(scenario("remap"), 3), replaced(own_run("remap"), outcome=outcome))
    assert document["outcome"] == str(outcome)
    schema("run").validate(document)


def test_a_run_without_picks_has_a_schedule() -> None:
    done = replaced(own_run("remap"), schedule=Schedule(()))
    document = run_json(Invocation(scenario("remap"), 3), done)
    assert document["schedule"] == "v2"
    schema("run").validate(document)


@pytest.mark.parametrize("verdict", list(Verdict))
def test_every_verdict_can_be_printed(verdict: Verdict) -> None:
    done = own_run("missed-cpu")
    where = Where(255, 0, "", None, None)
    finding = Finding(verdict, (), where, 0, "because", ())
    use = Use(verdict, (), Where(0, 0xFFFF_FFFF_FFFF_FFFF, "f", None, None), 1, "write", 0, None, ("why",))
    schemas = json.loads((SCHEMAS / "run.json").read_text(encoding="utf-8"))["$defs"]
    as_use = verdict.value in schemas["use"]["properties"]["verdict"]["enum"]
    as_finding = verdict.value in schemas["finding"]["properties"]["verdict"]["enum"]
    made = replaced(done, uses=(use,) if as_use else (), findings=(finding,) if as_finding else ())
    schema("run").validate(run_json(Invocation(scenario("missed-cpu"), 3), made))


def test_the_replay_line_repeats_the_options_quoted_for_a_shell() -> None:
    done = own_run("tail-write")
    document = run_json(Invocation(scenario("tail-write"), 3, ("--program", "it's mine.S")), done)
    schema("run").validate(document)
    (finding,) = json.loads(json.dumps(document))["findings"]
    words = ["hvolab", "run", "tail-write", "--cpus", "3", "--program", "it's mine.S", "--schedule"]
    assert shlex.split(finding["replay"]) == [*words, str(done.schedule)]


# --- what is refused ------------------------------------------------------------------------------------


def finding_of(document: dict[str, Any]) -> dict[str, Any]:
    first: dict[str, Any] = document["findings"][0]
    return first


def use_of(document: dict[str, Any]) -> dict[str, Any]:
    first: dict[str, Any] = document["uses"][0]
    return first


RUN_CHANGES: dict[str, Change] = {
    "a field more": lambda d: d.update(more=1),
    "a field less": lambda d: d.pop("outcome"),
    "another schema": lambda d: d.update(schema=2),
    "no CPUs": lambda d: d.update(cpus=0),
    "too many CPUs": lambda d: d.update(cpus=257),
    "CPUs as text": lambda d: d.update(cpus="2"),
    "no schedule": lambda d: d.update(schedule=""),
    "another format of schedule": lambda d: d.update(schedule="v1 0"),
    "a word that is no pick": lambda d: d.update(schedule="v2 x"),
    "a fingerprint that is none": lambda d: d.update(schedule="v2 @12 0"),
    "a fingerprint later": lambda d: d.update(schedule="v2 0 @1a2b3c4d"),
    "another outcome": lambda d: d.update(outcome="done"),
    "a finding more to say": lambda d: finding_of(d).update(more=1),
    "a finding without a verdict": lambda d: finding_of(d).pop("verdict"),
    "an unknown verdict": lambda d: finding_of(d).update(verdict="violation: unheard-of"),
    "a legal finding": lambda d: finding_of(d).update(verdict="legal"),
    "an address as a number": lambda d: finding_of(d).update(va=4096),
    "an address in capitals": lambda d: finding_of(d).update(va="0xFFFF"),
    "an address with leading zeros": lambda d: finding_of(d).update(va="0x00ff"),
    "an address without 0x": lambda d: finding_of(d).update(va="ffff"),
    "an address of 65 bits": lambda d: finding_of(d).update(va="0x10000000000000000"),
    "a frame that is empty text": lambda d: finding_of(d).update(pfn=""),
    "an error code without CR2": lambda d: finding_of(d).update(error_code=3),
    "CR2 without an error code": lambda d: finding_of(d).update(cr2="0x0"),
    "an error code of 6 bits": lambda d: finding_of(d).update(cr2="0x0", error_code=32),
    "an instruction without rip": lambda d: finding_of(d).update(rip=None),
    "rip without an instruction": lambda d: finding_of(d).update(instruction=None),
    "the same twice in also": lambda d: finding_of(d).update(also=["violation: use-after-free"] * 2),
    "legal in also": lambda d: finding_of(d).update(also=["legal"]),
    "a negative event": lambda d: finding_of(d).update(event=-1),
    "CPU 256": lambda d: finding_of(d).update(cpu=256),
    "another command to replay": lambda d: finding_of(d).update(replay="rm -rf / --schedule 'v1 0'"),
    "an empty reason": lambda d: finding_of(d).update(why=[""]),
    "a use more to say": lambda d: use_of(d).update(more=1),
    "a use without why": lambda d: use_of(d).update(why=[]),
    "a use never seen": lambda d: use_of(d).update(times=0),
    "a use that fetches": lambda d: use_of(d).update(access="fetch"),
    "a use of no frame": lambda d: use_of(d).update(pfn=None),
    "a use that is spurious": lambda d: use_of(d).update(verdict="spurious"),
}


@pytest.mark.parametrize("change", RUN_CHANGES)
def test_a_run_that_is_wrong_is_refused(change: str) -> None:
    document = deepcopy(document_of("missed-cpu"))
    schema("run").validate(document)
    RUN_CHANGES[change](document)
    with pytest.raises(jsonschema.ValidationError):
        schema("run").validate(document)


LIST_CHANGES: dict[str, Change] = {
    "a field more": lambda d: d.update(more=1),
    "no scenarios": lambda d: d.update(scenarios=[]),
    "a scenario twice": lambda d: d["scenarios"].append(d["scenarios"][0]),
    "a scenario without a question": lambda d: d["scenarios"][0].pop("question"),
    "a scenario more to say": lambda d: d["scenarios"][0].update(more=1),
    "a name in capitals": lambda d: d["scenarios"][0].update(name="Remap"),
    "an unknown group": lambda d: d["scenarios"][0].update(group="other"),
    "a question of two lines": lambda d: d["scenarios"][0].update(question="a\nb"),
    "no CPU": lambda d: d["scenarios"][0].update(cpus_min=0),
    "variants that are no names": lambda d: d["scenarios"][0].update(variants=[1]),
}


@pytest.mark.parametrize("change", LIST_CHANGES)
def test_a_list_that_is_wrong_is_refused(change: str) -> None:
    document = json.loads(json.dumps(listing()))
    LIST_CHANGES[change](document)
    with pytest.raises(jsonschema.ValidationError):
        schema("list").validate(document)
