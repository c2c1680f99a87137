"""A place in a document: the values it gives, and the line it refuses others with."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hvolab.checked.error import InputError
from hvolab.checked.place import MAX_COUNT, Place


def at(value: object) -> Place:
    return Place("file", "rows[2].x", value)


RIGHT: list[tuple[Callable[[Place], object], object, object]] = [
    (Place.text, "", ""),
    (Place.count, 0, 0),
    (Place.count, MAX_COUNT, MAX_COUNT),
    (Place.integers, [1, -MAX_COUNT], [1, -MAX_COUNT]),
    (Place.word, "0x0", 0),
    (Place.word, "0xFFFFffffFFFFffff", (1 << 64) - 1),
    (lambda place: place.integer(-1, 1), -1, -1),
]


@pytest.mark.parametrize(("read", "value", "result"), RIGHT, ids=[repr(value)[:30] for _, value, _ in RIGHT])
def test_a_value_that_is_one(read: Callable[[Place], object], value: object, result: object) -> None:
    assert read(at(value)) == result


HEX = 'a hex string like "0x1f" of at most 64 bits'
WRONG: list[tuple[Callable[[Place], object], object, str]] = [
    (Place.text, 6, "expected a string, found 6"),
    (Place.text, None, "expected a string, found None"),
    (Place.count, True, "expected an integer, found True"),
    (Place.count, 1.0, "expected an integer, found 1.0"),
    (Place.count, "1", "expected an integer, found '1'"),
    (Place.count, -1, f"expected an integer from 0 to {MAX_COUNT}, found -1"),
    (Place.count, MAX_COUNT + 1, f"expected an integer from 0 to {MAX_COUNT}, found {MAX_COUNT + 1}"),
    (lambda place: place.integer(3, 5), 6, "expected an integer from 3 to 5, found 6"),
    (Place.word, 16, f"expected {HEX}, found 16"),
    (Place.word, "1f", f"expected {HEX}, found '1f'"),
    (Place.word, "0x", f"expected {HEX}, found '0x'"),
    (Place.word, "-0x1", f"expected {HEX}, found '-0x1'"),
    (Place.word, "0x1\n", f"expected {HEX}, found '0x1\\n'"),
    (Place.word, "0x" + "f" * 17, f"expected {HEX}, found '0x{'f' * 17}'"),
    (Place.items, {}, "expected an array, found {}"),
    (lambda place: place.optional("a"), [], "expected an object, found []"),
    (lambda place: place.field("a"), {"b": 1}, "missing field 'a'"),
    (Place.text, ["x" * 100], "expected a string, found ['" + "x" * 58 + "..."),
]


@pytest.mark.parametrize(("read", "value", "problem"), WRONG, ids=[problem[:60] for *_, problem in WRONG])
def test_a_value_that_is_none(read: Callable[[Place], object], value: object, problem: str) -> None:
    with pytest.raises(InputError) as error:
        read(at(value))
    assert str(error.value) == f"file: rows[2].x: {problem}"


def test_a_place_names_the_way_to_it() -> None:
    document = Place("file", "", {"rows": [{"x": 1}]})
    (row,) = document.field("rows").items()
    assert (row.where, row.field("x").where, row.field("x").value) == ("rows[0]", "rows[0].x", 1)
    with pytest.raises(InputError) as error:
        document.field("rows").items()[0].field("x").text()
    assert str(error.value) == "file: rows[0].x: expected a string, found 1"


def test_the_whole_document_is_named_as_one() -> None:
    assert str(Place("file", "", 1).error("wrong")) == "file: the whole file: wrong"


def test_one_wrong_integer_of_many_is_named() -> None:
    with pytest.raises(InputError) as error:
        at([1, "2"]).integers()
    assert str(error.value) == "file: rows[2].x[1]: expected an integer, found '2'"
