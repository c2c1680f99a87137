"""Two orders are one value exactly if swapping neighbours without a conflict leads from one to the other."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from itertools import combinations, groupby, permutations
from random import Random

import pytest

from hvolab.explore.footprint.conflict import NOTHING, Footprint, conflict
from hvolab.explore.states.partial_order import PartialOrder
from hvolab.explore.states.values import Values

Step = tuple[int, Footprint]  # whose, and what it touches
VALUES = Values(100_000)


def reads(*some: int) -> Footprint:
    return NOTHING._replace(reads=frozenset(some))


def writes(*some: int) -> Footprint:
    return NOTHING._replace(writes=frozenset(some))


def marks(*some: int) -> Footprint:
    return NOTHING._replace(marks=frozenset(some))


def value(steps: Sequence[Step], values: Values = VALUES) -> Hashable | None:
    order = PartialOrder(values)
    for process, footprint in steps:
        order.add(process, footprint, footprint)
    return order.state()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (reads(1), reads(1), True),
        (marks(1), marks(1), True),
        (writes(1), writes(2), True),
        (writes(1), writes(1), False),
        (writes(1), reads(1), False),
        (writes(1), marks(1), False),
        (marks(1), reads(1), False),
        (marks(1).union(reads(1)), marks(1), False),
        (marks(1).union(reads(1)), reads(1), False),
    ],
)
def test_orders_differ_where_two_steps_conflict(one: Footprint, other: Footprint, same: bool) -> None:
    assert (value([(0, one), (1, other)]) == value([(1, other), (0, one)])) is same


def test_what_comes_after_a_group_that_commutes_comes_after_each_of_it() -> None:
    writer, *readers = (0, writes(1)), (1, reads(1)), (2, reads(1))
    assert value([*readers, writer]) == value([*reversed(readers), writer])
    assert value([readers[0], writer, readers[1]]) not in (
        value([*readers, writer]),
        value([writer, *readers]),
    )


def test_a_step_is_told_by_what_it_did() -> None:
    """The same touched, something else done."""
    first, second = PartialOrder(VALUES), PartialOrder(VALUES)
    first.add(0, "left 1", writes(1))
    second.add(0, "left 2", writes(1))
    assert first.state() != second.state()


def test_it_can_be_put_back() -> None:
    order = PartialOrder(VALUES)
    order.add(0, "a", writes(1))
    mark, before = order.mark(), order.state()
    order.add(1, "b", reads(1))
    after = order.state()
    order.back(mark)
    assert order.state() == before != after
    order.add(1, "b", reads(1))
    assert order.state() == after


def test_where_there_is_no_room_there_is_no_value_from_then_on() -> None:
    assert value([(0, writes(1)), (0, writes(1)), (0, writes(1))], Values(2)) is None


def classes(steps: Sequence[Step]) -> dict[tuple[int, ...], int]:
    """By definition: each order that keeps those of each process, and the class it is in."""
    orders = [order for order in permutations(range(len(steps))) if _keeps_processes(order, steps)]
    found: dict[tuple[int, ...], int] = {}
    for number, order in enumerate(orders):
        left = [order]
        while left:
            one = left.pop()
            if one not in found:
                found[one] = number
                left += _swapped(one, steps)
    return found


def _keeps_processes(order: Sequence[int], steps: Sequence[Step]) -> bool:
    by_process = sorted(order, key=lambda step: steps[step][0])
    return all(
        list(own) == sorted(own)
        for own in (list(group) for _, group in groupby(by_process, key=lambda step: steps[step][0]))
    )


def _swapped(order: tuple[int, ...], steps: Sequence[Step]) -> Iterator[tuple[int, ...]]:
    for at in range(len(order) - 1):
        (one, touched), (other, also) = steps[order[at]], steps[order[at + 1]]
        if one != other and not conflict(touched, also):
            yield (*order[:at], order[at + 1], order[at], *order[at + 2 :])


def _touches(rng: Random) -> Footprint:
    return Footprint(*(frozenset(rng.sample(range(4), rng.choice([0, 0, 1, 1, 2]))) for _ in range(3)))


@pytest.mark.parametrize("seed", range(60))
def test_random_steps_in_every_order(seed: int) -> None:
    """Against the definition of a trace: classes of orders under swapping neighbours that do not conflict."""
    rng = Random(seed)
    steps = [(rng.randrange(3), _touches(rng)) for _ in range(5)]
    numbers = classes(steps)
    values = {order: value([steps[step] for step in order]) for order in numbers}
    # Steps that do the same, by one process, are the same step.
    shown = {order: [steps[step] for step in order] for order in numbers}
    by_value = {pair for pair in combinations(numbers, 2) if values[pair[0]] == values[pair[1]]}
    by_class = {pair for pair in combinations(numbers, 2) if numbers[pair[0]] == numbers[pair[1]]}
    alike = {pair for pair in combinations(numbers, 2) if shown[pair[0]] == shown[pair[1]]}
    assert by_value - alike == by_class - alike
