"""Several searches in turn."""

from __future__ import annotations

import pytest
from small_searches import FREEDOMS, Listed

from emu.choice import Step
from hvolab.checked.error import InputError
from hvolab.checked.place import Place
from hvolab.explore.search.interface import Next
from hvolab.explore.search.portfolio import Portfolio


def turns(portfolio: Portfolio, members: tuple[Listed, ...]) -> str:
    """Whose turn it was, run by run."""
    found = ""
    while portfolio.begin():
        before = [len(member.stepped_by) for member in members]
        portfolio.picker(None, None, FREEDOMS).pick([Step(0)])  # type: ignore[arg-type]
        (turn,) = [
            member.name
            for member, count in zip(members, before, strict=True)
            if len(member.stepped_by) > count
        ]
        found += turn
        assert portfolio.end(None) is Next.GO_ON  # type: ignore[arg-type]
    return found


def test_each_has_its_turn_until_the_first_ends() -> None:
    members = (Listed("a", 3), Listed("b", 9), Listed("c", 9))
    assert turns(Portfolio(members), members) == "abcabcabc"


def test_one_that_has_ended_is_left_out() -> None:
    members = (Listed("a", 4), Listed("b", 1), Listed("c", 2))
    assert turns(Portfolio(members), members) == "abcaca" + "a"


def test_it_covers_what_its_first_member_covers() -> None:
    assert Portfolio((Listed("a", 1), Listed("b", 1))).extent() == "a"


def test_a_member_that_starts_again_does_not_undo_what_others_have_covered() -> None:
    class Learns(Listed):
        def end(self, system: object) -> Next:
            return Next.START_AGAIN

    portfolio = Portfolio((Listed("a", 2), Learns("b", 2)))
    ends = []
    while portfolio.begin():
        ends.append(portfolio.end(None))  # type: ignore[arg-type]
    assert ends == [Next.GO_ON] * 4


def test_it_goes_on_where_it_was_saved() -> None:
    first = Portfolio((Listed("a", 3), Listed("b", 1)))
    assert [first.begin() for _ in range(3)] == [True] * 3  # a, b, a: b has no run left
    members = (Listed("a", 9), Listed("b", 9))
    second = Portfolio(members)
    second.load(Place("file", "", first.save()))
    assert turns(second, members) == "a"


def test_a_state_of_another_portfolio_is_refused() -> None:
    saved = Portfolio((Listed("a", 3), Listed("b", 1))).save()
    with pytest.raises(InputError, match="3 members"):
        Portfolio((Listed("a", 3), Listed("b", 1), Listed("c", 1))).load(Place("file", "", saved))


def test_a_portfolio_of_nothing_is_none() -> None:
    with pytest.raises(ValueError, match=r"^a portfolio of no strategies$"):
        Portfolio(())
