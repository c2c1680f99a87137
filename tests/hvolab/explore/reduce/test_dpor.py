"""The reduction changes how many schedules there are, never what they show.

Each small setup is explored with and without it: the same findings and the same outcomes. And each kind of
resource in the footprints is needed: without it something is lost, or counted twice.
"""

from __future__ import annotations

import pytest
from small_catalog import Small, all_small, other_table
from small_setups import (
    FRAME,
    NEW,
    TABLE,
    WORD,
    Outcomes,
    X,
    Y,
    after_x,
    ends_one_frame_twice,
    fills_the_table,
    flush_page,
    freed,
    loads,
    pretended_flush,
    reads_in_between,
    set_pmd_to_the_leaf,
    set_pte,
    set_x,
    setup_of,
    split,
    stores,
    then,
    zeroes_the_table,
)

from emu.paging.pte import PteBit
from hvolab.explore.budget import Budget
from hvolab.explore.explorer import explore
from hvolab.explore.reduce.dpor import Reduced
from hvolab.explore.reduce.explored import Blind
from hvolab.explore.search.depth_first import everything
from hvolab.explore.search.interface import Freedom, Strategy
from hvolab.explore.states.visits import EVERY_STATE, NO_STATES, Remembers
from hvolab.judge.sight.facts import VersionFacts
from hvolab.judge.sight.resource import Kind
from hvolab.judge.verdict import Verdict, Where
from hvolab.subject.scenario import Setup
from kernel_model.mm.pgtable import PAGE_KERNEL

ALL = frozenset(Freedom)
SMALL = {small.name: small for small in all_small()}
# Too many orders for the unreduced search: what it finds in the time it has must be among what is found.
LARGE = (
    "a flag before the flush, and a late reader",
    "two requests to one CPU",
    "a table zeroed before the flush, and a late reader",
)


class Explored:
    """What an exploration showed, and in how many schedules."""

    def __init__(self, setup: Setup, search: Strategy, runs: int = 20_000) -> None:
        outcomes = Outcomes(search)
        done = explore(setup, outcomes, ALL, Budget(runs=runs))
        self.complete = done.coverage.complete
        self.schedules = done.coverage.schedules
        self.redundant = done.coverage.redundant
        self.seen = outcomes.seen
        self.findings: set[tuple[Verdict, Where]] = {
            (one.finding.verdict, one.finding.where) for one in done.found
        }

    @property
    def verdicts(self) -> set[Verdict]:
        return {verdict for verdict, _ in self.findings}


def test_there_are_at_least_twenty_setups_with_names_of_their_own() -> None:
    assert len(SMALL) == len(all_small()) >= 20


@pytest.mark.parametrize(
    "small", [SMALL[name] for name in SMALL if name not in LARGE], ids=lambda one: one.name
)
def test_reduced_and_unreduced_show_the_same(small: Small) -> None:
    whole = Explored(small.setup, everything())
    assert whole.complete
    for remembers in (NO_STATES, EVERY_STATE, Remembers(), Remembers(lives=20)):
        reduced = Explored(small.setup, Reduced(remembers=remembers))
        assert reduced.complete
        assert reduced.findings == whole.findings
        assert reduced.seen == whole.seen


@pytest.mark.parametrize("name", LARGE)
def test_what_the_unreduced_search_shows_in_its_first_runs_the_reduced_one_shows(name: str) -> None:
    reduced = Explored(SMALL[name].setup, Reduced(remembers=EVERY_STATE))
    part = Explored(SMALL[name].setup, everything(), 1500)
    assert reduced.complete
    assert part.findings <= reduced.findings
    assert part.seen <= reduced.seen


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("a late flush that is none", Verdict.MISSED_FLUSH),
        ("a late free", Verdict.USE_AFTER_FREE),
        ("a flush that covers only the split", Verdict.MISSED_FLUSH),
        ("a store that makes good what was lost", Verdict.LOST_UPDATE),
        ("a table zeroed before the flush", Verdict.KERNEL),
    ],
)
def test_a_verdict_that_flips_on_steps_without_a_common_word_is_found(name: str, verdict: Verdict) -> None:
    """And not in every order: the run the search makes first is without it."""
    assert verdict in Explored(SMALL[name].setup, Reduced()).verdicts
    assert verdict not in Explored(SMALL[name].setup, everything(), 1).verdicts


@pytest.mark.parametrize(
    ("setup", "schedules"),
    [
        # Nothing in common: one order stands for all.
        (setup_of(loads(0, X, Y), loads(1, X, Y)), 1),
        (setup_of(stores((X, 1)), stores((Y, 1))), 1),
        # One word, a store and a load: two orders.
        (setup_of(stores((X, 1)), loads(1, X)), 2),
        # Stores of X and Y against loads of Y and X: before both, between, after both.
        (setup_of(stores((X, 1), (Y, 1)), loads(1, Y, X)), 3),
        # Two stores against one: three places.
        (setup_of(stores((X, 1), (X, 2)), stores((X, 3))), 3),
        # Three CPUs, one word: 3!.
        (setup_of(stores((X, 1)), stores((X, 2)), stores((X, 3))), 6),
    ],
)
def test_reduced_schedules_counted_by_hand(setup: Setup, schedules: int) -> None:
    assert Explored(setup, Reduced(remembers=NO_STATES)).schedules == schedules


