"""A state of the current path: what has been tried there, and what is still to be."""

from __future__ import annotations

import pytest

from emu.choice import Step, TakeInterrupt
from hvolab.checked.error import InputError
from hvolab.checked.place import Place
from hvolab.explore.footprint.conflict import NOTHING, Footprint
from hvolab.explore.reduce.node import AnswerBranch, Node

SOME = Footprint(frozenset({8}), frozenset({16}), frozenset())


def node() -> Node:
    return Node({0: Step(0), 1: Step(1), 2: Step(2), 256: TakeInterrupt(0)}, {2: SOME}, 0, {0})


def test_answers_are_tried_from_the_innermost_out() -> None:
    """Two questions in a step, the first with two groups of answers, the second with two: four runs."""
    one = node()
    one.answers = [AnswerBranch((0, 2)), AnswerBranch((1, 0))]
    seen = []
    while one.next_answer():
        seen.append([answer.at for answer in one.answers])
        if len(one.answers) == 1:
            one.answers.append(AnswerBranch((1, 0)))  # the run asks again
    assert seen == [[0, 1], [1], [1, 1]]
    assert one.answers == []


def test_processes_are_tried_that_are_asked_for_and_do_not_sleep() -> None:
    one = node()
    one.footprint = SOME
    one.to_try |= {1, 2, 256}
    assert one.next_process()
    assert (one.current, one.tried, one.footprint) == (1, {0: SOME}, NOTHING)
    assert one.next_process()
    assert one.current == 256
    assert not one.next_process(), "2 sleeps"


@pytest.mark.parametrize(
    ("firsts", "covered"), [({0}, True), ({1}, False), ({1, 2}, True), ({7}, False), (set(), False)]
)
def test_one_of_several_beginnings_is_enough(firsts: set[int], covered: bool) -> None:
    one = node()
    one.next_process()
    assert one.covers(firsts) is covered


def test_a_node_survives_being_saved() -> None:
    one = node()
    one.tried, one.footprint, one.answers = {1: SOME}, SOME, [AnswerBranch((0, 2), 1)]
    assert Node.load(Place("file", "", one.save())) == one


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"current": 5}, "a process that is not enabled is to be tried"),
        ({"to_try": [0, 9]}, "a process that is not enabled is to be tried"),
        ({"answers": [[[0, 1]]]}, "expected options and a number"),
        ({"answers": [[[0, 1], 2]]}, "2"),
    ],
)
def test_a_damaged_node_is_refused(changed: dict[str, object], message: str) -> None:
    saved = node().save()
    assert isinstance(saved, dict)
    with pytest.raises(InputError) as caught:
        Node.load(Place("file", "", {**saved, **changed}))
    assert message in str(caught.value)
