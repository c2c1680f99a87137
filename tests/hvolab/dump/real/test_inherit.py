"""Layouts of a kernel that has run for a while: split PMDs, a pool with folios in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
from dumps import BASE, LINUX_7_3, PAGE, REGION, RO, RW, leaves_of, real, with_folio, with_leaf
from real_runs import ran

from emu.addr import VirtAddr
from hvolab.checked.error import InputError
from hvolab.dump import Dump
from hvolab.dump.compare import compare
from hvolab.dump.real.layout import setup_from
from hvolab.dump.real.memory import word
from hvolab.judge.verdict import Verdict
from hvolab.subject.fingerprint import fingerprint
from hvolab.subject.outcome import Completed
from kernel_model.boot import boot
from kernel_model.layout import HUGETLB_OPTIMIZE_VMEMMAP_KEY, HstateFields

AFTER_64 = real("main1_alloc64")
NAMES = (
    "main1_alloc64",
    "main2_freed",
    "optimized24",
    "restored24",
    "others20",
    "shrunk8",
    "grown16",
    "both_optimized",
    "both_shrunk",
)


def without_structs(dump: Dump) -> Dump:
    return replace(dump, struct_blocks=())


@pytest.mark.parametrize("name", NAMES)
def test_what_was_booted_is_the_layout(name: str) -> None:
    _, dump = ran(name)
    assert compare(without_structs(dump), real(name)) == ()
    assert {leaf.va: leaf for leaf in leaves_of(dump)} == {leaf.va: leaf for leaf in leaves_of(real(name))}
    assert dump.counters == real(name).counters
    assert [row.private for row in dump.folios] == [
        row.private for row in sorted(real(name).folios, key=lambda row: row.pfn)
    ]


@pytest.mark.parametrize(
    ("layout", "operations", "after"),
    [
        ("main1_alloc64", ("restore",), "main2_freed"),
        ("optimized24", ("restore",), "restored24"),
        ("restored24", ("optimize:others20",), "others20"),
        ("others20", ("sysctl=0", "shrink=8"), "shrunk8"),
        ("shrunk8", ("sysctl=0", "optimize:grown16"), "grown16"),
        ("both_optimized", ("shrink=1G:0", "shrink=4"), "both_shrunk"),
    ],
)
def test_from_one_state_of_a_real_kernel_to_its_next(
    layout: str, operations: tuple[str, ...], after: str
) -> None:
    done, dump = ran(layout, *operations)
    assert isinstance(done.outcome, Completed)
    assert done.findings == ()
    assert {use.verdict for use in done.uses} <= {Verdict.LEGAL, Verdict.EQUIVALENT}
    assert compare(without_structs(dump), real(after)) == ()
    assert Counter(leaf.flags for leaf in leaves_of(dump)) == Counter(
        leaf.flags for leaf in leaves_of(real(after))
    )


def test_the_struct_pages_of_an_optimized_folio_are_those_that_linux_had() -> None:
    """Its tails show the head's page, and must not be written over it."""
    _, dump = ran("optimized24")
    (theirs,) = real("optimized24").struct_blocks
    ours = tuple(block for block in dump.struct_blocks if block.pfn == theirs.pfn)
    assert len(ours) == 1
    assert compare(replace(dump, struct_blocks=ours), real("optimized24")) == ()


def test_the_key_and_the_counts_of_the_pool_are_as_if_the_folios_had_joined() -> None:
    system = boot(setup_from(real("grown16"), (), 2).boot)
    assert word(system, HUGETLB_OPTIMIZE_VMEMMAP_KEY, 8) == 8
    of = HstateFields(9)
    counts = [word(system, at, 8) for at in (of.nr_huge_pages, of.free_huge_pages, of.max_huge_pages)]
    assert counts == [16, 16, 16]


def test_the_frames_that_the_real_kernel_had_given_back_are_free() -> None:
    system = boot(setup_from(AFTER_64, (), 2).boot)
    mapped = {leaf.pfn for leaf in leaves_of(AFTER_64) if leaf.level == 1}
    given_back = [pfn for pfn in range(0x3EE00, 0x3F200) if pfn not in mapped]
    assert len(given_back) == (23 + 40) * 8
    assert all(system.kernel.pages.is_free(pfn) for pfn in given_back)
    assert not any(system.kernel.pages.is_free(pfn) for pfn in mapped)


def test_another_layout_has_another_fingerprint() -> None:
    wrong = with_leaf(AFTER_64, 7, lambda leaf: replace(leaf, pfn=0x7777))
    one, other = (fingerprint(setup_from(layout, (), 2)) for layout in (AFTER_64, wrong))
    assert one != other