# What is lost with each kind of resource left out of the footprints.
LOST = {
    Kind.MEMORY: "store, load of one word",
    Kind.NAMED: "locked increments",
    Kind.BULK_READ: "a bulk copy of other memory against a store",
    Kind.BULK_WRITE: "a bulk fill against a load",
    Kind.TRANSLATION: "not present, then present",
    Kind.TLB: "a flag before the flush, and a late reader",
    Kind.SPLIT: "a flush that covers only the split",
    Kind.DIRECTORIES: "an invalidation beside a detached table",
    Kind.IPI: "two requests to one CPU",
    Kind.INTERRUPT_FLAG: "a flush and a region with interrupts off",
    Kind.OWNER: "a frame that is freed beside a load of it",
    Kind.LOST: "a late free",
    Kind.OWED: "a late flush that is none",
    Kind.CELL: "a store that makes good what was lost",
    Kind.OPERATION: "an operation that returns unflushed",
    Kind.HELD: "two operations on one folio",
    Kind.MAPPED: "a frame that moves to another folio",
    Kind.SECTION_ENTERED: "a reader that comes first, against a grace period",
}
# These order what cannot happen in another order anyway: without them orders are told apart wrongly.
MISCOUNTED = {
    Kind.ACKNOWLEDGED: "a flag before the flush, and a late reader",
    Kind.CONTEXT: "a handler step by step",
    Kind.SECTION_LEFT: "a grace period that begins inside a section",
}


def test_every_kind_of_resource_is_accounted_for() -> None:
    assert set(LOST) | set(MISCOUNTED) == set(Kind)


@pytest.mark.parametrize("kind", LOST, ids=lambda kind: kind.name)
def test_without_a_kind_of_resource_something_is_lost(kind: Kind) -> None:
    setup = SMALL[LOST[kind]].setup
    whole = Explored(setup, Reduced(remembers=EVERY_STATE))
    without = Explored(setup, Reduced(EVERY_STATE, Blind(kinds=frozenset({kind}))))
    assert (without.seen, without.findings) != (whole.seen, whole.findings)
    assert without.seen <= whole.seen
    assert without.findings <= whole.findings


@pytest.mark.parametrize("kind", MISCOUNTED, ids=lambda kind: kind.name)
def test_without_a_kind_of_resource_orders_are_miscounted(kind: Kind) -> None:
    setup = SMALL[MISCOUNTED[kind]].setup
    whole = Explored(setup, Reduced(remembers=NO_STATES))
    without = Explored(setup, Reduced(NO_STATES, Blind(kinds=frozenset({kind}))))
    assert (without.schedules, without.redundant) != (whole.schedules, whole.redundant)


# What is lost with each criterion left out by which versions are told apart.
TOLD_APART = {
    "leads": setup_of(then(split, flush_page, other_table, set_pte(NEW, PAGE_KERNEL)), loads(1, WORD)),
    "lost": setup_of(
        then(split, flush_page, set_pte(NEW, PAGE_KERNEL), freed(FRAME), set_pte(FRAME, PAGE_KERNEL), set_x),
        after_x(loads(1, WORD)),
    ),
    "table": setup_of(
        then(split, flush_page, set_pmd_to_the_leaf, freed(TABLE), zeroes_the_table, fills_the_table),
        loads(1, WORD),
    ),
    "ended": setup_of(ends_one_frame_twice, reads_in_between),
}


def test_every_criterion_is_accounted_for() -> None:
    assert set(TOLD_APART) == set(VersionFacts._fields)


@pytest.mark.parametrize("criterion", TOLD_APART)
def test_without_a_criterion_that_tells_versions_apart_a_finding_is_lost(criterion: str) -> None:
    setup = TOLD_APART[criterion]
    whole, blind = (
        Explored(setup, Reduced()),
        Explored(setup, Reduced(blind=Blind(facts=frozenset({criterion})))),
    )
    assert (blind.seen, blind.findings) != (whole.seen, whole.findings)
    assert blind.seen <= whole.seen
    assert blind.findings <= whole.findings
    assert whole.findings == Explored(setup, everything()).findings


def test_a_table_filled_by_another_cpu_after_it_is_published_is_not_one_filled_before() -> None:
    """Between the two a flush can come, and then an old version that only the second order has."""
    setup = setup_of(then(split, flush_page, stores((WORD, 7))), then(other_table, set_pte(NEW, PAGE_KERNEL)))
    reduced, whole = Explored(setup, Reduced()), Explored(setup, everything())
    assert Verdict.LOST_UPDATE in reduced.verdicts
    assert reduced.findings == whole.findings


def test_an_old_large_entry_whose_flush_came_before_the_frame_changed_is_no_small_one() -> None:
    """The two lead to one frame, but a flush begun after the split should have removed the large one."""
    setup = setup_of(
        then(split, pretended_flush, set_pte(NEW, PAGE_KERNEL)),
        then(loads(1, WORD), set_pte(0, PteBit(0))),
    )
    reduced, whole = Explored(setup, Reduced()), Explored(setup, everything())
    assert Verdict.MISSED_FLUSH in reduced.verdicts
    assert reduced.findings == whole.findings
    assert FRAME != NEW
