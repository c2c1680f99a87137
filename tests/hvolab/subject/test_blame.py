"""What a user's own code does wrong in a run is told with its file and line; what others do is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from user_files import overriding, written

from hvolab.catalog import scenario
from hvolab.load.user_file import load
from hvolab.subject.axes import Chosen
from hvolab.subject.blame import LoadError, blamed
from hvolab.subject.outcome import Completed, Deadlocked
from hvolab.subject.picker import InOrder
from hvolab.subject.run import run
from hvolab.subject.scenario import Setup
from hvolab.subject.stuck import Stuck

PLACE = "mine.py:7, in vmemmap_remap_range"
PATH = (
    "_optimize > hugetlb_vmemmap_optimize_folio > _optimize_folio > vmemmap_remap_free > vmemmap_remap_range"
)


def setup_with(path: Path, name: str = "flush-reader") -> Setup:
    found = load(str(path))
    chosen = next((one for one in found.scenarios if one.name == name), None) or scenario(name)
    setup = chosen.build(2)
    boot = found.completed(Chosen()).apply(setup.boot, found.axes)
    return found.judged(Setup(boot, setup.actors, (), setup.watched))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return [][3]", "mine.py:7, in vmemmap_remap_range: IndexError: list index out of range"),
        (
            "await Load('x')",
            f"{PLACE}: TypeError: unsupported operand type(s) for &: 'str' and 'int'",
        ),
        (
            "while True: pass",
            "mine.py:7, in vmemmap_remap_range: it goes on and on without making a step",
        ),
        (
            "while True:\n    try:\n        while True: pass\n    except Exception: pass",
            "mine.py:9, in vmemmap_remap_range: it goes on and on without making a step",
        ),
        (
            "await types.coroutine(lambda: (yield 5))()",
            f"{PLACE}: NotAnOp: {PATH} awaited 5, which is no op",
        ),
    ],
)
def test_a_fault_of_the_users_code_is_one_line_with_its_place(tmp_path: Path, body: str, said: str) -> None:
    setup = setup_with(written(tmp_path, overriding(body)))
    with pytest.raises(LoadError) as raised:
        run(setup, lambda _system: InOrder())
    assert str(raised.value) == said


def test_an_actor_that_waits_for_ever_is_a_deadlock_and_one_that_ends_at_once_is_fine(tmp_path: Path) -> None:
    source = """
    from hvolab.api import *
    async def waits(kernel, huge): await Await(WordIs(Word("go"), 1))
    async def ends(kernel, huge): pass
    A = scenario("waits", [kernel(0, waits)], huge_page=HUGE_PAGE)
    B = scenario("ends", [kernel(0, ends)], huge_page=HUGE_PAGE)
    """
    path = written(tmp_path, source)
    done = run(setup_with(path, "waits"), lambda _system: InOrder())
    assert done.outcome == Deadlocked(((0, "go = 1"),))
    assert run(setup_with(path, "ends"), lambda _system: InOrder()).outcome == Completed()


def test_nobody_is_blamed_for_what_is_not_theirs() -> None:
    with pytest.raises(ValueError, match="ours") as raised:
        raise ValueError("ours")
    assert blamed(raised.value) is None
    assert blamed(Stuck(None)) is None
