"""Comparing struct pages word by word, addresses by what they point to."""

from __future__ import annotations

from dataclasses import replace

import pytest
from dumps import BASE, real

from hvolab.dump import Dump, StructBlock, StructRun
from hvolab.dump.compare import MISSING, Difference, compare
from hvolab.dump.model import WORDS

NAMES = ("restored24", "optimized24", "grown16")
PFN = 0x5400  # the block in restored24 and optimized24
HEAD = BASE + PFN * 64


def dump_with(*rows: StructRun, order: int = 9, base: int = BASE) -> Dump:
    by = base - BASE
    bare = replace(real("main0_before"), vmemmap_base=base, pmds=(), leaves=())
    assert by % 0x200000 == 0
    return replace(bare, struct_blocks=(StructBlock(PFN, order, rows),))


def run(number: int, count: int = 1, refcount: int = 0, **words: str) -> StructRun:
    plain = dict.fromkeys(WORDS, "0x0") | {"page_type": "0xffffffff"}
    named = {
        name.replace("_", ".", 1) if name.startswith("lru") else name: word for name, word in words.items()
    }
    assert named.keys() <= plain.keys()
    return StructRun(number, count, tuple((plain | named).values()), refcount)


def differences(left: Dump, right: Dump) -> list[str]:
    return [str(each) for each in compare(left, right)]


@pytest.mark.parametrize("name", NAMES)
def test_real_struct_pages_do_not_differ_from_themselves(name: str) -> None:
    assert real(name).struct_blocks
    assert compare(real(name), real(name)) == ()


@pytest.mark.parametrize("name", NAMES)
def test_every_word_of_every_row_counts(name: str) -> None:
    """One word changed to a value it has nowhere, in the first block, is found."""
    dump = real(name)
    block = dump.struct_blocks[0]
    changed = 0
    for at, row in enumerate(block.rows):
        for word in range(len(WORDS)):
            words = (*row.words[:word], "0x1234567", *row.words[word + 1 :])
            rows = (*block.rows[:at], replace(row, words=words), *block.rows[at + 1 :])
            wrong = replace(dump, struct_blocks=(replace(block, rows=rows), *dump.struct_blocks[1:]))
            found = compare(dump, wrong)
            assert WORDS[word] in [each.field for each in found], (row.number, WORDS[word])
            assert found[0].where.startswith(f"struct {block.pfn + row.number:#x}")
            changed += 1
    assert changed == len(block.rows) * 8 >= 32


def test_the_reference_count_counts() -> None:
    assert differences(dump_with(run(0)), dump_with(run(0, refcount=1))) == [
        f"struct {PFN:#x}: refcount: 0 | 1"
    ]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (f"{HEAD + 8:#x}", "self+0x8"),
        ("0xffff88803feaa0a8", "0xffffffff837d6ab0"),
        ("0xffff88803feaa0a8", f"{HEAD + (64 << 9):#x}"),
        (f"{HEAD - 64:#x}", "0xffffffff837d6ab0"),
    ],
    ids=["its own", "two places elsewhere", "the page behind the block", "the page before the block"],
)
def test_pointers_to_the_same_are_equal(left: str, right: str) -> None:
    assert compare(dump_with(run(0, lru_next=left)), dump_with(run(0, lru_next=right))) == ()


@pytest.mark.parametrize(
    ("left", "right", "said"),
    [
        ("self+0x8", "self+0x10", "self+0x8 | self+0x10"),
        ("self+0x8", "0xffff88803feaa0a8", "self+0x8 | elsewhere"),
        (f"{HEAD + 1:#x}", f"{HEAD + 64 + 1:#x}", "struct 0+0x1 | struct 1+0x1"),
        ("0xdead000000000100", "0xdead000000000122", "0xdead000000000100 | 0xdead000000000122"),
        ("0xffffffffffffffff", "0xffffffffffff8001", "0xffffffffffffffff | 0xffffffffffff8001"),
        ("0x0", "0xffffffff837d6ab0", "0x0 | elsewhere"),
    ],
    ids=["bytes into it", "a list of one", "another head", "poison", "a mask is no address", "no list"],
)
def test_pointers_to_something_else_differ(left: str, right: str, said: str) -> None:
    one, other = (dump_with(run(5, lru_next=word)) for word in (left, right))
    assert differences(one, other) == [f"struct {PFN + 5:#x}: lru.next: {said}"]


