"""A judge's memory: what it holds, and that whoever watches is told of every look into it."""

from __future__ import annotations

import pytest
from noting_watcher import Noting

from hvolab.judge.sight.cells import Bags, Cells, Watching
from hvolab.judge.sight.resource import CellName

NOBODY: int | None = None


@pytest.fixture
def watcher() -> Noting:
    return Noting()


def test_a_cell_is_empty_until_it_is_set_and_every_look_at_it_is_told(watcher: Noting) -> None:
    cells = Cells("the last fault", NOBODY, Watching(watcher))
    assert cells.get(1, 2) is None
    cells.set(7, 1, 2)
    assert cells.get(1, 2) == 7
    name = CellName("the last fault", 1, 2)
    assert watcher.taken() == [("reads", name), ("writes", name), ("reads", name)]


def test_cells_of_other_numbers_and_kinds_are_others(watcher: Noting) -> None:
    watching = Watching(watcher)
    one, other = Cells("one", 0, watching), Cells("other", 0, watching)
    one.set(5, 1, 2)
    assert [one.get(2, 1), one.get(1), one.get(), other.get(1, 2)] == [0] * 4
    assert len({what for _, what in watcher.taken()}) == 5


def test_to_peek_tells_nobody(watcher: Noting) -> None:
    cells = Cells("the last fault", NOBODY, Watching(watcher))
    cells.set(7, 1)
    watcher.taken()
    assert (cells.peek(1), cells.peek(2)) == (7, None)
    assert watcher.taken() == []


def test_who_watches_later_is_told_from_then_on(watcher: Noting) -> None:
    first, watching = Noting(), Watching(watcher)
    cells = Cells("the last fault", NOBODY, watching)
    watching.watcher = first
    cells.set(7)
    assert (watcher.taken(), first.taken()) == ([], [("writes", CellName("the last fault"))])


def test_to_add_to_a_bag_commutes_and_to_look_or_clear_does_not(watcher: Noting) -> None:
    bags: Bags[str] = Bags("copied", Watching(watcher))
    bags.add("b", 3)
    bags.add("a", 3)
    bags.add("b", 3)
    assert bags.all(3) == ("b", "a"), "once each, in the order they came"
    bags.clear(3)
    assert bags.all(3) == ()
    name = CellName("copied", 3)
    told = ["marks", "marks", "marks", "reads", "writes", "reads"]
    assert watcher.taken() == [(verb, name) for verb in told]


def test_the_numbers_are_those_of_bags_with_something_in_them(watcher: Noting) -> None:
    bags: Bags[str] = Bags("copied", Watching(watcher))
    for number in (5, 3, 4):
        bags.add("a", number)
    bags.clear(3)
    numbers = bags.numbers()
    bags.clear(4)
    assert list(numbers) == [5, 4], "as they were when asked: bags may be emptied meanwhile"
