"""The way of a run: where it ends."""

from __future__ import annotations

from small_setups import OTHER, X, loads, setup_of, stores, then, waits

from emu.cpu.condition import Word
from emu.cpu.ops import Load
from hvolab.explore.budget import Budget
from hvolab.explore.explorer import Exploration, explore
from hvolab.explore.reduce.dpor import Reduced
from hvolab.explore.search.interface import Freedom
from hvolab.explore.states.visits import EVERY_STATE, NO_STATES, Remembers
from hvolab.subject.scenario import Setup
from kernel_model.boot import Kernel
from kernel_model.core.spinlock import HUGETLB_LOCK, ZONE_LOCK, spin_lock, spin_unlock


def search(setup: Setup, remembers: Remembers, steps: int = 1000) -> Exploration:
    return explore(setup, Reduced(remembers), frozenset(Freedom), Budget(steps=steps))


# The second store can come at five places; wherever it came, before the last load all are at one state.
DIAMOND = setup_of(then(stores((X, 1)), loads(0, X, X, X)), stores((X, 1)))


def test_a_run_ends_where_another_has_been() -> None:
    plain, done = search(DIAMOND, NO_STATES).coverage, search(DIAMOND, EVERY_STATE).coverage
    assert (plain.schedules, plain.seen_before) == (5, 0)
    assert (done.schedules, done.seen_before) == (2, 3)
    assert done.steps < plain.steps


def test_a_run_that_a_budget_has_cut_off_leaves_no_state_explored_to_the_end() -> None:
    """Behind the states on its way lies what it did not come to."""
    done = search(DIAMOND, EVERY_STATE, steps=3).coverage
    assert (done.seen_before, done.cut_off, done.complete) == (0, done.schedules, False)


def test_a_deadlock_behind_a_state_is_found_once_and_its_races_are_known_to_others() -> None:
    setup = setup_of(then(stores((X, 1)), waits(0)), then(stores((X, 1)), waits(1)))
    for remembers in (NO_STATES, EVERY_STATE):
        done = search(setup, remembers)
        assert done.coverage.complete
        assert len(done.found) == 1


async def both(first: Word, second: Word) -> None:
    await spin_lock(first)
    await spin_lock(second)
    await spin_unlock(second)
    await spin_unlock(first)


async def locks_if_x(kernel: Kernel) -> None:
    if await Load(X):
        await both(HUGETLB_LOCK, ZONE_LOCK)


async def locks_the_other_way(kernel: Kernel) -> None:
    await both(ZONE_LOCK, HUGETLB_LOCK)
    await stores((X, 1), (X, 0), *((OTHER, n) for n in range(8)))(kernel)


def test_the_orders_of_locks_count_in_a_run_that_ends_at_a_state() -> None:
    """Of a context that has ended no state tells: the run in which it locked ends where another has been."""
    setup = setup_of(locks_if_x, locks_the_other_way)
    told = [search(setup, remembers).warnings for remembers in (NO_STATES, EVERY_STATE, Remembers())]
    assert len(told[0]) == 1
    assert told == [told[0]] * 3
