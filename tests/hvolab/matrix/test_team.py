"""Cells by several processes: all come, in whatever order; who is killed or interrupted is told."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from hvolab.explore.interrupts import CtrlC, held_interrupts
from hvolab.explore.parallel import WorkerDied
from hvolab.matrix.cell import Cell, CellDone
from hvolab.matrix.results import ResultsError
from hvolab.matrix.team import Explores, by_one, by_several


def done(name: str) -> CellDone:
    return CellDone(Cell(name, "s", "lazy", 2), name)


def cells(count: int) -> list[Explores]:
    def explores(number: int) -> Callable[[], CellDone | None]:
        return lambda: done(f"{number} by {os.getpid()}")

    return [explores(number) for number in range(count)]


def test_by_one_they_come_in_order_and_from_this_process() -> None:
    found = [(number, one.made_from) for number, one in by_one(cells(3), CtrlC())]
    assert found == [(number, f"{number} by {os.getpid()}") for number in range(3)]


@pytest.mark.parametrize("jobs", [2, 5])
def test_by_several_each_comes_once_from_a_process_of_its_own(jobs: int) -> None:
    found = sorted(by_several(cells(7), jobs, CtrlC()))
    assert [number for number, _ in found] == list(range(7))
    assert [one.made_from.split()[0] for _, one in found] == [str(number) for number in range(7)]
    assert len({one.made_from for _, one in found}) == 7
    assert str(os.getpid()) not in {one.made_from.split()[2] for _, one in found}


def asleep() -> CellDone | None:
    """Until it is interrupted, as an exploration is between two runs."""
    with held_interrupts() as interrupts:
        for _ in range(600):
            if interrupts.asked:
                return None
            time.sleep(0.05)
    return done("has slept well")


def test_an_interrupt_of_this_process_reaches_the_others_and_begins_nothing_more() -> None:
    interrupts = CtrlC()
    interrupts.asked = True
    assert list(by_several([asleep, asleep, asleep], 2, interrupts)) == []
    coming = by_several([cells(1)[0], asleep, asleep, asleep], 2, interrupts := CtrlC())
    assert next(coming)[0] == 0
    interrupts.asked = True
    assert list(coming) == []


def test_after_an_interrupt_by_one_ends_with_the_cell_under_way() -> None:
    interrupts = CtrlC()
    coming = by_one(cells(3), interrupts)
    assert next(coming)[0] == 0
    interrupts.asked = True
    assert list(coming) == []


def test_a_process_that_is_killed_is_told_and_the_others_end() -> None:
    def dies() -> CellDone | None:
        os.kill(os.getpid(), signal.SIGKILL)
        return None

    with pytest.raises(WorkerDied, match=r"^a process that explored a cell was killed$"):
        list(by_several([dies, asleep], 2, CtrlC()))


def test_what_cannot_be_kept_is_told_as_by_one() -> None:
    def refuses() -> CellDone | None:
        raise ResultsError("no room")

    with pytest.raises(ResultsError, match=r"^no room$"):
        list(by_several([refuses, *cells(2)], 2, CtrlC()))
