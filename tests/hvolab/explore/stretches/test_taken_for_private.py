"""Steps that were once taken for private: with them left out, something was never shown."""

from __future__ import annotations

import pytest
from small_catalog import all_small
from small_setups import LOCK, NEW, NEW_WORD, Outcomes, X, Y, locked, note, setup_of, stores

from emu.addr import VirtAddr
from emu.cpu.condition import Word, WordIs
from emu.cpu.ops import AddWords, Annotate, Await, Load, Store
from hvolab.explore.budget import Budget
from hvolab.explore.explorer import explore
from hvolab.explore.reduce.dpor import Reduced
from hvolab.explore.reduce.explored import Blind
from hvolab.explore.search.depth_first import everything
from hvolab.explore.search.interface import Freedom, Strategy
from hvolab.explore.states.visits import EVERY_STATE, NO_STATES, Remembers
from hvolab.judge.sight.resource import Kind
from hvolab.subject.scenario import Setup
from kernel_model.boot import Kernel
from kernel_model.core.events import PageFreed
from kernel_model.core.spinlock import spin_lock, spin_unlock

PRIVATE = VirtAddr(X + 128)
GO = Word("go")


async def stores_locked(kernel: Kernel) -> None:
    await locked(stores((X, 1)))(kernel)


async def loads_locked(kernel: Kernel) -> None:
    await spin_lock(LOCK)
    await Load(PRIVATE)
    seen = await Load(X)
    await Load(PRIVATE)
    await spin_unlock(LOCK)
    await note(1, seen)


async def lets_go_in_the_middle(kernel: Kernel) -> None:
    await Store(PRIVATE, 1)
    await AddWords(((GO, 1),))
    await Store(Y, 1)
    await Store(PRIVATE, 2)


async def lets_go_for_a_moment(kernel: Kernel) -> None:
    await Store(PRIVATE, 1)
    await AddWords(((GO, 1),))
    await AddWords(((GO, -1),))
    await Store(PRIVATE, 2)


async def waits_if_it_comes_first(kernel: Kernel) -> None:
    if not await Load(X):
        await Await(WordIs(GO, 1))
        await note(2, await Load(Y))
    await note(2, "end")


async def uses_what_it_has_freed(kernel: Kernel) -> None:
    await Annotate(PageFreed(NEW, 0, 1))
    await Store(X, 1)
    await Load(NEW_WORD)
    await Load(PRIVATE)
    await Store(X, 2)


TAKEN_FOR_PRIVATE = {
    "what a lock has ordered is no race, and yet not private": (stores_locked, loads_locked),
    "a step lets another go on in the middle": (
        stores((X, 1)),
        lets_go_in_the_middle,
        waits_if_it_comes_first,
    ),
    "a step lets another go on for a moment": (stores((X, 1)), lets_go_for_a_moment, waits_if_it_comes_first),
    "a step that is wrong is told of": (uses_what_it_has_freed, stores((X, 3), (X, 4))),
}


def shown(setup: Setup, search: Strategy) -> object:
    outcomes = Outcomes(search)
    done = explore(setup, outcomes, frozenset(Freedom), Budget(runs=20_000))
    assert done.coverage.complete
    return outcomes.seen, {(one.finding.verdict, one.finding.where) for one in done.found}


@pytest.mark.parametrize("name", TAKEN_FOR_PRIVATE)
def test_what_was_once_taken_for_private_is_not(name: str) -> None:
    setup = setup_of(*TAKEN_FOR_PRIVATE[name])
    whole = shown(setup, everything())
    for remembers in (NO_STATES, EVERY_STATE, Remembers()):
        assert shown(setup, Reduced(remembers=remembers)) == whole


# Of these kinds a program is known that goes wrong if what is private does not depend on them.
CONTENDED = {
    Kind.MEMORY: "a request that may come before a region with interrupts off",
    Kind.NAMED: "the second allocation fails",
}


@pytest.mark.parametrize("kind", CONTENDED, ids=lambda kind: kind.name)
def test_without_a_kind_in_what_makes_a_step_private_something_is_lost(kind: Kind) -> None:
    (setup,) = (small.setup for small in all_small() if small.name == CONTENDED[kind])
    whole = shown(setup, Reduced(NO_STATES))
    assert shown(setup, Reduced(NO_STATES, Blind(contended=frozenset({kind})))) != whole
