"""Dumps of different generations of HVO: said once, not of every tail."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from dumps import BASE, LINUX_7_3, PAGE, REGION, RO, RW, leaves_of, real, with_folio, with_leaf

from hvolab.dump import Dump, FolioRow, Leaf, StructBlock, StructRun, dump_of, with_mappings
from hvolab.dump.compare import Difference, compare
from hvolab.dump.compare.generation import Generation, generation_of

OWN = "tails on the frame of their own folio's head"
COMMON = "tails on one frame for all folios of a size"
SAID_ONCE = Difference("dump", "generation", OWN, COMMON)
TAIL_PAGE = 0x7000
PFN = 0x400


@pytest.mark.parametrize("name", ["main1_alloc64", "boot0_1G_and_16x2M"])
def test_a_dump_of_linux_7_does_not_differ_from_itself(name: str) -> None:
    dump = real(name, LINUX_7_3)
    assert "s58" in {word for found in leaves_of(dump) for word in found.flags.split()} or name[0] == "m"
    assert compare(dump, dump) == ()


def folio_of(generation: Generation) -> Dump:
    """One region with one optimized folio, as that generation has it."""
    at = PFN // 64
    frames = {
        Generation.SECOND_PAGE: [0x1000 + at, *[0x1000 + at + 1] * 7],
        Generation.HEAD_PAGE: [0x5000] * 8,
        Generation.COMMON_PAGE: [0x5000, *[TAIL_PAGE] * 7],
    }[generation]
    writable = 2 if generation is Generation.SECOND_PAGE else 1
    folio = [Leaf(BASE + (at + n) * PAGE, 1, frames[n], RW if n < writable else RO) for n in range(8)]
    rest = [Leaf(BASE + n * PAGE, 1, 0x1000 + n, RW) for n in range(512) if not at <= n < at + 8]
    rows = with_mappings([FolioRow(PFN, 9, BASE + PFN * 64, True, 0x10, 0, 0, 0)], folio)
    return dump_of("k", "s", 128, BASE, folio + rest, rows, {}, {BASE: 9})


@pytest.mark.parametrize("generation", list(Generation))
def test_a_generation_is_recognised_by_its_tails(generation: Generation) -> None:
    assert generation_of(folio_of(generation)) is generation


@pytest.mark.parametrize(
    ("name", "generation"),
    [
        ("main1_alloc64", Generation.HEAD_PAGE),
        ("both_optimized", Generation.HEAD_PAGE),
        ("main0_before", None),
    ],
)
def test_the_generation_of_linux_6_12(name: str, generation: Generation | None) -> None:
    assert generation_of(real(name)) is generation


@pytest.mark.parametrize("name", ["main1_alloc64", "boot0_1G_and_16x2M"])
def test_the_generation_of_linux_7_3(name: str) -> None:
    assert generation_of(real(name, LINUX_7_3)) is Generation.COMMON_PAGE


def test_two_generations_are_one_difference() -> None:
    assert compare(folio_of(Generation.HEAD_PAGE), folio_of(Generation.COMMON_PAGE)) == (SAID_ONCE,)


def test_two_generations_without_leaves_are_one_difference() -> None:
    one, other = (
        replace(folio_of(generation), leaves=None)
        for generation in (Generation.HEAD_PAGE, Generation.COMMON_PAGE)
    )
    assert compare(one, other) == (SAID_ONCE,)


def test_a_folio_row_of_an_impossible_order_does_not_fill_memory() -> None:
    one, other = folio_of(Generation.HEAD_PAGE), folio_of(Generation.COMMON_PAGE)
    large = with_folio(other, 0, lambda row: replace(row, order=40))
    found = compare(one, large)
    assert found == (SAID_ONCE, Difference("folio 0x400", "order", "9", "40"))


def test_across_generations_a_wrong_head_is_still_found() -> None:
    one, other = folio_of(Generation.HEAD_PAGE), folio_of(Generation.COMMON_PAGE)
    wrong = with_leaf(other, PFN // 64, lambda found: replace(found, flags=RO))
    assert compare(one, wrong) == (
        SAID_ONCE,
        Difference("leaf 0xffffea0000010000", "flags", RW, RO),
    )


def test_across_generations_a_folio_that_one_lacks_is_one_row_without_its_tails() -> None:
    one = folio_of(Generation.HEAD_PAGE)
    other = folio_of(Generation.COMMON_PAGE)
    again = [replace(found, va=found.va + REGION, pfn=found.pfn + 0x9000) for found in leaves_of(other)]
    rows = with_mappings([FolioRow(PFN + 0x8000, 9, BASE + (PFN + 0x8000) * 64, True, 0x10, 0, 0, 0)], again)
    tables = {BASE: 9, BASE + REGION: 8}
    leaves = [*leaves_of(other), *again]
    more = dump_of("k", "s", 256, BASE, leaves, [*other.folios, *rows], {}, tables)
    plain = [Leaf(BASE + REGION + n * PAGE, 1, 0xA000 + n, RW) for n in range(512)]
    less = dump_of("k", "s", 256, BASE, [*leaves_of(one), *plain], one.folios, {}, tables)
    assert compare(less, more) == (
        SAID_ONCE,
        Difference("leaf 0xffffea0000210000", "role", "original 528", "fresh"),
        Difference("folio 0x8400", "folio", "missing", "order 9, optimized"),
    )


def test_real_dumps_of_two_generations() -> None:
    """64 folios each, 22 of each dump not the other's: their rows and head pages, and no tail."""
    found = compare(real("main1_alloc64"), real("main1_alloc64", LINUX_7_3))
    assert found[0] == SAID_ONCE
    assert Counter((each.where.split()[0], each.field) for each in found[1:]) == {
        ("leaf", "role"): 22,
        ("folio", "folio"): 22,
    }


def test_where_nothing_is_optimized_no_generation_is_said() -> None:
    one = folio_of(Generation.HEAD_PAGE)
    plain = with_folio(one, 0, lambda row: replace(row, optimized=False, private=0))
    assert [each.field for each in compare(one, plain)] == ["optimized"]


def test_across_generations_struct_pages_of_tails_are_not_compared() -> None:
    def block(first: str, second: str) -> tuple[StructBlock, ...]:
        rest = ("0x0",) * 4
        return (
            StructBlock(
                PFN,
                9,
                tuple(
                    StructRun(n, 1, (flags, "0x0", *rest, "0xffffffff", "0x0"), 0)
                    for n, flags in enumerate((first, second))
                ),
            ),
        )

    one, other = folio_of(Generation.HEAD_PAGE), folio_of(Generation.COMMON_PAGE)
    left = replace(one, struct_blocks=block("0x40", "0x9"))
    assert compare(left, replace(other, struct_blocks=block("0x40", "0x8"))) == (SAID_ONCE,)
    assert compare(left, replace(other, struct_blocks=block("0x41", "0x8"))) == (
        SAID_ONCE,
        Difference("struct 0x400", "flags", "0x40", "0x41"),
    )
