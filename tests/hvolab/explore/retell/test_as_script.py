"""A finding as a script: few constraints, which show it again, by the command too."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from small_catalog import all_small
from small_setups import PAGE, TABLE

from emu.paging.models import LAZY
from emu.paging.walk import Lack
from hvolab.catalog import scenario
from hvolab.explore.budget import Budget
from hvolab.explore.explorer import explore
from hvolab.explore.reduce.dpor import Reduced
from hvolab.explore.retell.as_script import NoScript, as_script
from hvolab.explore.search.bounds import Preemptions
from hvolab.explore.search.depth_first import Deepening
from hvolab.explore.search.interface import Freedom, Strategy
from hvolab.explore.search.randomly import UniformWalk
from hvolab.judge.verdict import Verdict, Where
from hvolab.subject.run import run
from hvolab.subject.scenario import Setup
from hvolab.subject.script import EndsDead, ScriptPicker, Translates
from hvolab.subject.script_text import parse_script
from kernel_model.boot import boot
from kernel_model.mm.failures import EachMayFail

ALL = frozenset({Freedom.SCHEDULE, Freedom.IRQ, Freedom.TLB})


def setup_of(name: str) -> Setup:
    setup = scenario(name).build(2)
    return replace(setup, boot=replace(setup.boot, model=LAZY))


SEARCHES: dict[str, Callable[[int], Strategy]] = {
    "tidy": lambda _seed: Deepening(Preemptions(0)),
    "random": lambda seed: UniformWalk(seed, 12),
}
"""Made anew for each case: a search that has come to its end finds nothing more."""


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize(
    ("name", "seed"), [("tail-write", 1), ("missed-cpu", 1), ("use-after-free", 4), ("lost-update", 1)]
)
def test_a_script_shows_what_the_schedule_showed(name: str, seed: int, search: str) -> None:
    """Also where the schedule is a random one that switches all the time."""
    setup = setup_of(name)
    found = [
        one
        for one in explore(setup, SEARCHES[search](seed), ALL, Budget(runs=12)).found
        if one.finding.verdict.is_violation
    ]
    assert found
    system = boot(setup.boot)
    for one in found:
        key = (one.finding.verdict, one.finding.where)
        script = as_script(system, setup, one.schedule, key)
        again = run(setup, lambda started, script=script: ScriptPicker(script, started.machine))
        assert key in {(finding.verdict, finding.where) for finding in again.findings}
        assert parse_script("\n".join(map(str, script))) == script


def test_a_script_says_which_translation_was_used() -> None:
    """Nothing else tells the lost update from the write that faults: cpu1 uses the writable entry it had."""
    setup = setup_of("tail-write")
    done = explore(setup, Deepening(Preemptions(0)), ALL, Budget(runs=100))
    (one,) = [one for one in done.found if one.finding.verdict is Verdict.LOST_UPDATE]
    script = as_script(boot(setup.boot), setup, one.schedule, (one.finding.verdict, one.finding.where))
    (used,) = [constraint for constraint in script if isinstance(constraint, Translates)]
    assert used.cpu == 1
    assert used.write
    assert used.page == one.finding.where.va & ~0xFFF


def test_a_script_says_that_a_walk_from_a_remembered_entry_found_nothing() -> None:
    """The page table maps the page throughout: only that walk tells the Oops from a load that succeeds."""
    (setup,) = [small.setup for small in all_small() if small.name == "a table zeroed before the flush"]
    (one,) = explore(setup, Reduced(), ALL, Budget(runs=100)).found
    assert one.finding.verdict is Verdict.KERNEL
    script = as_script(boot(setup.boot), setup, one.schedule, (one.finding.verdict, one.finding.where))
    asked = EndsDead(1, PAGE, TABLE, Lack.NOT_PRESENT)
    assert [constraint for constraint in script if isinstance(constraint, EndsDead)] == [asked]
    assert str(asked) == f"cpu1 walks {PAGE:#x} from a remembered entry to nothing in pfn 0x3000"
    assert parse_script("\n".join(map(str, script))) == script
    without = tuple(constraint for constraint in script if constraint != asked)
    clean = run(setup, lambda started: ScriptPicker(without, started.machine))
    assert clean.findings == ()


def test_a_script_says_which_allocation_failed() -> None:
    setup = setup_of("tail-write")
    setup = replace(setup, boot=replace(setup.boot, failures=EachMayFail()))
    done = explore(setup, UniformWalk(2, 40), ALL | {Freedom.ALLOC}, Budget())
    system = boot(setup.boot)
    scripts = [
        as_script(system, setup, one.schedule, (one.finding.verdict, one.finding.where)) for one in done.found
    ]
    assert scripts
    for script in scripts:
        assert parse_script("\n".join(map(str, script))) == script


def test_what_a_schedule_does_not_show_has_no_script() -> None:
    setup = setup_of("tail-write")
    done = explore(setup, Deepening(Preemptions(0)), ALL, Budget(runs=100))
    nowhere = Where(1, done.found[0].finding.where.va, "nobody", None, None)
    with pytest.raises(NoScript, match=r"^no script shows 'violation: missed-flush' on cpu1$"):
        as_script(boot(setup.boot), setup, done.found[0].schedule, (Verdict.MISSED_FLUSH, nowhere))


def hvolab(*words: str) -> subprocess.CompletedProcess[str]:
    program = "from hvolab.command.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=False
    )


def test_the_script_that_explore_tells_is_one_that_run_follows(tmp_path: Path) -> None:
    told = json.loads(hvolab("explore", "use-after-free", "--json").stdout)
    assert told["findings"]
    for number, finding in enumerate(told["findings"]):
        path = tmp_path / f"{number}.script"
        path.write_text("\n".join(finding["script"]), encoding="utf-8")
        again = hvolab("run", "use-after-free", "--cpu-model", "lazy", "--script", str(path), "--json")
        assert again.returncode == 1
        assert finding["verdict"] in {one["verdict"] for one in json.loads(again.stdout)["findings"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cpu0 sleeps", "line 1: 'cpu0 sleeps' is no constraint"),
        (
            "cpu1 takes an interrupt",
            "cannot meet 'cpu1 takes an interrupt': none is pending, or interrupts are off",
        ),
        (
            "cpu1 translates 0x1000 to pfn 0x1 rw",
            "cannot meet 'cpu1 translates 0x1000 to pfn 0x1 rw': no access had that choice",
        ),
        ("cpu0 makes 9999 steps", "cannot meet 'cpu0 makes 9999 steps': the CPU has ended"),
    ],
)
def test_a_script_that_cannot_be_followed_is_one_line_and_status_2(
    text: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.script"
    path.write_text(text, encoding="utf-8")
    done = hvolab("run", "tail-write", "--script", str(path))
    assert done.returncode == 2
    assert done.stderr == f"hvolab: {message}\n"


def test_a_script_that_is_not_there_is_one_line_and_status_2(tmp_path: Path) -> None:
    done = hvolab("run", "tail-write", "--script", str(tmp_path / "none"))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "cannot read" in done.stderr
