"""The tasks of several processes: one at a state at a time, and what comes back makes more."""

from __future__ import annotations

from types import SimpleNamespace

from emu.choice import Step
from hvolab.checked.place import Place
from hvolab.explore.footprint.conflict import NOTHING, Footprint
from hvolab.explore.reduce.frontier import Frontier
from hvolab.explore.reduce.node import AnswerBranch, Node

SOME = Footprint(frozenset({8}), frozenset(), frozenset())


def node(*to_try: int) -> Node:
    return Node({0: Step(0), 1: Step(1), 2: Step(2)}, {}, 0, {0, *to_try})


def frontier(*nodes: Node) -> Frontier:
    """Of a search whose last run had this path."""
    return Frontier(SimpleNamespace(nodes=list(nodes), save_learned=lambda: {"learned": 1}))  # type: ignore[arg-type]


def as_the_task_left_it(*nodes: Node) -> Place:
    return Place("file", "", [one.save() for one in nodes])


def test_the_deepest_alternative_is_taken_first_and_one_a_state() -> None:
    tasks = frontier(node(1), node(), node(1, 2))
    assert tasks.idle()
    taken = [tasks.take(), tasks.take(), tasks.take()]
    assert [None if one is None else one[0] for one in taken] == [2, 0, None]
    assert not tasks.idle()


def test_a_task_is_the_path_to_its_state_with_what_the_others_try_taken_for_tried() -> None:
    tasks = frontier(node(1), node(2))
    tasks.take()
    taken = tasks.take()
    assert taken is not None
    depth, state = taken
    assert isinstance(state, dict)
    assert (depth, state["floor"], state["begun"], state["tables"]) == (0, 0, 0, {"learned": 1})
    tasks = frontier(node(1), node(2))
    taken = tasks.take()
    assert taken is not None
    state = taken[1]
    assert isinstance(state, dict)
    path = [Node.load(Place("file", "", one)) for one in state["nodes"]]  # type: ignore[union-attr]
    assert [one.current for one in path] == [0, 2]
    assert [one.to_try for one in path] == [{0, 1}, {0, 2}]


def test_a_race_that_reaches_above_the_state_makes_another_task() -> None:
    tasks = frontier(node(), node(1))
    assert tasks.take() is not None
    assert tasks.take() is None
    tasks.give(1, as_the_task_left_it(node(2), node(1)))
    assert tasks.idle()
    taken = tasks.take()
    assert taken is not None
    assert taken[0] == 0


def test_a_state_whose_task_is_done_is_free_for_the_next_with_that_one_asleep() -> None:
    tasks = frontier(node(1, 2))
    assert tasks.take() is not None
    done = node(1, 2)
    done.current, done.footprint = 1, SOME
    tasks.give(0, as_the_task_left_it(done))
    taken = tasks.take()
    assert taken is not None
    (saved,) = taken[1]["nodes"]  # type: ignore[index,call-overload]
    again = Node.load(Place("file", "", saved))
    assert again.current == 2
    assert again.tried == {0: NOTHING, 1: SOME}


def test_answers_left_of_the_last_run_come_first() -> None:
    one = node(1)
    one.answers = [AnswerBranch((1, 0))]
    tasks = frontier(one)
    taken = tasks.take()
    assert taken is not None
    (saved,) = taken[1]["nodes"]  # type: ignore[index,call-overload]
    first = Node.load(Place("file", "", saved))
    assert (first.current, [answer.at for answer in first.answers]) == (0, [1])
    tasks.give(0, as_the_task_left_it(first))
    taken = tasks.take()
    assert taken is not None
    (saved,) = taken[1]["nodes"]  # type: ignore[index,call-overload]
    assert Node.load(Place("file", "", saved)).current == 1
