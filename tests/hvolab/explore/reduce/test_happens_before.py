"""Which steps come before which, and which race: orders of a few steps, written down by hand."""

from __future__ import annotations

from collections.abc import Mapping

from emu.cpu.condition import Word
from hvolab.explore.footprint.conflict import NOTHING, Footprint
from hvolab.explore.reduce.happens_before import HappensBefore
from hvolab.judge.sight.resource import Kind, Resource, Touched

X, Y = 8, 16
LOCK = Word("lock")
ALL = frozenset({0, 1, 2})
NOBODY: frozenset[int] = frozenset()
EMPTY: Mapping[Touched, int] = {}


def reads(*touched: Touched) -> Footprint:
    return NOTHING._replace(reads=frozenset(touched))


def writes(*touched: Touched) -> Footprint:
    return NOTHING._replace(writes=frozenset(touched))


def marks(*touched: Touched) -> Footprint:
    return NOTHING._replace(marks=frozenset(touched))


def history(*steps: tuple[int, Footprint]) -> tuple[HappensBefore, list[list[int]]]:
    """These steps by these processes, in this order, and what each races with."""
    made = HappensBefore()
    return made, [made.add(process, footprint, ALL, EMPTY, {}) for process, footprint in steps]


def before(made: HappensBefore, number: int) -> set[int]:
    bits = made.steps[number].before
    return {step for step in range(len(made.steps)) if bits >> step & 1}


def test_a_process_comes_after_its_own_steps_and_what_those_came_after() -> None:
    made, races = history((0, writes(X)), (1, reads(X)), (1, reads(Y)), (2, reads(Y)))
    assert [before(made, number) for number in range(4)] == [{0}, {0, 1}, {0, 1, 2}, {3}]
    assert races == [[], [0], [], []]


def test_steps_in_conflict_race_unless_another_comes_between() -> None:
    """0 writes x; 1 reads x and writes y; 2 reads y and x: that x was written is known to 2 through 1."""
    made, races = history((0, writes(X)), (1, reads(X)), (1, writes(Y)), (2, reads(X, Y)))
    assert races == [[], [0], [], [2]]
    assert before(made, 3) == {0, 1, 2, 3}


def test_reads_race_with_the_write_that_follows_and_not_with_each_other() -> None:
    _, races = history((0, reads(X)), (1, reads(X)), (2, writes(X)))
    assert races == [[], [], [0, 1]]


def test_marks_race_with_who_looks_and_not_with_each_other() -> None:
    _, races = history((0, marks(X)), (1, marks(X)), (2, reads(X)))
    assert races == [[], [], [0, 1]]


def test_a_history_that_is_cut_is_the_one_before() -> None:
    made, _ = history((0, writes(X)), (1, marks(X)), (2, reads(X)))
    made.cut(1)
    assert len(made.steps) == 1
    assert made.add(2, reads(X), ALL, EMPTY, {}) == [0]
    again, _ = history((0, writes(X)), (2, reads(X)))
    assert made.steps == again.steps


def test_an_acquire_races_with_the_other_acquire_and_not_with_the_release_it_waited_for() -> None:
    """The lock's word holds 0 while it is free: before the release the second acquire could not have come."""
    made = HappensBefore()
    lock = writes(LOCK)
    assert made.add(0, lock, ALL, {LOCK: 0}, {LOCK: 0}) == []
    assert made.add(0, lock, ALL, {LOCK: 1}, {}) == []
    assert made.add(1, lock, ALL, {LOCK: 0}, {LOCK: 0}) == [0]
    assert before(made, 2) == {0, 1, 2}, "the release comes before it all the same"


def test_what_was_still_to_come_is_no_race_where_the_value_is_not_known() -> None:
    """It could not step before that step, so it waited for it."""
    made = HappensBefore()
    made.add(0, writes(LOCK), frozenset({0}), EMPTY, {})
    assert made.add(1, reads(LOCK), ALL, EMPTY, {LOCK: None}) == []
    made = HappensBefore()
    made.add(0, writes(LOCK), frozenset({0, 1}), EMPTY, {})
    assert made.add(1, reads(LOCK), ALL, EMPTY, {LOCK: None}) == [0]


