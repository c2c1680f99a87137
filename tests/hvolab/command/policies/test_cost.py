"""`hvolab cost`: what it prints, draws, refuses."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest
from command_line import hvolab

ROOT = Path(__file__).resolve().parents[4]
QUICK = ("cost", "--cpus", "2", "--batch", "1", "--policies", "upstream,invlpgb")
OWN = """
from hvolab.api import *

class Mine(UpstreamFlush):
    async def rely(self, ticket: Ticket) -> None:
        {body}

MINE = NamedPolicy("mine", "", Mine)
"""


def rows(*words: object) -> list[tuple[str, int, int]]:
    document = json.loads(hvolab("cost", *words, "--json").out)
    return [(row["policy"], row["cpus"], row["folios"]) for row in document["rows"]]


def test_json_is_what_the_schema_says() -> None:
    done = hvolab(*QUICK, "--json")
    schema = json.loads((ROOT / "hvolab" / "schema" / "cost.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(json.loads(done.out))
    assert (done.status, done.err) == (0, "")


def test_each_axis_is_gone_along_in_the_middle_of_the_other() -> None:
    asked = ("--policies", "ideal", "--cpus", "2..6", "--batch", "3,1,2")
    by_cpus, by_batch = [(2, 2), (4, 2), (6, 2)], [(4, 1), (4, 3)]
    assert rows(*asked) == [("ideal", *place) for place in (*by_cpus, *by_batch)]


def test_a_screen_has_80_columns_and_a_table_for_each_axis_that_is_one() -> None:
    both = hvolab("cost", "--policies", "upstream,ideal", "--cpus", "2,4", "--batch", "1,2")
    assert max(map(len, both.out.splitlines())) <= 80
    heads = [line for line in both.out.splitlines() if line.startswith(("CPUs policy", "batch policy"))]
    assert len(heads) == 2
    assert [line.split()[0] for line in hvolab(*QUICK).out.splitlines()[:2]] == ["1", "CPUs"]


def test_a_picture_is_drawn_of_what_is_shown(tmp_path: Path) -> None:
    to = tmp_path / "costs.svg"
    assert hvolab(*QUICK, "--plot", to).status == 0
    assert len(ElementTree.fromstring(to.read_bytes())) == 1


def test_a_table_of_yours_is_reckoned_with(tmp_path: Path) -> None:
    file = tmp_path / "table.py"
    file.write_text('from hvolab.api import CostTable\nT = CostTable("mine", invlpg=7, full_flush=11)\n')
    document = json.loads(hvolab(*QUICK, "--load", file, "--json").out)
    assert document["table"]["name"] == "mine"
    assert [row["flushing"] for row in document["rows"]] == [2 * 2 * 11 // 2, 0]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise ValueError('no')", "mine.py:6, in rely: ValueError: no"),
        ("await Await(WordIs(Word('w'), 1))", "mine on 2 CPUs, 1 in a batch: deadlock: cpu0 waits for w = 1"),
        ("return None", None),
    ],
    ids=["raises", "never ends", "waits for nobody"],
)
def test_a_policy_of_yours_is_reckoned_or_told_in_a_line(body: str, said: str | None, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(OWN.format(body=body))
    done = hvolab("cost", "--cpus", "2", "--batch", "1", "--load", file)
    if said is None:
        assert (done.status, done.err) == (0, "")
        assert "mine" in done.out
    else:
        assert (done.status, done.err.count("\n")) == (2, 1)
        assert said in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--cpus", "1"), "want numbers from 2 to 256, as in 8, 2,36 or 2..256"),
        (("--cpus", "2..257"), "want numbers from 2 to 256"),
        (("--cpus", "8..2"), "want numbers from 2 to 256"),
        (("--cpus", "two"), "want numbers from 2 to 256"),
        (("--cpus", ""), "want numbers from 2 to 256"),
        (("--cpus", "2...9"), "want numbers from 2 to 256"),
        (("--batch", "0"), "want numbers from 1 to 1024"),
        (("--policies", " ,"), "no policy is named"),
        (("--policies", "upsteam"), "there is no flush policy 'upsteam'; did you mean upstream"),
        (("--plot", "/nowhere/costs.svg", *QUICK[1:]), "cannot write /nowhere/costs.svg: no such directory"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(words: tuple[str, ...], said: str) -> None:
    done = hvolab("cost", *words)
    assert (done.status, done.out) == (2, "")
    assert said in done.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("A = CostTable('a')\nB = CostTable('b')\n", "brings several cost tables: say FILE.py:NAME"),
        ("A = CostTable('a', invlpg='300')\n", "invlpg='300': want cycles, a number from 0 to"),
        ("A = CostTable('a', access=-5)\n", "access=-5: want cycles"),
        ("A = CostTable('a', walk=1.5)\n", "walk=1.5: want cycles"),
        ("A = CostTable('a', walk=10**30)\n", "want cycles"),
        (
            "class V(HugetlbVmemmap):\n  async def _fill_head(self, to, walk): pass\n",
            "brings neither a flush policy nor a cost table",
        ),
        (
            "def h(model): raise KeyError('x')\nP = NamedPolicy('p', '', UpstreamFlush, hardware=h)\n",
            "KeyError",
        ),
        ("P = NamedPolicy('p', '', UpstreamFlush, hardware=lambda model: None)\n", "own.py"),
    ],
)
def test_a_file_that_is_of_no_use_is_refused_in_a_line(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text("from hvolab.api import *\n" + text)
    done = hvolab("cost", "--cpus", "2", "--batch", "1", "--load", file)
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert said in done.err
