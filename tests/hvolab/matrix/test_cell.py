"""What a cell came to, in one word, and saved and loaded."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hvolab.checked.error import InputError
from hvolab.checked.place import Place
from hvolab.judge.verdict import Verdict
from hvolab.matrix.cell import Cell, CellCoverage, CellDone, worst_first
from hvolab.subject.costs import Costs

CELL = Cell("upstream", "flush-reader", "lazy", 2)
DONE = CellDone(
    CELL,
    "0123456789abcdef",
    (Verdict.MISSED_FLUSH, Verdict.KERNEL),
    CellCoverage("exhaustive over what there is", "", 7, 500),
    Costs(1, 2, 3, 4, 5),
    "hvolab run flush-reader",
)


@pytest.mark.parametrize(
    ("done", "verdict"),
    [
        (DONE, "violation: missed-flush"),
        (replace(DONE, verdicts=()), "nothing found"),
        (replace(DONE, verdicts=(), coverage=CellCoverage("", "the budget of 1 s", 3, 9)), "not complete"),
        (replace(DONE, coverage=CellCoverage("", "the budget of 1 s", 3, 9)), "violation: missed-flush"),
        (CellDone(CELL, "", reason="it has actors on 3 CPUs"), "not applicable"),
        (CellDone(CELL, "", error="mine.py raised"), "error"),
    ],
)
def test_in_a_word_it_is_the_worst_that_was_found_or_why_that_is_nothing(
    done: CellDone, verdict: str
) -> None:
    assert done.verdict == verdict == done.save()["verdict"]


def test_a_cell_that_was_explored_is_loaded_as_it_was_saved() -> None:
    assert CellDone.load(Place("file", "", DONE.save())) == DONE


def test_the_worst_is_the_first_of_the_table_of_verdicts() -> None:
    found = [Verdict.KERNEL, Verdict.USE_AFTER_FREE, Verdict.LEGAL, Verdict.KERNEL, Verdict.MISSED_FLUSH]
    assert worst_first(found) == (Verdict.MISSED_FLUSH, Verdict.USE_AFTER_FREE, Verdict.KERNEL)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("cpus", 0, "cpus: expected an integer from 1"),
        ("verdicts", ["nonsense"], "verdicts[0]: expected a violation, found 'nonsense'"),
        ("policy", 3, "policy: expected a string, found 3"),
        ("costs", {}, "costs: missing field 'grace_periods'"),
    ],
)
def test_what_is_no_cell_is_refused_by_its_place(field: str, value: object, said: str) -> None:
    with pytest.raises(InputError) as error:
        CellDone.load(Place("file", "", {**DONE.save(), field: value}))
    assert said in str(error.value)
