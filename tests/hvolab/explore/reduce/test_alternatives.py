"""Who is to be tried before a step that races with a later one, on the path or behind a state it came to."""

from __future__ import annotations

from emu.choice import Choice, Step
from emu.cpu.condition import Word
from hvolab.explore.footprint.conflict import NOTHING, Footprint
from hvolab.explore.reduce.alternatives import Alternatives
from hvolab.explore.reduce.happens_before import HappensBefore
from hvolab.explore.reduce.node import Node
from hvolab.explore.reduce.waiting import InTheWay
from hvolab.explore.states.visits import Made, Visit
from hvolab.judge.sight.resource import Kind, Resource, Touched

X, Y, Z = 8, 16, 24
LOCK, OTHER_LOCK = Word("lock"), Word("another lock")
IPI = Resource(Kind.IPI, 1)
Waits = dict[Touched, int | None]
NOBODY_WAITS: InTheWay = {}


def writes(*touched: Touched) -> Footprint:
    return NOTHING._replace(writes=frozenset(touched))


class Path:
    """Steps of processes that can all be made at any time."""

    def __init__(self, *steps: tuple[int, Footprint], processes: int = 3) -> None:
        enabled: dict[int, Choice] = {process: Step(process) for process in range(processes)}
        self.history = HappensBefore()
        self.nodes = [Node(dict(enabled), {}, process, {process}) for process, _ in steps]
        for process, footprint in steps:
            self.history.add(process, footprint, frozenset(enabled), {}, {})
        self.alternatives = Alternatives(self.nodes, self.history)

    def comes_to(self, *made: Made, waiting: InTheWay = NOBODY_WAITS) -> list[set[int]]:
        """What is to be tried at each node once the path has come to a state with these steps behind it."""
        self.alternatives.of_behind(Visit(set(), made=set(made)), waiting)
        return [node.to_try for node in self.nodes]


def made(process: int, footprint: Footprint, waits: Waits | None = None) -> Made:
    return Made(process, footprint, tuple((waits or {}).items()))


def test_what_lies_behind_without_a_conflict_changes_nothing() -> None:
    assert Path((0, writes(X))).comes_to(made(1, writes(Y)), made(0, writes(X))) == [{0}]


def test_its_process_is_tried_before_the_step_it_races_with() -> None:
    assert Path((0, writes(X)), (0, writes(Y))).comes_to(made(1, writes(X))) == [{0, 1}, {0}]


def test_any_process_with_steps_behind_may_have_to_begin() -> None:
    """2 may be what 1 waits for: nobody knows in which order they came behind the state."""
    assert Path((0, writes(X))).comes_to(made(1, writes(X)), made(2, writes(Z))) == [{0, 1, 2}]


def test_what_the_path_has_after_the_step_without_needing_it_begins() -> None:
    """Step 1 was made after step 0, and could have come before: it begins whatever leads to the late one."""
    path = Path((0, writes(X)), (2, writes(Y)))
    assert path.comes_to(made(1, writes(X)), made(2, writes(Z))) == [{0, 2}, {2}]


def test_what_needs_the_step_does_not_begin() -> None:
    path = Path((0, writes(X)), (2, writes(X)))
    assert path.comes_to(made(1, writes(X))) == [{0}, {2, 1}]


def test_where_nobody_behind_can_step_everybody_is_tried() -> None:
    path = Path((0, writes(X)), processes=2)
    assert path.comes_to(made(4, writes(X))) == [{0, 1}]


def test_a_step_that_comes_after_its_own_cpu_has_seen_the_other_is_no_race() -> None:
    path = Path((0, writes(X)), (1, writes(X)))
    assert path.comes_to(made(1, writes(X))) == [{0}, {1}]


def test_an_interrupt_requested_behind_the_state_races_with_nothing_its_sender_made_before() -> None:
    """It was once tried before each of these, to no end: the other CPU has nothing to take there."""
    behind = [made(0, writes(IPI)), made(3, writes(X, IPI), {IPI: 1})]
    assert Path((0, writes(X)), processes=4).comes_to(*behind, waiting={3: ({IPI},)}) == [{0}]
    assert Path((0, writes(X)), processes=4).comes_to(*behind) == [{0, 3}]


def test_one_that_either_of_two_may_request_does() -> None:
    path = Path((0, writes(X)), processes=4)
    behind = [made(0, writes(IPI)), made(2, writes(IPI)), made(3, writes(X), {IPI: 1})]
    assert path.comes_to(*behind, waiting={3: ({IPI},)}) == [{0, 2, 3}]


def test_what_waits_for_two_words_at_once_is_tried_before_each() -> None:
    both = writes(LOCK, OTHER_LOCK)
    path = Path((0, writes(LOCK)), (2, writes(OTHER_LOCK)))
    waits: Waits = {LOCK: None, OTHER_LOCK: None}
    assert path.comes_to(made(1, both, waits)) == [{0, 2, 1}, {2, 1}]


def test_a_step_of_the_path_is_tried_by_what_must_come_before_it() -> None:
    path = Path((0, writes(X)), (1, writes(Y)), (2, writes(X)))
    before = path.history.steps[2].before
    path.alternatives.of_step([0], 2, before, {})
    assert [node.to_try for node in path.nodes] == [{0, 2}, {1}, {2}]


def test_a_step_that_never_came_is_tried_before_who_made_it_wait() -> None:
    path = Path((0, writes(LOCK)))
    path.alternatives.of_blocked(1, writes(LOCK), {})
    assert [node.to_try for node in path.nodes] == [{0, 1}]
