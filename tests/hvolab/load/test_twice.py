"""Runs under one schedule are one run, or the file is not used."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from user_files import PATCH, overriding, written

from hvolab.catalog import scenario
from hvolab.load.twice import check_twice
from hvolab.load.user_file import load
from hvolab.subject.axes import Chosen
from hvolab.subject.blame import LoadError
from hvolab.subject.scenario import Setup


def setup_with(path: Path) -> Setup:
    found = load(str(path))
    setup = scenario("flush-reader").build(2)
    boot = found.completed(Chosen()).apply(setup.boot, found.axes)
    return found.judged(Setup(boot, setup.actors, (), setup.watched))


def test_an_op_that_is_changed_after_it_was_awaited_is_refused(tmp_path: Path) -> None:
    """Exploring keeps what was awaited, and would find it changed in every later run."""
    body = """
    buffer = bytearray(8)
    await Fill(start, buffer)
    buffer[0] = 2
    return 0
    """
    with pytest.raises(
        LoadError, match=r"what it awaits can change after that: Fill of va=.*, data=bytearray"
    ):
        check_twice(setup_with(written(tmp_path, overriding(body))), "mine.py")


def test_a_file_that_keeps_to_the_machine_is_used(tmp_path: Path) -> None:
    check_twice(setup_with(written(tmp_path, PATCH)), "mine.py")


@pytest.fixture
def _forgotten() -> Iterator[None]:
    """What the files of these tests leave in a module of Python's own, where no rule looks."""
    yield
    vars(sys).pop("hvolab_test", None)


@pytest.mark.usefixtures("_forgotten")
def test_what_the_file_keeps_somewhere_else_is_named_by_where_runs_differ(tmp_path: Path) -> None:
    body = """
        sys.hvolab_test = getattr(sys, "hvolab_test", 0) + 1
        for _ in range(sys.hvolab_test):
            await Load(HUGE_PAGE.folio)
        return await super().vmemmap_remap_range(start, end, walk)
    """
    path = written(tmp_path, "import sys\n" + overriding(body))
    with pytest.raises(LoadError) as raised:
        check_twice(setup_with(path), "mine.py")
    said = str(raised.value)
    assert said.startswith("mine.py: two runs under one schedule differ at event ")
    assert said.endswith("It depends on something outside the machine")


@pytest.mark.usefixtures("_forgotten")
def test_a_judge_that_remembers_is_found_out_by_what_it_says(tmp_path: Path) -> None:
    source = """
    from hvolab.api import *
    import sys

    @judge(0, Stored)
    def forgetful(state, event, sight):
        sys.hvolab_test = getattr(sys, "hvolab_test", 0) + 1
        return state, [Problem("the first time")] if sys.hvolab_test == 1 else []
    """
    path = written(tmp_path, source)
    with pytest.raises(
        LoadError, match=r"^mine.py: two equal runs are judged differently: \['violation: own"
    ):
        check_twice(setup_with(path), "mine.py")


OVER_THE_PORT = "from hvolab.api import *\nclass P(HugetlbVmemmap):\n"
KEEPS_A_BOX = """
from hvolab.api import *

class Box:
    def __init__(self): self.first = None

class Patch(HugetlbVmemmap):
    def __init__(self, primitives):
        super().__init__(primitives)
        self.box = Box()

    async def hugetlb_vmemmap_optimize_folio(self, h, folio):
        box = self.box
        box.first = await ThisCpu()
"""


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (KEEPS_A_BOX, "mine.py: self.box is a Box, which can change and would outlive a step"),
        (
            overriding("super().vmemmap_remap_range(start, end, walk)\nreturn 0"),
            "mine.py: coroutine 'HugetlbVmemmap.vmemmap_remap_range' was never awaited: write await",
        ),
        (
            OVER_THE_PORT + "  def __init__(self): pass",
            "mine.py cannot be made: TypeError: P.__init__() takes 1 positional argument but 2 were given",
        ),
        (
            OVER_THE_PORT + "  def __init__(self, p):\n    while True: pass",
            "mine.py:4, in __init__: it goes on and on without making a step",
        ),
        (
            "from hvolab.api import *\nclass P(UpstreamFlush):\n  def targets(self, initiator): return None",
            "what your file did led to TypeError: unsupported operand type(s) for |: 'NoneType' and 'set'",
        ),
        (overriding("while True: await ThisCpu()"), "mine.py:7, in vmemmap_remap_range: it goes on and on"),
        (overriding("raise SystemExit(0)"), "mine.py:7, in vmemmap_remap_range: SystemExit: 0"),
    ],
)
def test_what_shows_only_when_it_is_made_or_run_is_one_line(tmp_path: Path, source: str, said: str) -> None:
    setup = setup_with(written(tmp_path, source))
    with pytest.raises(LoadError) as raised:
        check_twice(setup, "mine.py")
    assert str(raised.value).startswith(said)
    assert "\n" not in str(raised.value)
