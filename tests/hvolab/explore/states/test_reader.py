"""A state has all that the rest of a run depends on: with any part left out something is never shown."""

from __future__ import annotations

import pytest
from small_catalog import all_small
from small_setups import (
    NEW,
    NEW_WORD,
    WORD,
    Outcomes,
    X,
    copy_out,
    loads,
    operation,
    set_pte,
    sets,
    setup_of,
    split,
    stores,
    then,
    waits,
)
from small_setups import without_interrupts as interrupts_off

from emu.cpu.condition import Acknowledged, Word, WordIs
from emu.cpu.ops import AddWords, Await, Count, Load, SendIpi, Store
from hvolab.explore.budget import Budget
from hvolab.explore.explorer import explore
from hvolab.explore.reduce.dpor import Reduced
from hvolab.explore.reduce.explored import Blind
from hvolab.explore.search.interface import Freedom
from hvolab.explore.states.reader import ORDER, PARTS
from hvolab.explore.states.visits import EVERY_STATE, NO_STATES
from hvolab.subject.scenario import Setup
from kernel_model.boot import Kernel
from kernel_model.core.smp import CALL_FUNCTION_VECTOR, SyncCore
from kernel_model.mm.pgtable import PAGE_KERNEL

SMALL = {small.name: small.setup for small in all_small()}
HELD = Word("held")


async def holds_unless_x(kernel: Kernel) -> None:
    if not await Load(X):
        await AddWords(((HELD, 1),))


async def waits_until_none_holds(kernel: Kernel) -> None:
    await Await(WordIs(HELD, 0))


async def counts_unless_x(kernel: Kernel) -> None:
    if not await Load(X):
        await Count("nr_memmap_pages", 1)


async def stores_what_is_there(kernel: Kernel) -> None:
    await Store(WORD, await Load(WORD))


async def asks_and_waits(kernel: Kernel) -> None:
    request = await SendIpi(frozenset({0}), CALL_FUNCTION_VECTOR, SyncCore())
    await waits(3)(kernel)
    await Await(Acknowledged(request))
    await sets(1)(kernel)


# For each part a setup in which two orders lead to states that differ in nothing else.
LOST: dict[str, Setup] = {
    # Who stored last: both have forgotten what was there before.
    "memory": setup_of(then(stores((X, 1)), waits(0), loads(0, X)), then(stores((X, 2)), sets(0))),
    # Whether the other took the lock, and ended with it.
    "words": setup_of(then(stores((X, 1)), waits(0), waits_until_none_holds), then(holds_unless_x, sets(0))),
    # Whether a page was counted, by one that has ended.
    "counters": setup_of(operation(then(stores((X, 1)), waits(0))), then(counts_unless_x, sets(0))),
    # Whether an interrupt that does nothing was taken before interrupts went off for good.
    "interrupts": setup_of(then(waits(2), interrupts_off(then(sets(3), waits(1)))), asks_and_waits, sets(2)),
    "ledger": SMALL["store, load of one word"],
    "CPUs": SMALL["two words at once, each of which is spoilt by another CPU"],
    "past": SMALL["a flush that covers only the split"],
    # Whether a store that changes nothing came after the copy, which then loses it.
    "judges": setup_of(
        then(stores_what_is_there, sets(0)),
        then(
            split,
            operation(then(copy_out, stores((NEW_WORD, 3)), waits(0), set_pte(NEW, PAGE_KERNEL))),
        ),
    ),
}
# No setup is known that misses what footprints of later steps need beside: races may.
NEVER_ALONE = {"footprints"}


def shown(setup: Setup, search: Reduced) -> tuple[object, ...]:
    outcomes = Outcomes(search)
    done = explore(setup, outcomes, frozenset(Freedom), Budget())
    assert done.coverage.complete
    return outcomes.seen, {(one.finding.verdict, one.finding.where) for one in done.found}


def test_every_part_is_accounted_for() -> None:
    assert {*LOST, *NEVER_ALONE} == set(PARTS)


def test_without_the_order_of_what_is_past_something_is_lost() -> None:
    setup = LOST["past"]
    whole = shown(setup, Reduced(NO_STATES))
    assert shown(setup, Reduced(EVERY_STATE)) == whole
    assert shown(setup, Reduced(EVERY_STATE, Blind(states=frozenset({ORDER})))) != whole


@pytest.mark.parametrize("part", LOST)
def test_without_a_part_of_the_state_something_is_lost(part: str) -> None:
    whole = shown(LOST[part], Reduced(NO_STATES))
    assert shown(LOST[part], Reduced(EVERY_STATE)) == whole
    assert shown(LOST[part], Reduced(EVERY_STATE, Blind(states=frozenset({part})))) != whole
