"""`hvolab run`: what it prints and its exit status, seeds and schedules."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import QUICK, hvolab, schema

from hvolab.catalog import SCENARIOS, scenario
from hvolab.subject.axes import option_of

SCHEDULE_ERRORS = [
    ("", "the schedule is empty"),
    ("v3 0", "a schedule begins with 'v2' (or 'v1'), this one with 'v3'"),
    ("v2 0*2 x", "word 3 of the schedule is not a pick: 'x'"),
    ("v2 256", "word 2 of the schedule is not a pick: '256'"),
    ("v2 @12 0", "word 2 of the schedule is not a fingerprint, @ and 8 digits, 0-9 or a-f: '@12'"),
    ("v1 @1a2b3c4d 0", "word 2 of the schedule is not a pick: '@1a2b3c4d'"),
]
DIVERGING = [
    ("v1", 1, "the schedule ends after 0 picks, but the run goes on"),
    ("v2", 1, "the schedule ends after 0 picks, but the run goes on"),
    ("v2 0*5", 6, "the schedule ends after 5 picks, but the run goes on"),
    ("v2 0 1 7", 3, "pick 3 of the schedule is 7, but the run can run: 0, 1"),
    ("v2 0 i1", 2, "pick 2 of the schedule is i1, but the run can run: 0, 1"),
    ("v1 0 t0/2", 2, "pick 2 of the schedule is t0/2, but the run can run: 0, 1"),
]


@pytest.mark.parametrize(("text", "message"), SCHEDULE_ERRORS)
@pytest.mark.parametrize("form", [(), ("--json",)], ids=["text", "json"])
def test_a_schedule_that_cannot_be_followed(text: str, message: str, form: tuple[str, ...]) -> None:
    for further in ((), ("--past-divergence",)):
        done = hvolab("run", "stale-read", "--schedule", text, *form, *further)
        assert (done.status, done.out, done.err) == (2, "", f"hvolab: {message}\n")


@pytest.mark.parametrize(("text", "pick", "why"), DIVERGING)
@pytest.mark.parametrize("form", [(), ("--json",)], ids=["text", "json"])
def test_a_schedule_of_another_run(text: str, pick: int, why: str, form: tuple[str, ...]) -> None:
    """Bad input, unless the rest of the run is asked for."""
    done = hvolab("run", "stale-read", "--schedule", text, *form)
    assert (done.status, done.err) == (2, f"hvolab: {why}\n")
    done = hvolab("run", "stale-read", "--schedule", text, *form, "--past-divergence")
    assert (done.status, done.err) == (0, f"hvolab: note: diverged at pick {pick}: {why}\n")
    assert done.out != ""


def test_a_schedule_that_goes_on_after_the_run_has_ended() -> None:
    own = hvolab("run", "stale-read", "--json").json()["schedule"]
    done = hvolab("run", "stale-read", "--schedule", f"{own} 0", "--json")
    assert done.status == 2
    words = done.err.split()
    assert done.err.startswith("hvolab: the run ended after ")
    assert int(words[-2]) == int(words[5]) + 1
    assert done.out == ""
    past = hvolab("run", "stale-read", "--schedule", f"{own} 0", "--json", "--past-divergence")
    assert past.status == 0
    assert past.err == f"hvolab: note: diverged at pick {words[-2]}: {done.err.removeprefix('hvolab: ')}"
    assert past.json()["schedule"] == own


@pytest.mark.parametrize(
    ("name", "option", "deviation", "verdict"),
    [
        (chosen.name, *option_of(bug.deviation), bug.verdict.value)
        for chosen in SCENARIOS
        for bug in chosen.bugs
        if chosen.name in QUICK
    ],
)
def test_run_of_a_scenario_with_its_bug_exits_with_1(
    name: str, option: str, deviation: str, verdict: str
) -> None:
    done = hvolab("run", name, option, deviation, "--json")
    assert (done.status, done.err) == (1, "")
    assert verdict in {finding["verdict"] for finding in done.json()["findings"]}


@pytest.mark.parametrize("name", QUICK)
def test_run_json_is_what_the_schema_says(name: str) -> None:
    chosen = scenario(name)
    done = hvolab("run", name, "--json")
    assert (done.status, done.err) == (1 if chosen.verdicts else 0, "")
    document = done.json()
    schema("run").validate(document)
    assert (document["scenario"], document["outcome"]) == (name, "completed")
    assert document["cpus"] == max(2, chosen.cpus_min)
    found = {finding["verdict"] for finding in document["findings"]}
    assert {v for v in found if v.startswith("violation")} == {v.value for v in chosen.verdicts}


@pytest.mark.parametrize("name", QUICK)
def test_run_exits_with_1_where_a_violation_was_found(name: str) -> None:
    done = hvolab("run", name)
    assert (done.status, done.err) == (1 if scenario(name).verdicts else 0, "")
    assert "as expected" in done.out


@pytest.mark.slow
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_remap_1g_exits_with_0(form: tuple[str, ...]) -> None:
    done = hvolab("run", "remap-1g", "--cpus", "1", *form)
    assert (done.status, done.err) == (0, "")
    if form:
        schema("run").validate(done.json())
    else:
        assert "4095 pages are saved" in " ".join(done.out.split())


def test_a_seed_replaces_the_script() -> None:
    own = hvolab("run", "stale-read", "--json").json()["schedule"]
    seeded = [
        hvolab("run", "stale-read", "--json", "--seed", str(seed)).json()["schedule"] for seed in (1, 1, 2)
    ]
    assert seeded[0] == seeded[1]
    assert len({own, *seeded}) == 3


def test_a_seed_takes_the_turn_from_a_cpu_in_the_middle_of_its_work() -> None:
    """The change points are spread over the whole run. Priorities alone give no more than 5 orders here."""
    schedules = {
        hvolab("run", "stale-read", "--json", "--seed", str(seed)).json()["schedule"] for seed in range(24)
    }
    assert len(schedules) > 8


def test_a_run_that_is_refused_leaves_no_dump(tmp_path: Path) -> None:
    path = tmp_path / "never.json"
    assert hvolab("run", "stale-read", "--schedule", "v2 0", "--dump", path).status == 2
    assert not path.exists()
