"""Which two steps may not change places."""

from __future__ import annotations

import pytest

from hvolab.explore.footprint.conflict import NOTHING, Footprint, conflict

X, Y = 8, 16


def step(
    *, reads: tuple[int, ...] = (), writes: tuple[int, ...] = (), marks: tuple[int, ...] = ()
) -> Footprint:
    return Footprint(frozenset(reads), frozenset(writes), frozenset(marks))


READS, WRITES, MARKS = step(reads=(X,)), step(writes=(X,)), step(marks=(X,))


@pytest.mark.parametrize(
    ("a", "b", "matters"),
    [
        (READS, READS, False),
        (READS, WRITES, True),
        (READS, MARKS, True),
        (WRITES, WRITES, True),
        (WRITES, MARKS, True),
        (MARKS, MARKS, False),
    ],
)
def test_two_looks_and_two_marks_commute_and_nothing_else_does(
    a: Footprint, b: Footprint, matters: bool
) -> None:
    assert conflict(a, b) is matters
    assert conflict(b, a) is matters
    assert not conflict(a, step(reads=(Y,), writes=(Y,), marks=(Y,)))
    assert not conflict(a, NOTHING)


def test_a_union_has_what_both_have() -> None:
    assert READS.union(WRITES).union(step(marks=(X, Y))) == step(reads=(X,), writes=(X,), marks=(X, Y))
    assert READS.union(NOTHING) == READS
