"""walk_page_range_novma(): which entries of a page table are visited, in which order, and when it stops."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flat_cpu import FlatCpu
from hvo_lab import DIRECT_MAP, PAGE, REGION, VMEMMAP

from emu.addr import Pfn, PhysAddr, VirtAddr
from kernel_model.mm.pagewalk import Action, MmWalkOps, PmdResult, lookup_address, walk_page_range_novma

ROOT, PUD, PMD, TABLE_0, TABLE_1 = 0x100, 0x101, 0x102, 0x103, 0x104
TABLE_BITS, LEAF_BITS, PTE_BITS = 0x67, 0x1E3, 0x163
GIB = 1 << 30
START = VMEMMAP

CONTINUE, SUBTREE = Action.CONTINUE, Action.SUBTREE


class Tables:
    """Page tables in flat memory. Vmemmap's first GiB: two split regions, then a 2 MiB leaf, then nothing."""

    def __init__(self) -> None:
        self.cpu = FlatCpu()
        self.visited: list[tuple[str, int]] = []
        self.pmd_says: Callable[[int], PmdResult] = lambda _va: PmdResult(0, SUBTREE)
        self.pte_says: Callable[[int], int] = lambda _va: 0
        self.set(ROOT, START >> 39 & 511, PUD << 12 | TABLE_BITS)
        self.set(PUD, START >> 30 & 511, PMD << 12 | TABLE_BITS)
        for index, table in enumerate((TABLE_0, TABLE_1)):
            self.set(PMD, index, table << 12 | TABLE_BITS)
            for number in range(512):
                self.set(table, number, (0x1000 + 512 * index + number) << 12 | PTE_BITS)
        self.set(PMD, 2, 0x2000 << 12 | LEAF_BITS)

    def set(self, table: int, index: int, entry: int) -> None:
        self.cpu.write(DIRECT_MAP + table * PAGE + index * 8, entry)

    def walk(self, start: int, end: int) -> int:
        """Visit a range; `visited` has what was called, with the address, once for each callback."""

        async def pmd_entry(pmd: PhysAddr, va: VirtAddr) -> PmdResult:
            assert pmd == PMD * PAGE + (va >> 21 & 511) * 8
            self.visited.append(("pmd", va - START))
            return self.pmd_says(va)

        async def pte_entry(pte: PhysAddr, va: VirtAddr) -> int:
            table = (TABLE_0, TABLE_1)[(va - START) // REGION]
            assert pte == table * PAGE + (va >> 12 & 511) * 8
            self.visited.append(("pte", va - START))
            return self.pte_says(va)

        return self.cpu.run(
            walk_page_range_novma(Pfn(ROOT), VirtAddr(start), VirtAddr(end), MmWalkOps(pmd_entry, pte_entry))
        )


def ptes(first: int, count: int) -> list[tuple[str, int]]:
    return [("pte", first + number * PAGE) for number in range(count)]


def test_a_range_within_one_pmd() -> None:
    tables = Tables()
    assert tables.walk(START + 5 * PAGE, START + 9 * PAGE) == 0
    assert tables.visited == [("pmd", 5 * PAGE), *ptes(5 * PAGE, 4)]


def test_a_range_over_two_pmds_begins_the_second_at_its_start() -> None:
    tables = Tables()
    assert tables.walk(START + REGION - 2 * PAGE, START + REGION + 3 * PAGE) == 0
    assert tables.visited == [
        ("pmd", REGION - 2 * PAGE),
        *ptes(REGION - 2 * PAGE, 2),
        ("pmd", REGION),
        *ptes(REGION, 3),
    ]


def test_whole_pmds() -> None:
    tables = Tables()
    assert tables.walk(START, START + 2 * REGION) == 0
    assert tables.visited == [("pmd", 0), *ptes(0, 512), ("pmd", REGION), *ptes(REGION, 512)]


def test_an_empty_range_visits_nothing() -> None:
    tables = Tables()
    assert tables.walk(START + PAGE, START + PAGE) == 0
    assert tables.visited == []


def test_continue_skips_the_ptes() -> None:
    tables = Tables()
    tables.pmd_says = lambda _va: PmdResult(0, CONTINUE)
    assert tables.walk(START + PAGE, START + 2 * REGION) == 0
    assert tables.visited == [("pmd", PAGE), ("pmd", REGION)]


@pytest.mark.parametrize("action", [CONTINUE, SUBTREE])
def test_an_error_for_a_pmd_ends_the_walk(action: Action) -> None:
    tables = Tables()
    tables.pmd_says = lambda va: PmdResult(-12 if va >= START + REGION else 0, action)
    assert tables.walk(START + REGION - PAGE, START + 3 * REGION) == -12
    first = ptes(REGION - PAGE, 1) if action is SUBTREE else []
    assert tables.visited == [("pmd", REGION - PAGE), *first, ("pmd", REGION)]


def test_an_error_for_a_pte_ends_the_walk() -> None:
    tables = Tables()
    tables.pte_says = lambda va: -5 if va == START + 2 * PAGE else 0
    assert tables.walk(START, START + 2 * REGION) == -5
    assert tables.visited == [("pmd", 0), *ptes(0, 3)]


def test_a_leaf_that_stays_a_leaf_has_no_ptes() -> None:
    tables = Tables()
    assert tables.walk(START + 2 * REGION, START + 2 * REGION + 4 * PAGE) == 0
    assert tables.visited == [("pmd", 2 * REGION)]


def test_a_leaf_that_the_callback_splits_is_descended_into() -> None:
    """The entry is read again after the callback."""
    tables = Tables()
    tables.set(PMD, 1, 0x3000 << 12 | LEAF_BITS)

    def split(va: int) -> PmdResult:
        tables.set(PMD, va >> 21 & 511, TABLE_1 << 12 | TABLE_BITS)
        return PmdResult(0, SUBTREE)

    tables.pmd_says = split
    assert tables.walk(START + REGION, START + REGION + 2 * PAGE) == 0
    assert tables.visited == [("pmd", REGION), *ptes(REGION, 2)]


def test_empty_entries_are_no_business_of_the_callbacks() -> None:
    tables = Tables()
    assert tables.walk(START + 3 * REGION, START + 5 * REGION) == 0
    assert tables.visited == []


def test_a_range_over_a_hole_goes_on_behind_it() -> None:
    tables = Tables()
    tables.set(PMD, 0, 0)
    assert tables.walk(START + REGION - PAGE, START + REGION + PAGE) == 0
    assert tables.visited == [("pmd", REGION), *ptes(REGION, 1)]


def test_a_pmd_that_is_not_present_but_not_empty_is_shown_and_not_descended_into() -> None:
    tables = Tables()
    tables.set(PMD, 0, TABLE_0 << 12 | (TABLE_BITS & ~1))
    assert tables.walk(START, START + PAGE) == 0
    assert tables.visited == [("pmd", 0)]


def test_empty_ptes_are_visited() -> None:
    # init_mm's PTEs are handed to the callback whatever they hold.
    tables = Tables()
    tables.set(TABLE_0, 1, 0)
    assert tables.walk(START, START + 3 * PAGE) == 0
    assert tables.visited == [("pmd", 0), *ptes(0, 3)]


@pytest.mark.parametrize("entry", [0, PMD << 12 | LEAF_BITS], ids=["no table", "a 1 GiB leaf"])
def test_without_a_pmd_table_there_is_nothing_to_visit(entry: int) -> None:
    tables = Tables()
    tables.set(PUD, START >> 30 & 511, entry)
    assert tables.walk(START, START + 2 * REGION) == 0
    assert tables.visited == []


def test_without_a_pud_table_there_is_nothing_to_visit() -> None:
    tables = Tables()
    tables.set(ROOT, START >> 39 & 511, 0)
    assert tables.walk(START, START + 2 * REGION) == 0
    assert tables.visited == []


def test_a_range_may_begin_where_nothing_is_mapped() -> None:
    tables = Tables()
    assert tables.walk(START - GIB, START + PAGE) == 0
    assert tables.visited == [("pmd", 0), *ptes(0, 1)]


@pytest.mark.parametrize(
    ("offset", "frame"),
    [
        (0, 0x1000),
        (REGION + 5 * PAGE + 0x123, 0x1000 + 512 + 5),
        (2 * REGION + 7 * PAGE, 0x2007),
        (3 * REGION, None),
        (GIB, None),
    ],
)
def test_the_frame_of_an_address_is_looked_up_at_any_size(offset: int, frame: int | None) -> None:
    tables = Tables()
    assert tables.cpu.run(lookup_address(Pfn(ROOT), VirtAddr(START + offset))) == frame


def test_the_frame_of_a_page_whose_entry_is_not_present_is_none() -> None:
    tables = Tables()
    tables.set(TABLE_0, 3, 0x1003 << 12 | PTE_BITS & ~1)
    assert tables.cpu.run(lookup_address(Pfn(ROOT), VirtAddr(START + 3 * PAGE))) is None
