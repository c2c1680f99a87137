"""A judge of one's own: told of the events it names, its state a cell of Sight's."""

from __future__ import annotations

from pathlib import Path

import pytest
from exploring import ALL  # type: ignore[attr-defined]
from user_files import written

from hvolab.explore.budget import Budget
from hvolab.explore.explorer import explore
from hvolab.explore.reduce.dpor import Reduced
from hvolab.explore.search.depth_first import everything
from hvolab.judge.verdict import Verdict
from hvolab.load.user_file import load
from hvolab.subject.blame import LoadError
from hvolab.subject.picker import InOrder
from hvolab.subject.run import run
from hvolab.subject.scenario import Setup

TWO_STORES = """
from hvolab.api import *

WORD_A, WORD_B = VirtAddr(0xffff888000600000), VirtAddr(0xffff888000601000)

async def stores_a(kernel, huge): await Store(WORD_A, 1)
async def stores_b(kernel, huge): await Store(WORD_B, 1)

SCENE = scenario("two-stores", [kernel(0, stores_a), kernel(1, stores_b)], huge_page=HUGE_PAGE)

@judge((), Stored)
def b_before_a(state, event, sight):
    "the second word is never stored to first"
    found = [Problem("b came first", event.va)] if event.va == WORD_B and state == () else []
    return (*state, event.va), found
"""


def setup_of_file(path: Path) -> Setup:
    found = load(str(path))
    return found.judged(found.scenarios[0].build(2))


def test_what_it_finds_is_a_violation_with_its_place(tmp_path: Path) -> None:
    setup = setup_of_file(written(tmp_path, TWO_STORES.replace("[kernel(0, stores_a), ", "[")))
    (finding,) = run(setup, lambda _system: InOrder()).findings
    assert (finding.verdict, finding.cause) == (Verdict.OWN_JUDGE, "b came first")
    assert (finding.where.cpu, finding.where.va, finding.where.code) == (1, 0xFFFF888000601000, "stores_b")


def test_the_reduced_search_orders_what_only_the_judge_can_tell_apart(tmp_path: Path) -> None:
    setup = setup_of_file(written(tmp_path, TWO_STORES))
    found = [
        {(one.finding.verdict, one.finding.where) for one in explore(setup, search, ALL, Budget()).found}
        for search in (everything(), Reduced())
    ]
    assert found[0] == found[1] != set()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("5", "judge bad answered 5: want (state, problems)"),
        ("([], [])", "the state of judge bad can change under it: []"),
        ("(0, 5)", "judge bad found 5: want a tuple of problems"),
        ("(0, ['x'])", "judge bad found 'x': want problems, made with Problem(...)"),
    ],
)
def test_what_is_no_judgement_is_one_line(tmp_path: Path, answer: str, said: str) -> None:
    bad = f"\n@judge(0, Stored)\ndef bad(state, event, sight): return {answer}\n"
    setup = setup_of_file(written(tmp_path, TWO_STORES + bad))
    with pytest.raises(LoadError) as raised:
        run(setup, lambda _system: InOrder())
    assert str(raised.value) == said
