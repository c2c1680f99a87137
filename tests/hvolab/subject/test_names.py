"""One kind of table with one look-up and one near-miss message."""

from __future__ import annotations

import pytest

from hvolab.subject.names import Table, UnknownName

COLOURS = Table("colour", {"red": 1, "green": 2, "grey": 3})


def test_things_are_found_by_name_in_their_order() -> None:
    assert (COLOURS.find("green"), COLOURS.names) == (2, ("red", "green", "grey"))
    assert ("grey" in COLOURS, "blue" in COLOURS, "Red" in COLOURS) == (True, False, False)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gren", "did you mean green or grey?"),
        ("rde", "did you mean red?"),
        ("blue", "there are: red, green, grey"),
        ("", "there are: red, green, grey"),
        ("a\nb", "there are: red, green, grey"),
    ],
)
def test_a_name_that_is_none_says_what_is_like_it_or_all_there_is(name: str, said: str) -> None:
    with pytest.raises(UnknownName) as caught:
        COLOURS.find(name)
    assert str(caught.value) == f"there is no colour {name!r}; {said}"
    assert "\n" not in str(caught.value)


def test_a_thing_can_be_called_something_else_too() -> None:
    colours = Table("colour", {"red": 1, "green": 2}, aliases={"crimson": "red", "scarlet": "red"})
    assert (colours.find("crimson"), "scarlet" in colours, colours.names) == (1, True, ("red", "green"))
    assert (colours.aliases_of("red"), colours.aliases_of("green")) == (("crimson", "scarlet"), ())
    with pytest.raises(UnknownName, match=r"^there is no colour 'crimsn'; did you mean crimson\?$"):
        colours.find("crimsn")
    with pytest.raises(ValueError, match=r"^there is a colour 'crimson' already$"):
        colours.and_also(["crimson"], lambda one: one)


def test_two_things_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^two of kind letter are called 'a'$"):
        Table.of("letter", ["ab", "ba", "ac"], lambda word: word[0])
    assert Table.of("letter", ["ab", "ba"], lambda word: word[0]).find("b") == "ba"


def test_a_table_does_not_follow_what_it_was_made_of() -> None:
    made = {"a": 1}
    table = Table("letter", made)
    made["b"] = 2
    assert table.names == ("a",)
