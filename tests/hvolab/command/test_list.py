"""`hvolab list`: one line each, whatever the screen, and nothing of the machine loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import hvolab, schema

from hvolab.catalog import SCENARIOS
from hvolab.catalog.listing import listing, text
from hvolab.subject.axes import CPU_MODELS, POLICIES, VARIANTS
from hvolab.subject.scenario import Group

INDEX = Path(__file__).resolve().parents[3] / "hvolab" / "catalog" / "index.json"


def test_the_index_is_what_the_catalogue_says() -> None:
    """Where it is not: python -m hvolab.catalog.listing > hvolab/catalog/index.json"""
    assert INDEX.read_text(encoding="utf-8") == text()


def test_list_has_a_line_for_every_scenario_that_fits_the_screen() -> None:
    done = hvolab("list")
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    assert len(lines) == len(SCENARIOS) + len(Group) - 1
    assert max(map(len, lines)) <= 80
    names = [line.split()[0] for line in lines if line.startswith("  ")]
    assert sorted(names) == sorted(chosen.name for chosen in SCENARIOS)


def test_what_a_run_finds_is_marked() -> None:
    (line,) = [line for line in hvolab("list").out.splitlines() if line.split()[0] == "missed-cpu"]
    assert line.split()[1] == "[missed-flush]"


@pytest.mark.parametrize(
    ("kind", "names"),
    [("variants", VARIANTS.names), ("policies", POLICIES.names), ("models", CPU_MODELS.names)],
)
def test_each_axis_can_be_listed(kind: str, names: tuple[str, ...]) -> None:
    lines = hvolab("list", kind).out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == list(names)
    assert all(not line.endswith(" -") for line in lines), "each says what it is"


def test_a_list_can_be_narrowed() -> None:
    out = hvolab("list", "--group", "stale").out
    assert [line.split()[0] for line in out.splitlines()[1:]] == [
        chosen.name for chosen in SCENARIOS if chosen.group is Group.STALE
    ]
    (line,) = hvolab("list", "variants", "--find", "bd225530a4c7").out.splitlines()[1:]
    assert line.split()[:2] == ["no-rcu-wait", "[bd225530a4c7]"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("list", "varaints"), "'varaints' is not one of 'scenarios', 'variants', 'policies', 'models'."),
        (("list", "models", "--group", "stale"), "--group is for scenarios"),
        (("list", "--find", "zzz"), "there is nothing among the scenarios with 'zzz' in it"),
    ],
)
def test_a_slip_is_one_line(words: tuple[str, ...], said: str) -> None:
    done = hvolab(*words)
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert said in done.err


def test_list_json_is_what_the_schema_says() -> None:
    done = hvolab("list", "--json")
    assert (done.status, done.err) == (0, "")
    schema("list").validate(done.json())
    assert done.json() == json.loads(json.dumps(listing()))


@pytest.mark.parametrize("words", [("--help",), ("--version",), ("list",), ("list", "--help")], ids=" ".join)
def test_what_tells_names_loads_no_machine(words: tuple[str, ...]) -> None:
    program = (
        "import sys\nfrom hvolab.command.main import main\nsys.argv = ['hvolab', *sys.argv[1:]]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & "
        "{'emu', 'kernel_model', 'firmware', 'unicorn', 'capstone', 'keystone', 'rich'}))"
    )
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