def test_vmemmap_elsewhere_moves_what_is_pointed_to() -> None:
    by = 0x40000000
    left = dump_with(run(5, lru_next=f"{HEAD + 1:#x}"))
    right = dump_with(run(5, lru_next=f"{HEAD + by + 1:#x}"), base=BASE + by)
    assert [each.field for each in compare(left, right)] == ["vmemmap_base"]


def test_the_copy_of_the_first_page_is_one_row_however_it_is_written() -> None:
    words = [run(64 + n, lru_prev=f"{HEAD + n * 64 + 8:#x}") for n in range(64)]
    assert compare(dump_with(*words), dump_with(run(64, 64, lru_prev="page0+0x8"))) == ()
    wrong = (*words[:7], run(71, lru_prev=f"{HEAD + 8:#x}"), *words[8:])
    assert differences(dump_with(*wrong), dump_with(run(64, 64, lru_prev="page0+0x8"))) == [
        f"struct {PFN + 71:#x}: lru.prev: struct 0+0x8 | page0+0x8"
    ]


@pytest.mark.parametrize("number", [3, 40, 63])
def test_one_address_for_many_is_not_everybodys_own(number: int) -> None:
    """A run of equal addresses agrees with `self` in one place, the first or the last even."""
    same = dump_with(run(3, 61, lru_prev=f"{HEAD + number * 64 + 8:#x}"))
    assert [each.field for each in compare(same, dump_with(run(3, 61, lru_prev="self+0x8")))] == ["lru.prev"]


def test_how_large_a_free_block_has_become_by_merging_is_the_allocators_affair() -> None:
    def free(order: str) -> Dump:
        return dump_with(run(0, page_type="0xf0000000", private=order))

    assert compare(free("0x9"), free("0xa")) == ()
    assert len(compare(free("0x9"), free("0xb"))) == 1  # MAX_PAGE_ORDER is 10
    assert differences(free("0x9"), free("0x3")) == [
        f"struct {PFN:#x}: private: order of a free block, 9 or more | order of a free block, 3 or more"
    ]


def test_a_free_block_whose_order_is_an_address_is_compared_as_any_other() -> None:
    left = dump_with(run(0, page_type="0xf0000000", private="self+0x8"))
    assert compare(left, left) == ()
    right = dump_with(run(0, page_type="0xf0000000", private="0x9"))
    assert [each.field for each in compare(left, right)] == ["private"]


def test_a_free_block_against_one_that_is_on_no_list() -> None:
    left = dump_with(run(0, page_type="0xf0000000", private="0x9", lru_next="0xffff88803feaa0a8"))
    assert differences(left, dump_with(run(0))) == [
        f"struct {PFN:#x}: lru.next: elsewhere | 0x0",
        f"struct {PFN:#x}: private: order of a free block, 9 or more | 0x0",
        f"struct {PFN:#x}: page_type: 0xf0000000 | 0xffffffff",
    ]


def test_struct_pages_that_one_dump_lacks() -> None:
    """Those of an optimized folio's tails are not there: they show the head's page."""
    left, right = dump_with(run(0), run(1, 127)), dump_with(run(0), run(1, 63))
    assert compare(left, right) == (
        Difference(f"struct {PFN + 64:#x} to {PFN + 127:#x}", "struct pages", "present", MISSING),
    )


def test_a_block_that_one_dump_lacks_is_not_compared() -> None:
    assert compare(dump_with(run(0)), replace(dump_with(), struct_blocks=())) == ()


def test_blocks_of_two_sizes() -> None:
    assert differences(dump_with(run(0)), dump_with(run(0), order=18)) == [f"block {PFN:#x}: order: 9 | 18"]
