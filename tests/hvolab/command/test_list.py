"""`hvolab list`."""

from __future__ import annotations

from command_line import hvolab, schema

from hvolab.catalog import SCENARIOS

# --- list and run ---------------------------------------------------------------------------------------


def test_list_names_every_scenario_and_its_question() -> None:
    done = hvolab("list")
    assert (done.status, done.err) == (0, "")
    text = " ".join(done.out.split())
    for chosen in SCENARIOS:
        assert chosen.name in text
        assert chosen.question.split(",")[0][:40] in text


def test_list_json_is_what_the_schema_says() -> None:
    done = hvolab("list", "--json")
    assert (done.status, done.err) == (0, "")
    schema("list").validate(done.json())
    assert [entry["name"] for entry in done.json()["scenarios"]] == [chosen.name for chosen in SCENARIOS]
    assert [entry["cpus_min"] for entry in done.json()["scenarios"]] == [c.cpus_min for c in SCENARIOS]
