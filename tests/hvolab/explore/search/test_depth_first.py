"""Depth first: every order once, the cheapest first, and going on from a saved place."""

from __future__ import annotations

import pytest
from small_searches import orders

from hvolab.checked.error import InputError
from hvolab.checked.place import Place
from hvolab.explore.search.bounds import Delays, Preemptions, Unbounded
from hvolab.explore.search.depth_first import Deepening, DepthFirst, everything
from hvolab.explore.search.guide import PointStrategy

ALL_ORDERS = ["aabb", "abab", "abba", "baab", "baba", "bbaa"]


def test_everything_is_each_order_once() -> None:
    assert sorted(orders(everything(), 2, 2)) == ALL_ORDERS
    assert everything().extent() == "exhaustive"


def test_the_first_run_costs_nothing_and_none_costs_more_than_the_bound() -> None:
    found = orders(DepthFirst(Preemptions(1)), 2, 2)
    assert found[0] == "aabb"
    assert sorted(found) == ["aabb", "abba", "baab", "bbaa"]


def test_deepening_finds_what_needs_fewer_preemptions_first() -> None:
    """Each bound anew: with one preemption those with none are made again."""
    found = orders(Deepening(Preemptions(2)), 2, 2)
    assert sorted(found[:2]) == ["aabb", "bbaa"]
    assert sorted(found[2:6]) == ["aabb", "abba", "baab", "bbaa"]
    assert sorted(found[6:]) == ALL_ORDERS


def test_deepening_says_how_deep_it_has_come() -> None:
    search = Deepening(Delays(1))
    assert search.extent() == "bounded by 0 delays"
    assert len(orders(search, 2, 2)) == 1 + 3
    assert search.extent() == "bounded by 1 delay"
    assert not search.begin()


@pytest.mark.parametrize("make", [everything, lambda: Deepening(Preemptions(2))], ids=["all", "deepening"])
def test_a_search_goes_on_where_it_was_saved(make) -> None:
    whole = orders(make(), 2, 2)
    for runs in range(5):
        first: PointStrategy = make()
        begun = orders(first, 2, 2, most=runs)
        second: PointStrategy = make()
        second.load(Place("file", "", first.save()))
        assert begun + orders(second, 2, 2) == whole


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ([[[0, 1], [0, 1]]], "options, their costs, and a number"),
        ([[[0, 1], [0], 0]], "as many costs as options"),
        ([[[0, 1], [0, 1], 2]], "2"),
        ([[["x"], [0], 0]], "'x'"),
    ],
)
def test_a_damaged_path_is_refused(path: list[object], message: str) -> None:
    search = DepthFirst(Unbounded())
    with pytest.raises(InputError) as caught:
        search.load(Place("file", "", {"started": 1, "path": path}))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
