"""Every allocation that can fail, alone, with another, and with all that follow: what becomes of everything.

What must come out is reckoned (`hvo_reckoning`) and compared whole (`hvo_deeds.Outcome`): page tables and
struct pages, counters, free frames, lists, the pool's numbers, and that nothing is wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import pytest
from hvo_bench import Bench, Deed, Differs
from hvo_deeds import (
    APART,
    TOGETHER,
    config,
    dissolve,
    fill,
    free_by_worker,
    grow,
    large,
    optimize_list,
    optimize_singly,
    resize,
    restore_list,
    restore_singly,
    shrink,
    up_and_down,
)
from hvo_lab import ENOMEM, Lab
from hvo_paths import PATHS, WATCHED, WatchedHvo

from emu.addr import VirtAddr
from kernel_model.boot import PoolAtBoot
from kernel_model.core.events import AllocationFailed
from kernel_model.hvo.hugetlb_vmemmap import HugetlbVmemmap
from kernel_model.layout import HstateFields
from kernel_model.mm.failures import (
    AllocationFailures,
    EachMayFail,
    FailAt,
    FailFrom,
    FailUntilFreed,
    NoFailures,
)
from kernel_model.mm.hstate import HSTATE_2M, Hstate
from kernel_model.mm.page import lru
from kernel_model.pool.hugetlb import Hugetlb
from kernel_model.variants.catalog import ROLLBACK_NOT_LIFO
from kernel_model.variants.named import NamedVariant

POOLED = PoolAtBoot.POOLED
PLACES = {"together": TOGETHER, "apart": APART}

SMALL: dict[str, Deed] = {}
for number in (1, 2, 3):
    for place, pfns in PLACES.items():
        if number == 1 and place == "apart":
            continue
        listed = config(pfns[:number], variant=WATCHED)
        pooled = replace(listed, pool=POOLED)
        for deed in (optimize_singly(listed), optimize_list(listed), fill(listed)):
            SMALL[f"{deed.name}, {number} {place}"] = deed
        for deed in (restore_singly(listed), restore_list(listed), shrink(pooled)):
            SMALL[f"{deed.name}, {number} {place}"] = deed
    for deed in (grow(number, variant=WATCHED), up_and_down(number, variant=WATCHED)):
        SMALL[f"{deed.name}, {number}"] = deed
TWO_POOLED = config(TOGETHER[:2], pool=POOLED, variant=WATCHED)
SMALL["dissolve"] = dissolve(TWO_POOLED)
SMALL["free by worker"] = free_by_worker(TWO_POOLED)

LARGE = {
    f"{deed.name}, order {order}": deed
    for order in (16, 17)
    for listed in (large(order, variant=WATCHED),)
    for deed in (optimize_singly(listed, 1), optimize_list(listed, 1), fill(listed))
}

KINDS = ("none", "one", "two", "persistent")
QUICK = {
    ("optimize singly, order 16", "two"),
    ("optimize list, order 16", "two"),
    ("restore list, 1 together", "two"),
}
"""Of those that are many or long: what shows every way there is."""


def is_quick(name: str, kind: str) -> bool:
    """What takes no more than a second or so, and some that take a little more."""
    if (name, kind) in QUICK:
        return True
    if name in LARGE or name.startswith("up"):
        return False
    if name.startswith("fill"):
        return kind != "two" and "apart" in name
    if not name.startswith(("restore", "shrink")):
        return kind != "two" or name != "optimize singly, 3 apart"
    return kind != "two" and "3" not in name and (kind != "persistent" or "apart" not in name)


CASES = [
    pytest.param(name, kind, marks=() if is_quick(name, kind) else pytest.mark.slow, id=f"{name}-{kind}")
    for name in (*SMALL, *LARGE)
    for kind in KINDS
    if kind != "two" or name not in ("dissolve", "free by worker")  # which ask no more after a failure
]


@cache
def bench(name: str) -> Bench:
    return Bench((SMALL | LARGE)[name])


def failures(on: Bench, kind: str) -> Iterator[AllocationFailures]:
    match kind:
        case "persistent":
            yield from on.persistent()
        case "two early":
            yield from (one for one in on.sets(2) if max(one.positions) < 3)
        case _:
            yield from on.sets(KINDS.index(kind))


@cache
def checked(name: str, kind: str) -> Counter[str]:
    """Every set of that kind is checked: the ways that were taken."""
    on = bench(name)
    hvo = on.lab.kernel.hvo
    assert isinstance(hvo, WatchedHvo)
    hvo.met.clear()
    for one in failures(on, kind):
        on.check(one)
    return hvo.met.copy()


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_everything_comes_out_as_reckoned(name: str, kind: str) -> None:
    assert checked(name, kind) or name.startswith("grow")


# How many allocations there are without a failure, and when one fails: counted by hand.
COUNTED = {
    # A head and a table. A head that fails changes nothing; for a table that fails both are asked for again.
    "optimize singly, 1 together": (2, [2, 4]),
    # A table and a head. A table that fails is asked for after the head.
    "optimize list, 1 together": (2, [3, 2]),
    # Seven tails a folio; the one that fails ends the try, and the next asks for seven.
    "restore singly, 1 together": (7, [failing + 1 + 7 for failing in range(7)]),
    "restore list, 2 together": (14, [failing % 7 + 1 + 7 + 7 for failing in range(7)] + list(range(15, 22))),
    # Those restored before a failure are freed; the one that failed and those behind it ask anew.
    "shrink, 3 together": (21, [failing + 1 + 7 * (3 - failing // 7) for failing in range(21)]),
    # Two blocks, a table, two heads. Without the first block nothing at all, without the second a table and a
    # head; a table that fails is asked for again after a head; heads may fail.
    "grow, 2": (5, [1, 4, 6, 5, 5]),
}


@pytest.mark.parametrize("name", COUNTED)
def test_as_many_are_asked_for_as_are_counted_by_hand(name: str) -> None:
    on, (all_granted, one_fails) = bench(name), COUNTED[name]
    assert len(on.reckoned(NoFailures()).log) == all_granted
    assert [len(on.reckoned(one).log) for one in on.sets(1)] == one_fails


# --- 1 GiB ------------------------------------------------------------------------------------------------

# A head and a table for each of eight PMDs, or the tables first; 4095 tails.
SOME_TAILS = (0, 1, 2047, 4093, 4094)
GIGANTIC = {
    "optimize singly": lambda: optimize_singly(large(18), 1),
    "optimize list": lambda: optimize_list(large(18), 1),
    "restore singly": lambda: restore_singly(large(18, pool=POOLED), 1),
    "restore twice": lambda: restore_singly(large(18, pool=POOLED)),
    "shrink": lambda: shrink(large(18, pool=POOLED)),
}


@cache
def gigantic(name: str) -> Bench:
    return Bench(GIGANTIC[name]())


def at(*positions: int) -> FailAt:
    return FailAt(frozenset(positions))


@pytest.mark.parametrize("failing", [0, 5], ids=["the head", "the fifth table"])
def test_a_gigantic_folio_is_optimized_or_rolled_back(failing: int) -> None:
    gigantic("optimize singly").check(at(failing))


def test_a_gigantic_folio_is_not_restored_for_want_of_one_page() -> None:
    gigantic("restore singly").check(at(2047))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["optimize singly", "optimize list"])
def test_a_gigantic_folio_comes_out_as_reckoned(name: str, kind: str) -> None:
    on = gigantic(name)
    assert len(on.reckoned(NoFailures()).log) == 9
    for one in failures(on, kind):
        on.check(one)


@pytest.mark.slow
@pytest.mark.parametrize("failing", SOME_TAILS)
@pytest.mark.parametrize("name", ["restore twice", "shrink"])
def test_a_gigantic_folio_is_restored_at_the_second_try_or_not_at_all(name: str, failing: int) -> None:
    """What fails is asked for once more, by the caller or by the pool; that may fail too."""
    on = gigantic(name)
    assert len(on.reckoned(NoFailures()).log) == 4095
    on.check(at(failing))
    for again in SOME_TAILS:
        on.check(at(failing, failing + 1 + again))
    for one in (FailFrom(failing), FailUntilFreed(failing)):
        on.check(one)


# --- the pool at boot -------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
def test_memory_may_run_out_while_the_pool_is_filled_at_boot(place: str) -> None:
    on = bench(f"fill, 3 {place}")
    failing = (*on.sets(1), *on.persistent())
    assert failing
    for one in failing:
        lab, world = Lab(config(PLACES[place], pool=POOLED, boot_failures=one)), on.reckoned(one)
        assert {huge: lab.optimized(huge) for huge in world.optimized} == world.optimized, one
        assert (lab.counters(), lab.kernel.pages.free_frames()) == (world.counters(), world.free), one
        assert lab.linked(HstateFields(9).freelist) == [huge.folio for huge in world.free_list], one
        assert lab.tables().keys() == world.tables.keys(), one
        assert (lab.machine.words, lab.machine.steps, lab.events) == ({}, 0, []), one


def test_positions_count_from_time_zero_and_not_from_boot() -> None:
    lab = Lab(config(TOGETHER, pool=POOLED, boot_failures=FailFrom(0), failures=at(1)))
    for _ in range(2):
        assert not any(lab.state().optimized)
        resize(lab, HSTATE_2M, 4)
        assert [(one.purpose, one.position) for one in lab.heard(AllocationFailed)] == [("page table", 1)]
        lab.reset()


def test_there_is_nobody_to_choose_before_time_zero() -> None:
    with pytest.raises(ValueError, match="no choice before time zero"):
        Lab(config(TOGETHER, boot_failures=EachMayFail()))


# --- the ways that were taken -----------------------------------------------------------------------------

# Where every way is taken that there is.
WAYS = (
    ("optimize singly, order 16", "two"),
    ("optimize list, order 16", "two"),
    ("fill, 3 apart", "one"),
    ("fill, 3 apart", "persistent"),
    ("restore list, 2 together", "one"),
    ("shrink, 2 together", "two early"),
    ("shrink, 2 together", "one"),
    ("shrink, 2 together", "persistent"),
    ("free by worker", "none"),
    ("free by worker", "one"),
)


def test_every_way_is_taken() -> None:
    met: Counter[str] = sum((checked(name, kind) for name, kind in WAYS), Counter())
    assert set(met) == PATHS


@pytest.mark.parametrize(
    ("name", "kind", "missing"),
    [
        ("shrink, 1 together", "two", "bulk: some were restored"),
        ("optimize list, 3 apart", "two", "rolled back"),
        ("fill, 3 apart", "one", "a folio not even at the second try"),
    ],
    ids=["one folio", "one PMD", "one failure"],
)
def test_a_way_that_is_not_there_is_not_taken(name: str, kind: str, missing: str) -> None:
    assert not any(way.startswith(missing) for way in checked(name, kind))


# --- this can fail ----------------------------------------------------------------------------------------


class KeepsPages(HugetlbVmemmap):
    """Does not give back the pages it got before there was none."""

    async def alloc_vmemmap_page_list(self, start: VirtAddr, end: VirtAddr, pages: VirtAddr) -> int:
        for _ in range(start, end, 4096):
            page = await self._pages.alloc_page("vmemmap tail page")
            if page is None:
                return ENOMEM
            await self._lists.add(lru(page), pages)
        return 0


class ForgetsSurplus(Hugetlb):
    """What could not be freed is a page like any other."""

    async def add_hugetlb_folio(self, h: Hstate, folio: VirtAddr, surplus: int) -> None:
        await super().add_hugetlb_folio(h, folio, 0)


def restored(build: type[HugetlbVmemmap]) -> Deed:
    return restore_singly(config(TOGETHER[:1], variant=NamedVariant("deviation", "", build)))


def freed(build: type[Hugetlb]) -> Deed:
    variant = NamedVariant("deviation", "", build_pool=build)
    return free_by_worker(config(TOGETHER[:2], pool=POOLED, variant=variant))


@pytest.mark.parametrize(
    ("deed", "one"),
    [
        (optimize_singly(large(16, variant=ROLLBACK_NOT_LIFO), 1), at(2)),
        (restored(KeepsPages), at(3)),
        (freed(ForgetsSurplus), at(3)),
    ],
    ids=["first in, first out", "a leak", "no surplus"],
)
def test_a_deviation_does_not_come_out_as_reckoned(deed: Deed, one: FailAt) -> None:
    with pytest.raises(Differs, match="reckoned"):
        Bench(deed).check(one)
