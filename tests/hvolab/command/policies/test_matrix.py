"""`hvolab matrix`: what it prints, keeps, refuses."""

from __future__ import annotations

import html
import json
import signal
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from command_line import hvolab

from hvolab.catalog import SCENARIOS
from hvolab.command.policies.matrix import status_of_cells
from hvolab.judge.verdict import Verdict
from hvolab.matrix.cell import Cell, CellCoverage, CellDone

ROOT = Path(__file__).resolve().parents[4]
QUICK = "unfreeze-before-sweep"  # it has the fewest states of those in which policies are wrong
ASKED = ("matrix", "--scenarios", QUICK, "--policies", "upstream,never")


def refused(file: Path) -> str:
    """What is said of it, in one line."""
    done = hvolab("matrix", "--load", file)
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    return done.err


def test_json_is_what_the_schema_says_and_a_kept_cell_is_not_explored_again(tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    first = hvolab(*ASKED, "--json", "--keep", kept)
    assert first.status == 1
    document = json.loads(first.out)
    schema = json.loads((ROOT / "hvolab" / "schema" / "matrix.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(document)
    assert [(cell["policy"], cell["verdict"]) for cell in document["cells"]] == [
        ("upstream", "nothing found"),
        ("never", "violation: missed-flush"),
    ]
    assert [json.loads(line) for line in kept.read_text(encoding="ascii").splitlines()] == document["cells"]
    # Had it been explored again, it would say what it came to, and not what is in the file.
    document["cells"][0]["coverage"]["schedules"] = 77_777
    kept.write_text("".join(json.dumps(cell) + "\n" for cell in document["cells"]), encoding="ascii")
    page = tmp_path / "page.html"
    again = json.loads(hvolab(*ASKED, "--json", "--keep", kept, "--html", page).out)
    assert document["cells"][1]["replay"] in html.unescape(page.read_text(encoding="utf-8"))
    assert again["cells"][0]["coverage"]["schedules"] == 77_777
    assert again["cells"][1] == document["cells"][1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--policies", "upsteam"), "there is no flush policy 'upsteam'; did you mean upstream?"),
        (("--scenarios", "flush-raeder"), "there is no scenario 'flush-raeder'; did you mean flush-reader"),
        (
            ("--cpu-models", "skylake"),
            "skylake has the TLB of a real CPU, and explores no orders; there are: lazy",
        ),
        (("--cpu-models", ","), "no CPU model is named"),
        (("--cpu-models", "amd,intel,lazy"), "lazy is named twice: lazy, intel"),
        (("--html", "/nowhere/at/all.html"), "cannot write /nowhere/at/all.html: no such directory"),
        (("--keep", "/nowhere/at/all.json"), "cannot write /nowhere/at/all.json: No such file or directory"),
        (("--group", "flsh"), "'flsh' is not one of"),
        (("--scenarios", ","), "no cell can be explored: ask for other --scenarios, or more --cpus"),
        (("--cpus", "1"), "no cell can be explored: ask for other --scenarios, or more --cpus"),
        (("--keep", "."), "File '.' is a directory"),
        (("--load", "/nowhere.py"), "cannot read /nowhere.py: No such file or directory"),
    ],
)
def test_a_slip_is_one_line(options: tuple[str, ...], said: str) -> None:
    done = hvolab("matrix", *options)
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert said in done.err


def test_with_jobs_it_says_the_same_and_keeps_the_same(tmp_path: Path) -> None:
    asked = (
        "matrix",
        "--scenarios",
        f"{QUICK},switching-cpu",
        "--policies",
        "upstream,local-only",
        "--json",
    )
    one, two = (hvolab(*asked, "--jobs", jobs, "--keep", tmp_path / jobs) for jobs in ("1", "2"))
    assert (one.status, one.out) == (two.status, two.out)
    lines = [sorted((tmp_path / jobs).read_text(encoding="ascii").splitlines()) for jobs in ("1", "2")]
    assert lines[0] == lines[1]
    assert len(lines[0]) == 4


def test_a_policy_that_raises_in_one_cell_ends_no_other(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from hvolab.api import *\n"
        "class Raises(UpstreamFlush):\n"
        "  async def rely(self, ticket):\n"
        "    if await Load(PerCpu(1).idle): raise ValueError('asleep')\n",
        encoding="utf-8",
    )
    kept = tmp_path / "kept"
    names = f"{QUICK},flush-sleeper"
    done = hvolab("matrix", "--load", mine, "--scenarios", names, "--json", "--keep", kept)
    cells = json.loads(done.out)["cells"]
    assert done.status == 2
    assert [(cell["policy"], cell["verdict"]) for cell in cells][-2:] == [
        ("upstream", "nothing found"),
        ("Raises", "error"),
    ]
    assert "asleep" in cells[-1]["error"]
    assert len(kept.read_text(encoding="ascii").splitlines()) == 3


@pytest.mark.parametrize("name", ["a\\nb", "a,b"])
def test_a_name_that_fits_in_no_line_is_refused(tmp_path: Path, name: str) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(
        f"from hvolab.api import *\nP = NamedPolicy('{name}', '', UpstreamFlush)\n", encoding="utf-8"
    )
    assert "cannot be a name" in refused(mine)


def test_a_file_that_brings_more_than_policies_is_refused(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from hvolab.api import *\n"
        "class P(UpstreamFlush):\n  def targets(self, initiator): return frozenset()\n"
        "class V(HugetlbVmemmap):\n  async def _fill_head(self, to, walk): pass\n",
        encoding="utf-8",
    )
    assert "brings more than flush policies, which a matrix is of: say FILE.py:NAME" in refused(mine)


def test_each_policy_of_a_file_is_a_row_beside_upstream(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from hvolab.api import *\n"
        "class Nobody(UpstreamFlush):\n  def targets(self, initiator): return frozenset()\n"
        "SPLITS = NamedPolicy('splits', 'all', table({FlushSite.SPLIT: What.EVERYTHING}))\n",
        encoding="utf-8",
    )
    done = hvolab("matrix", "--load", mine, "--scenarios", QUICK, "--json")
    cells = json.loads(done.out)["cells"]
    assert {cell["policy"]: cell["verdict"] for cell in cells} == {
        "upstream": "nothing found",
        "Nobody": "violation: missed-flush",
        "splits": "nothing found",
    }
    replay = next(cell["replay"] for cell in cells if cell["policy"] == "Nobody")
    assert f"--policy Nobody --cpu-model lazy --load {mine}" in replay


def test_interrupted_it_keeps_what_is_done_and_goes_on_from_there(tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    words = [
        *ASKED[:3],
        "--policies",
        "local-only,skips-last-cpu,never,upstream",
        "--keep",
        str(kept),
        "--json",
    ]
    with subprocess.Popen(
        [sys.executable, "-m", "hvolab", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    ) as process:
        while not (kept.exists() and "\n" in kept.read_text(encoding="ascii")):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    done = json.loads(out)["cells"]
    assert process.returncode == 130
    assert f"interrupted: {4 - len(done)} of 4 cells are left" in err.decode()
    assert 1 <= len(done) < 4
    whole = json.loads(hvolab(*words).out)["cells"]
    assert whole[: len(done)] == done
    assert len(whole) == 4


@pytest.mark.parametrize(
    ("verdicts", "stopped", "status"),
    [
        ((), "", 0),
        ((), "the budget of 1 s", 4),
        ((Verdict.KERNEL,), "the budget of 1 s", 1),
        ((Verdict.MODEL_ERROR, Verdict.KERNEL), "", 3),
    ],
)
def test_the_exit_status_is_that_of_the_worst_cell(
    verdicts: tuple[Verdict, ...], stopped: str, status: int
) -> None:
    cell = Cell("p", "s", "lazy", 2)
    fine = CellDone(cell, "", coverage=CellCoverage("", "", 1, 1))
    other = CellDone(cell, "", verdicts, CellCoverage("", stopped, 1, 1))
    assert status_of_cells([fine, other]) == status


def test_a_flush_scenario_is_one_in_which_a_cpu_uses_what_another_changes() -> None:
    found = {one.name for one in SCENARIOS if one.is_flush_scenario}
    whole = {
        one.name for one in SCENARIOS if one.group.name in ("STALE", "FAULT", "RACE", "FLUSH", "HARDWARE")
    }
    assert found == whole | {"split-neighbours", "split-writer", "key-optimize", "key-restore"}
