"""Equal values have one number."""

from __future__ import annotations

from hvolab.explore.states.values import Values


def test_equal_values_have_one_number_and_others_have_others() -> None:
    values = Values(10)
    numbers = [values.number(one) for one in ((1, "a"), (1, "b"), (1, "a"))]
    assert numbers[0] == numbers[2] != numbers[1]


def test_beyond_what_there_is_room_for_there_is_none() -> None:
    values = Values(1)
    assert [values.number(one) for one in ("a", "b", "a")] == [1, None, 1]
    values.forget()
    assert values.number("b") == 1
