"""What a search knows of its path: what is cut off it, and how states come between those of a leap."""

from __future__ import annotations

from itertools import pairwise

from emu.choice import Choice, Step
from emu.cpu.recall import HistoryNode
from emu.cpu.repeat import Repeated
from hvolab.explore.footprint.conflict import NOTHING, Footprint
from hvolab.explore.reduce.explored import Explored
from hvolab.explore.reduce.node import Node
from hvolab.explore.states.values import Values
from hvolab.explore.states.visits import Remembers, Visits
from hvolab.explore.stretches.contention import Contention
from hvolab.explore.stretches.leaps import Leap
from hvolab.explore.stretches.lives import AllLives, Chain, KnownStep, Life, quiet_among

ENABLED: dict[int, Choice] = {0: Step(0), 2: Step(1)}
QUIET = Repeated(1, 1, (), (), 0, HistoryNode())


def writes(*words: int) -> Footprint:
    return NOTHING._replace(writes=frozenset(words))


def reads(*words: int) -> Footprint:
    return NOTHING._replace(reads=frozenset(words))


def private(word: int) -> KnownStep:
    return KnownStep(0, frozenset(), writes(word), {word: 7}, Life(), QUIET, transacts=False)


def leap(*words: int) -> Leap:
    steps = tuple(map(private, words))
    touched = writes(*words)
    return Leap(steps, touched, quiet_among(steps), ENABLED)


def explored() -> Explored:
    """Process 0 steps, and leaps over steps that write 10 to 13; process 2 steps; and process 0 again."""
    made = Explored(Visits(Remembers()), Values(99), Contention(), AllLives(99))
    sleeper = {2: reads(99)}
    for process, word, sleep, at, leapt in (
        (0, 1, sleeper, 0, leap(10, 11, 12, 13)),
        (2, 2, {}, 5, None),
        (0, 3, {}, 6, None),
    ):
        depth = len(made.nodes)
        node = Node(dict(ENABLED), dict(sleep), process, {process}, at=at, leap=leapt)
        node.visit = made.visits.begin(("s", depth), sleep, depth)
        above = made.nodes[-1].visit if made.nodes else None
        if above is not None:
            above.behind[node.visit] = None
        made.nodes.append(node)
        made.history.add(process, writes(word), frozenset(ENABLED), {}, {})
    return made


def shape(nodes: list[Node]) -> list[tuple[int, int, int]]:
    """Of each state: steps before it, who steps there, and how many steps are leapt over behind it."""
    return [(node.at, node.current, 0 if node.leap is None else len(node.leap.steps)) for node in nodes]


def test_cut_it_has_the_first_nodes_and_the_steps_between_them() -> None:
    made = explored()
    made.cut(2)
    assert (len(made.nodes), len(made.history.steps), len(made.visits)) == (2, 2, 3)


def test_what_was_explored_without_knowing_enough_is_forgotten() -> None:
    made = explored()
    life = made.lives.root(0)
    made.forget()
    assert (made.nodes, made.history.steps, len(made.visits)) == ([], [], 0)
    assert made.lives.root(0) is not life


def test_a_leap_that_nobody_disturbs_stays_one() -> None:
    made = explored()
    before = list(made.nodes)
    assert made.open_leaps(2, reads(20)) == 0
    assert made.open_leaps(0, reads(11)) == 0, "its own"
    assert made.nodes == before


def test_a_step_of_a_leap_that_another_disturbs_gets_a_state_and_its_place_in_the_order() -> None:
    made = explored()
    assert made.open_leaps(2, reads(11, 13)) == 2
    assert shape(made.nodes) == [(0, 0, 1), (2, 0, 1), (4, 0, 0), (5, 2, 0), (6, 0, 0)]
    assert [step.footprint for step in made.history.steps] == [
        writes(1),
        writes(11),
        writes(13),
        writes(2),
        writes(3),
    ]
    assert [step.before for step in made.history.steps] == [0b1, 0b11, 0b111, 0b1000, 0b10111]
    assert made.history.steps[1].held == {11: 7}
    opened = made.nodes[1]
    assert (opened.enabled, opened.sleep, opened.to_try) == (ENABLED, {2: reads(99)}, {0})
    assert made.contention.doubts(0, writes(11)) == frozenset(), "nobody has touched it yet"
    made.contention.note(2, reads(11))
    assert made.contention.doubts(0, writes(11)) is None


def test_who_sleeps_before_an_opened_step_is_who_the_step_before_the_leap_let_sleep() -> None:
    made = explored()
    made.nodes[0].sleep[4] = reads(1)
    made.open_leaps(2, reads(12))
    assert made.nodes[1].sleep == {2: reads(99)}


def test_what_lies_behind_an_opened_state_lies_behind_those_before_it() -> None:
    made = explored()
    made.open_leaps(2, reads(12))
    visits = [node.visit for node in made.nodes]
    assert [visit.depth for visit in visits if visit is not None] == [0, 1, 2, 3]
    for visit, behind in pairwise(visits):
        assert visit is not None
        assert behind in visit.behind


def test_a_step_that_was_none_of_the_leap_under_way_gets_a_state() -> None:
    made = explored()
    made.cut(1)
    within = made.leave_leap(2)
    assert shape(made.nodes) == [(0, 0, 2), (3, 0, 0)]
    assert made.nodes[-1] is within
    assert (within.sleep, within.footprint) == ({2: reads(99)}, NOTHING)


def test_a_leap_is_what_was_made_of_it() -> None:
    made = explored()
    made.cut(1)
    made.end_leap(3)
    assert shape(made.nodes) == [(0, 0, 3)]
    made.end_leap(0)
    assert shape(made.nodes) == [(0, 0, 0)]


def test_unfolded_there_is_a_state_before_every_step_and_the_path_stays_what_it_is() -> None:
    made = explored()
    assert [node.at for node in made.unfolded()] == [0, 1, 2, 3, 4, 5, 6]
    assert shape(made.nodes) == [(0, 0, 4), (5, 2, 0), (6, 0, 0)]


def test_what_there_is_doubt_about_is_looked_for_on_the_path_and_among_those_asleep() -> None:
    made = explored()
    steps = (private(2), private(4), private(11), private(99))

    def met(doubts: set[int], process: int = 0) -> Footprint:
        chain = Chain(
            steps, frozenset(), writes(2, 4, 11, 99), frozenset(doubts), made.contention.now, Life(), 0
        )
        return made.met(process, chain, [reads(99)])

    assert met({4}) == NOTHING
    assert met({2, 4}) == writes(2), "a step of another"
    assert met({99}) == writes(99), "of one that sleeps"
    assert met({11}) == NOTHING, "its own leap"
    assert met({11}, process=2) == writes(11), "the leap of another"
    assert met(set()) == NOTHING


def test_what_sleeps_on_a_path_out_of_a_checkpoint_is_no_private_affair() -> None:
    made = explored()
    made.cut(0)
    made.go_on_from([Node(dict(ENABLED), {2: reads(99)}, 0, {0}, tried={4: reads(98)})])
    assert len(made.nodes) == 1
    assert made.contention.doubts(0, writes(98, 99, 100)) == {98, 99}
