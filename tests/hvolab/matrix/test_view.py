"""A matrix on a screen of 80 columns."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from hvolab.judge.verdict import Verdict
from hvolab.matrix.cell import Cell, CellCoverage, CellDone
from hvolab.matrix.view import coverage_of, letter, show_matrix
from hvolab.subject.costs import Costs

WHOLE = CellCoverage("exhaustive", "", 7, 500)
CUT = CellCoverage("not complete", "the budget of 1 s", 3, 9)


def done(policy: str, name: str, *verdicts: Verdict, coverage: CellCoverage = WHOLE) -> CellDone:
    replay = f"hvolab run {name} --policy {policy}" if verdicts else ""
    return CellDone(Cell(policy, name, "lazy", 2), "", verdicts, coverage, Costs(1, 2, 3, 4, 5, 6), replay)


CELLS = (
    done("right", "one"),
    done("wrong", "one", Verdict.MISSED_FLUSH, Verdict.KERNEL),
    done("right", "two", coverage=CUT),
    CellDone(Cell("wrong", "two", "lazy", 1), "", reason="it has actors on 2 CPUs"),
    done("right", "three [/b]"),
    CellDone(Cell("wrong", "three [/b]", "lazy", 1), "", error="mine.py raised"),
)


def shown(cells: tuple[CellDone, ...], asked: int, width: int = 80) -> str:
    out = StringIO()
    show_matrix(Console(file=out, width=width, color_system=None), cells, asked)
    return out.getvalue()


def test_a_matrix_says_what_is_wrong_what_was_not_explored_and_what_it_costs() -> None:
    assert shown(CELLS, 9).splitlines() == [
        "CPUs: lazy  1  2  3",
        "right       .  ?  .",
        "wrong       F  -  E",
        "1 one, 2 two, 3 three [/b]",
        ".  nothing found, everything explored",
        "?  nothing found, not everything explored",
        "-  not applicable",
        "E  an error in the policy's file",
        "F  violation: missed-flush",
        "F  wrong x one, lazy: violation: missed-flush (also violation: kernel)",
        "   hvolab run one --policy wrong",
        "-  wrong x two, lazy: it has actors on 2 CPUs",
        "E  wrong x three [/b], lazy: mine.py raised",
        "what it costs requests interrupts INVLPG whole TLB INVLPGB RCU waits",
        "right                2          3      4         5       6         1",
        "wrong                2          3      4         5       6         1",
        "covered  3 of 9 cells to their end; 1 stopped by the budget of 1 s",
    ]


def test_a_policy_of_which_nothing_was_explored_takes_nobodys_costs_away() -> None:
    """Upstream once cost nothing beside one that failed everywhere."""
    failed = CellDone(Cell("fails", "one", "lazy", 2), "", error="mine.py raised")
    lines = shown((done("right", "one"), failed), 2).splitlines()
    costs = lines[lines.index(next(line for line in lines if line.startswith("what it costs"))) + 1 :]
    assert [line.split() for line in costs[:-1]] == [["right", "2", "3", "4", "5", "6", "1"]]


def test_more_scenarios_than_fit_are_shown_below_each_other() -> None:
    cells = tuple(done("right", f"scenario-{number}") for number in range(60))
    lines = shown(cells, 60).splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(line.startswith("right  ") and "." in line for line in lines) == 3


@pytest.mark.parametrize(
    "verdict", [one for one in Verdict if one.is_violation or one is Verdict.MODEL_ERROR]
)
def test_each_verdict_has_a_letter_of_its_own(verdict: Verdict) -> None:
    others = {letter(done("p", "s", one)) for one in Verdict if one.is_violation and one is not verdict}
    assert letter(done("p", "s", verdict)) not in others | {".", "?", "-"}


def test_what_is_nothing_wrong_has_none() -> None:
    with pytest.raises(ValueError, match="legal is nothing wrong"):
        letter(done("p", "s", Verdict.LEGAL))


def test_coverage_counts_what_was_asked_for_and_what_ended_the_others() -> None:
    assert coverage_of(CELLS, 9) == "3 of 9 cells to their end; 1 stopped by the budget of 1 s"
    assert coverage_of(CELLS[:2], 2) == "2 of 2 cells to their end"
