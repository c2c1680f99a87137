"""Which states have been explored to the end, with what asleep, and what lay behind them."""

from __future__ import annotations

from hvolab.explore.footprint.conflict import NOTHING, Footprint
from hvolab.explore.states.visits import Made, Remembers, Visit, Visits

X, Y = 8, 16


def writes(word: int) -> Footprint:
    return NOTHING._replace(writes=frozenset({word}))


def made(visits: Visits, process: int, word: int) -> Made:
    return visits.made(process, writes(word), {})


def chain(visits: Visits, *states: str | None) -> list[Visit]:
    """One after the other, each with a step of its own: the n-th writes word n."""
    found: list[Visit] = []
    for number, state in enumerate(states):
        visit = visits.begin(state, {}, number)
        visit.made.add(made(visits, 0, number))
        if found:
            found[-1].behind[visit] = None
        found.append(visit)
    return found


def finish(visits: Visits, chained: list[Visit]) -> None:
    """From the last to the first, as a search that is depth first does."""
    for number in range(len(chained) - 1, -1, -1):
        visits.finish(chained[number], chained[number - 1] if number else None)


def words(visit: Visit) -> set[int]:
    return {word for one in visit.all() for word in one.footprint.writes if isinstance(word, int)}


def test_what_is_under_way_is_not_explored_to_the_end() -> None:
    visits = Visits(Remembers())
    visit = visits.begin("s", {}, 0)
    assert visits.finished("s", {}) is None
    visits.finish(visit, None)
    assert visits.finished("s", {}) is visit
    assert visits.finished("another", {}) is None


def test_with_more_asleep_less_was_explored() -> None:
    visits = Visits(Remembers())
    visit = visits.begin("s", {1: NOTHING}, 0)
    visits.finish(visit, None)
    assert visits.finished("s", {}) is None
    assert visits.finished("s", {1: NOTHING}) is visit
    assert visits.finished("s", {1: NOTHING, 2: NOTHING}) is visit


def test_what_a_budget_has_cut_off_counts_for_nothing() -> None:
    visits = Visits(Remembers())
    visit = visits.begin("s", {}, 0)
    visit.cut_off = True
    visits.finish(visit, None)
    assert visits.finished("s", {}) is None


def test_behind_a_state_lie_the_steps_of_those_it_leads_to() -> None:
    visits = Visits(Remembers())
    chained = chain(visits, "a", None, None, "b", None)
    finish(visits, chained)
    assert words(chained[0]) == {0, 1, 2, 3, 4}
    assert words(chained[3]) == {3, 4}
    again = visits.begin("c", {}, 0)
    again.behind[chained[3]] = None
    visits.finish(again, None)
    assert words(again) == {3, 4}


def test_a_state_that_is_not_remembered_leaves_its_steps_to_the_one_above() -> None:
    visits = Visits(Remembers())
    chained = chain(visits, "a", None, "b", None)
    finish(visits, chained)
    assert list(chained[0].behind) == [chained[2]]
    assert len(chained[0].made) == 2
    assert not chained[2].behind


def test_beyond_the_limit_no_state_is_remembered() -> None:
    visits = Visits(Remembers(most=2))
    finish(visits, chain(visits, "a", "b", "c"))
    assert (len(visits), visits.full) == (2, True)
    assert visits.finished("c", {}) is None
    assert words(visits.finished("b", {}) or Visit(set())) == {1, 2}


def test_one_in_so_many_is_looked_at_and_none_where_none_is_remembered() -> None:
    visits = Visits(Remembers(one_in=4))
    assert [at for at in range(9) if visits.looks_at(at, meets=False)] == [0, 4, 8]
    assert all(visits.looks_at(at, meets=True) for at in range(9))
    assert not any(Visits(Remembers(0)).looks_at(at, meets=True) for at in range(9))


def test_where_looking_does_not_pay_fewer_are_looked_at() -> None:
    visits = Visits(Remembers(one_in=4, least=16))
    for number in range(500):
        visits.finished(number, {})
    assert [at for at in range(17) if visits.looks_at(at, meets=False)] == [0, 8, 16]
    assert [at for at in range(5) if visits.looks_at(at, meets=True)] == [0, 2, 4]
    for number in range(5000):
        visits.finished(number, {})
    assert [at for at in range(17) if visits.looks_at(at, meets=False)] == [0, 16]
    assert [at for at in range(17) if visits.looks_at(at, meets=True)] == [0, 4, 8, 12, 16]


def test_where_it_pays_as_many_are_looked_at_as_before() -> None:
    visits = Visits(Remembers(one_in=4))
    visits.finish(visits.begin("s", {}, 0), None)
    for number in range(20_000):
        visits.finished("s" if not number % 100 else number, {})
    assert visits.looks_at(4, meets=False)


def test_the_same_step_is_one_object() -> None:
    visits = Visits(Remembers())
    assert made(visits, 0, X) is made(visits, 0, X)
    assert made(visits, 0, X) is not made(visits, 1, X)
    assert made(visits, 0, X) is not made(visits, 0, Y)


def test_what_is_forgotten_is_not_there() -> None:
    visits = Visits(Remembers())
    finish(visits, chain(visits, "a"))
    visits.forget()
    assert (len(visits), visits.finished("a", {})) == (0, None)


def test_a_visit_on_a_path_that_is_given_more_states_has_another_depth() -> None:
    visits = Visits(Remembers())
    first, second = visits.begin("a", {}, 1), visits.begin("b", {}, 2)
    second.back_to = 1
    for one in (first, second):
        one.moved([0, 3, 4])
    assert (first.depth, second.depth, second.back_to) == (3, 4, 3)