# --- layouts that contradict themselves -----------------------------------------------------------------

FOLIO = AFTER_64.folios[0]
SHARED = "is shared or read-only, and no tail of an optimized folio"


def at(page: int) -> str:
    return f"{BASE + page * PAGE:#x}"


WRONG: list[tuple[str, Callable[[Dump], Dump], str]] = [
    (
        "a flag that the port never sets",
        lambda dump: with_leaf(dump, 7, lambda leaf: replace(leaf, flags="P W A D G s58 NX")),
        f"leaf {at(7)} has flags 'P W A D G s58 NX'; the model has '{RW}' and '{RO}'",
    ),
    (
        "a hole in a page table",
        lambda dump: replace(
            dump, leaves=tuple(leaf for leaf in leaves_of(dump) if leaf.va != BASE + 7 * PAGE)
        ),
        f"page table at va {BASE:#x} has 511 of 512 entries",
    ),
    (
        "a PMD row that is missing",
        lambda dump: replace(dump, pmds=dump.pmds[1:]),
        f"page table at va {BASE:#x}: no split PMD says where it is",
    ),
    (
        "a PMD entry with other flags",
        lambda dump: replace(dump, pmds=(replace(dump.pmds[0], flags="P W A D"), *dump.pmds[1:])),
        f"pmd {BASE:#x} has flags 'P W A D'; the model has 'P W U A D'",
    ),
    (
        "a tail that is writable",
        lambda dump: with_leaf(dump, 249, lambda leaf: replace(leaf, flags=RW)),
        f"folio 0x3e00 is optimized, but {at(249)} is no tail of its head",
    ),
    (
        "a tail on another frame",
        lambda dump: with_leaf(dump, 250, lambda leaf: replace(leaf, pfn=0x7777)),
        f"folio 0x3e00 is optimized, but {at(250)} is no tail of its head",
    ),
    (
        "an optimized folio in no page table",
        lambda dump: with_folio(dump, 0, lambda row: replace(row, pfn=0x10000, vmemmap=BASE + 2 * REGION)),
        f"folio 0x10000 is optimized, but {at(1025)} is no tail of its head",
    ),
    (
        "tails of nobody",
        lambda dump: replace(dump, folios=dump.folios[1:]),
        f"leaf {at(248)} {SHARED}",
    ),
    (
        "a folio in use",
        lambda dump: with_folio(dump, 0, lambda row: replace(row, refcount=1)),
        "folio 0x3e00 is in use, by 1; the model's pool has free ones",
    ),
    (
        "a folio of an order that the model has not",
        lambda dump: with_folio(dump, 0, lambda row: replace(row, order=10)),
        "folio 0x3e00 has order 10; the model has orders 9 and 18",
    ),
    (
        "a page that is read-only",
        lambda dump: with_leaf(dump, 7, lambda leaf: replace(leaf, flags=RO)),
        f"leaf {at(7)} {SHARED}",
    ),
    (
        "two pages on one frame",
        lambda dump: with_leaf(dump, 7, lambda leaf: replace(leaf, pfn=leaf.pfn + 1)),
        f"leaf {at(7)} {SHARED}",
    ),
]


@pytest.mark.parametrize(("wrong", "message"), [one[1:] for one in WRONG], ids=[one[0] for one in WRONG])
def test_a_layout_that_contradicts_itself(wrong: Callable[[Dump], Dump], message: str) -> None:
    with pytest.raises(InputError) as caught:
        setup_from(wrong(AFTER_64), (), 2)
    assert str(caught.value) == message


def test_a_layout_of_another_generation() -> None:
    with pytest.raises(InputError) as caught:
        setup_from(real("main1_alloc64", LINUX_7_3), (), 2)
    assert str(caught.value) == (
        "the dump 'main1_alloc64' is of another generation than the port of Linux v6.12"
    )


def test_all_of_vmemmap_split_is_not_taken_for_no_layout() -> None:
    """With no 2 MiB leaf left, the default blocks must not come back."""
    small = replace(
        real("both_before"),
        ram_mb=128,
        leaves=tuple(leaf for leaf in leaves_of(real("optimized24")) if leaf.va < BASE + REGION),
        pmds=real("optimized24").pmds[:1],
        folios=tuple(row for row in real("optimized24").folios if row.pfn < 0x8000),
        counters={},
    )
    assert len(leaves_of(small)) == 512
    blocks = boot_of(small)
    assert blocks == {}


def boot_of(layout: Dump) -> dict[VirtAddr, int]:
    return dict(setup_from(layout, (), 1).boot.vmemmap_blocks)