def test_an_interrupt_waits_for_its_request() -> None:
    """Interrupts were on when CLI came, but nothing was pending yet: no race with that CLI."""
    flag, pending = Resource(Kind.INTERRUPT_FLAG, 1), Resource(Kind.IPI, 1)
    wanted: dict[Touched, int | None] = {flag: 1, pending: None}
    made = HappensBefore()
    made.add(1, writes(flag), frozenset({0, 1}), {flag: 1}, {})  # CLI
    made.add(1, writes(flag), frozenset({0, 1}), {flag: 0}, {})  # STI
    made.add(0, writes(pending), frozenset({0, 1}), EMPTY, {})
    assert made.add(256, reads(flag, pending), ALL, EMPTY, wanted) == [0]
    made = HappensBefore()
    made.add(1, writes(flag), frozenset({0, 1}), {flag: 1}, {})
    made.add(1, writes(flag, X), frozenset({0, 1}), {flag: 0}, {})
    made.add(0, reads(X)._replace(writes=frozenset({pending})), frozenset({0, 1}), EMPTY, {})
    assert made.add(256, reads(flag, pending), ALL, EMPTY, wanted) == []


def test_a_step_that_is_blocked_at_the_end_races_too() -> None:
    made = HappensBefore()
    made.add(0, writes(LOCK), ALL, {LOCK: 0}, {LOCK: 0})
    assert made.would_race(1, writes(LOCK), {LOCK: 0}) == [0]
    assert made.before_blocked(1, writes(LOCK)) == 0b1
    assert len(made.steps) == 1, "it was not made"


def test_what_can_begin_without_a_step_is_all_that_does_not_need_it() -> None:
    """Race of step 0 with the last: 1 can begin (step 1 does not need step 0); 2 needs what 1 did."""
    made, _ = history((0, writes(X)), (1, writes(Y)), (2, reads(Y)), (2, reads(X)))
    assert made.firsts(0, 2, made.steps[3].before) == {1}
    made, _ = history((0, writes(X)), (1, reads(X)), (2, reads(X)))
    assert made.firsts(0, 2, made.steps[2].before) == {2}, "step 1 needs step 0"


def test_a_step_behind_races_with_all_that_it_may_have_waited_for() -> None:
    """It need not be the next step of its process: what it waits for may be asked for only after these."""
    flag, pending = Resource(Kind.INTERRUPT_FLAG, 1), Resource(Kind.IPI, 1)
    wanted: dict[Touched, int | None] = {flag: 1, pending: None}
    made = HappensBefore()
    made.add(0, writes(pending), frozenset({0, 1}), EMPTY, {})
    made.add(1, writes(flag), frozenset({0, 1}), {flag: 1}, {})  # CLI
    made.add(1, writes(flag), frozenset({0, 1}), {flag: 0}, {})  # STI
    assert made.would_race_behind(3, reads(flag, pending), wanted, NOBODY) == [0, 1]


def test_a_step_behind_could_not_have_come_where_what_it_waits_for_was_otherwise() -> None:
    made = HappensBefore()
    made.add(0, writes(LOCK), ALL, {LOCK: 0}, {LOCK: 0})
    made.add(0, writes(LOCK), ALL, {LOCK: 1}, {})
    assert made.would_race_behind(1, writes(LOCK), {LOCK: 0}, NOBODY) == [0]


def test_what_comes_after_steps_of_a_process_behind_races_with_none_of_it_but_who_made_it_wait() -> None:
    made = HappensBefore()
    made.add(0, writes(LOCK), ALL, {LOCK: 0}, {})
    made.add(0, writes(X), ALL, {}, {})
    made.add(2, writes(Y), ALL, {}, {})
    assert made.would_race_behind(1, writes(X, Y, LOCK), {LOCK: 0}, NOBODY) == [0, 1, 2]
    assert made.would_race_behind(1, writes(X, Y, LOCK), {LOCK: 0}, frozenset({0})) == [0, 2]


def test_what_has_been_made_without_a_step_begins_whatever_follows() -> None:
    made, _ = history((0, writes(X)), (1, writes(Y)), (2, reads(Y)), (0, writes(Y)))
    assert made.known_firsts(0) == {1}
    made, _ = history((0, writes(X)), (1, reads(X)))
    assert made.known_firsts(0) == set()
