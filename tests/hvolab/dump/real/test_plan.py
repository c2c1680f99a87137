"""Which folios a list of operations makes join and leave, and which lists cannot be."""

from __future__ import annotations

from dataclasses import replace

import pytest
from dumps import real
from real_runs import do

from emu.addr import Pfn
from hvolab.checked.error import InputError
from hvolab.dump import Dump, FolioRow
from hvolab.dump.real.operations import Optimize, PoolOperation
from hvolab.dump.real.plan import Join, Resize, Write, plan_of
from kernel_model.mm.hstate import HSTATE_1G, HSTATE_2M
from kernel_model.mm.image import HugePage


def page(pfn: int, order: int = 9) -> HugePage:
    return HugePage(Pfn(pfn), HSTATE_2M if order == 9 else HSTATE_1G)


def of_row(row: FolioRow) -> HugePage:
    return page(row.pfn, row.order)


def folios(*pfns: int, order: int = 9) -> Optimize:
    rows = tuple(FolioRow(pfn, order, 0xFFFFEA0000000000 + pfn * 64, False, 0, 0, 0, 0) for pfn in pfns)
    return Optimize("optimize:it", dump(rows))


def dump(rows: tuple[FolioRow, ...]) -> Dump:
    return replace(real("main0_before"), state="it", folios=rows)


def pages(*pfns: int) -> tuple[HugePage, ...]:
    return tuple(page(pfn) for pfn in pfns)


NEVER: frozenset[int] = frozenset()


def test_those_that_the_pool_has_do_not_join_again() -> None:
    plan = plan_of((folios(0x1000, 0x2000), folios(0x2000, 0x3000)), (), of_row)
    assert plan.steps == (
        Join(HSTATE_2M, pages(0x1000, 0x2000), NEVER),
        Join(HSTATE_2M, pages(0x3000), NEVER),
    )
    assert plan.newcomers == pages(0x1000, 0x2000, 0x3000)


def test_those_given_back_join_again_and_are_no_newcomers() -> None:
    plan = plan_of((folios(0x1000, 0x2000), *do("restore"), folios(0x2000, 0x3000)), (), of_row)
    assert plan.steps == (
        Join(HSTATE_2M, pages(0x1000, 0x2000), NEVER),
        Resize(HSTATE_2M, 0),
        Join(HSTATE_2M, pages(0x2000, 0x3000), frozenset({0x2000})),
    )
    assert plan.newcomers == pages(0x1000, 0x2000, 0x3000)


def test_the_first_of_the_free_list_are_given_back_first() -> None:
    """Who joins last stands first; of those that join together the first of the dump."""
    operations = (
        folios(0x1000, 0x2000),
        folios(0x3000, 0x4000),
        *do("shrink=1"),
        folios(0x1000, 0x2000, 0x3000),
    )
    plan = plan_of(operations, (), of_row)
    assert plan.steps[2:] == (
        Resize(HSTATE_2M, 1),
        Join(HSTATE_2M, pages(0x1000, 0x3000), frozenset({0x1000, 0x3000})),
    )


def test_what_is_in_the_pool_at_time_zero_can_leave_it_and_is_no_newcomer() -> None:
    plan = plan_of((*do("shrink=1"), folios(0x1000)), pages(0x1000, 0x2000), of_row)
    assert plan.steps == (Resize(HSTATE_2M, 1), Join(HSTATE_2M, pages(0x1000), frozenset({0x1000})))
    assert plan.newcomers == ()


def test_both_sizes_the_larger_first() -> None:
    rows = (*folios(0x1000).dump.folios, *folios(0x40000, order=18).dump.folios)
    both = Optimize("optimize:both", dump(rows))
    plan = plan_of((both, *do("shrink=1G:0"), *do("restore", "sysctl=1")), (), of_row)
    assert plan.steps == (
        Join(HSTATE_1G, (page(0x40000, 18),), NEVER),
        Join(HSTATE_2M, pages(0x1000), NEVER),
        Resize(HSTATE_1G, 0),
        Resize(HSTATE_2M, 0),
        Write(1),
    )


BOTH = Optimize("optimize:both", dump((*folios(0x1000).dump.folios, *folios(0x40000, order=18).dump.folios)))
WRONG: list[tuple[tuple[PoolOperation, ...], str]] = [
    (do("restore"), "--do restore: the pool is empty, there is nothing to restore"),
    ((folios(1), *do("restore", "restore")), "--do restore: the pool is empty, there is nothing to restore"),
    (do("shrink=0"), "--do shrink=0: the pool is empty"),
    (do("sysctl=0"), "--do sysctl=0: no folio is in the pool, and none joins it"),
    ((folios(0x1000), *do("shrink=1")), "--do shrink=1: the pool has 1 folios of 2M, not more"),
    ((folios(0x1000), *do("shrink=1G:0")), "--do shrink=1G:0: the pool has 0 folios of 1G, not more"),
    ((BOTH, *do("shrink=0")), "--do shrink=0: the pool has 1G and 2M: say which, as shrink=SIZE:N"),
    ((folios(),), "--do optimize: the dump 'it' lists no folios"),
    ((folios(0x1000),) * 2, "--do optimize: the dump 'it' lists no folio that the pool has not"),
    (
        (folios(0x1000), folios(0x0, order=18)),
        "folio 0x0 overlaps folio 0x1000, which is in the pool",
    ),
]


@pytest.mark.parametrize(("operations", "message"), WRONG, ids=[message[:50] for _, message in WRONG])
def test_a_list_that_cannot_be(operations: tuple[PoolOperation, ...], message: str) -> None:
    with pytest.raises(InputError) as caught:
        plan_of(operations, (), of_row)
    assert str(caught.value) == message


def test_a_label_with_control_characters_does_not_reach_the_terminal() -> None:
    empty = Optimize("optimize:x", replace(dump(()), state="a\x1b[31m\nb"))
    with pytest.raises(InputError) as caught:
        plan_of((empty,), (), of_row)
    assert str(caught.value).isprintable()
