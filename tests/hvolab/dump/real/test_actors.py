"""The model does what a real kernel did, operation by operation, and comes out where that did.

Each row is one boot of Linux 6.12 (tests/fixtures/linux-6.12): its page tables at the start, what was written
to nr_hugepages and the sysctl, which folios it took, and its page tables afterwards.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from dumps import LARGE, RO, RW, leaves_of, real, with_folio, with_leaf
from real_runs import do, ran

from hvolab.checked.error import InputError
from hvolab.dump import Dump, StructBlock
from hvolab.dump.compare import compare
from hvolab.dump.real.actors import actors_of
from hvolab.dump.real.layout import setup_from
from hvolab.dump.real.plan import Join, Plan
from hvolab.judge.verdict import Verdict
from hvolab.subject.outcome import Completed
from hvolab.subject.picker import InOrder, Replay
from hvolab.subject.run import run
from hvolab.subject.scenario import Setup
from hvolab.subject.schedule import parse
from kernel_model.mm.hstate import HSTATE_2M

OPTIMIZE_64 = ("optimize:main1_alloc64",)
OTHERS = ("optimize:optimized24", "restore", "optimize:others20")
SHRUNK = (*OTHERS, "sysctl=0", "shrink=8")
LISTS = [
    ("main0_before", (), "main0_before"),
    ("main0_before", OPTIMIZE_64, "main1_alloc64"),
    ("main0_before", (*OPTIMIZE_64, "restore"), "main2_freed"),
    ("lists_before", OTHERS[:1], "optimized24"),
    ("lists_before", OTHERS[:2], "restored24"),
    ("lists_before", OTHERS, "others20"),
    ("lists_before", SHRUNK, "shrunk8"),
    ("lists_before", (*SHRUNK, "optimize:grown16"), "grown16"),
    ("both_before", ("optimize:both_optimized",), "both_optimized"),
    pytest.param(
        "both_before",
        ("optimize:both_optimized", "shrink=1G:0", "shrink=4"),
        "both_shrunk",
        marks=pytest.mark.slow,
    ),
]


def without_structs(dump: Dump) -> Dump:
    return replace(dump, struct_blocks=())


@pytest.mark.parametrize(("layout", "operations", "after"), LISTS)
def test_a_list_of_operations_ends_where_a_real_kernel_did(
    layout: str, operations: tuple[str, ...], after: str
) -> None:
    done, dump = ran(layout, *operations)
    assert isinstance(done.outcome, Completed)
    assert done.findings == ()
    assert {use.verdict for use in done.uses} <= {Verdict.LEGAL, Verdict.EQUIVALENT}
    assert compare(without_structs(dump), real(after)) == ()
    # In numbers: the compared dumps have the folios, the flags and the counters of what was done.
    assert Counter(leaf.flags for leaf in leaves_of(dump)) == Counter(
        leaf.flags for leaf in leaves_of(real(after))
    )
    assert [row.pfn for row in dump.folios] == sorted(row.pfn for row in real(after).folios)
    assert dump.counters == real(after).counters


def block(dump: Dump, pfn: int) -> StructBlock:
    (found,) = (one for one in dump.struct_blocks if one.pfn == pfn)
    return found


def with_blocks(dump: Dump, *pfns: int) -> Dump:
    return replace(dump, struct_blocks=tuple(block(dump, pfn) for pfn in pfns))


NOT_AS_LINUX = pytest.mark.xfail(strict=True, reason="allocating a block overwrites lru.prev")


@pytest.mark.parametrize(
    ("operations", "after", "pfn"),
    [
        (OTHERS[:1], "optimized24", 0x5400),
        (OTHERS[:2], "restored24", 0x5400),
        ((*SHRUNK, "optimize:grown16"), "grown16", 0x1B800),
        pytest.param((*SHRUNK, "optimize:grown16"), "grown16", 0x1A800, marks=NOT_AS_LINUX),
    ],
)
def test_struct_pages_are_left_as_a_real_kernel_leaves_them(
    operations: tuple[str, ...], after: str, pfn: int
) -> None:
    _, dump = ran("lists_before", *operations)
    assert compare(with_blocks(dump, pfn), with_blocks(real(after), pfn)) == ()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda dump: with_leaf(dump, 248, lambda leaf: replace(leaf, flags="P W A D G")),
        lambda dump: with_leaf(dump, 249, lambda leaf: replace(leaf, pfn=leaf.pfn + 1)),
        lambda dump: with_folio(dump, 3, lambda row: replace(row, optimized=False, private=8)),
        lambda dump: replace(dump, counters={**dump.counters, "nr_memmap_pages": 65}),
        lambda dump: replace(dump, folios=dump.folios[1:]),
    ],
    ids=["flag", "frame", "folio", "counter", "folio missing"],
)
def test_one_thing_wrong_in_the_outcome_is_found(wrong: object) -> None:
    assert callable(wrong)
    _, dump = ran("main0_before", *OPTIMIZE_64)
    assert compare(wrong(dump), real("main1_alloc64")) != ()


def test_restored_shares_no_frame_and_is_writable() -> None:
    _, dump = ran("main0_before", *OPTIMIZE_64, "restore")
    frames = Counter(
        pfn for leaf in leaves_of(dump) for pfn in range(leaf.pfn, leaf.pfn + (512 if leaf.level == 2 else 1))
    )
    assert set(frames.values()) == {1}
    assert {leaf.flags for leaf in leaves_of(dump)} == {RW, LARGE}
    assert dump.folios == ()
    # Every vmemmap page has a frame again: some of boot's, the others allocated.
    assert dump.counters == {"nr_memmap_boot_pages": 4096 - 64 * 8, "nr_memmap_pages": 64 * 8}


def test_switched_off_nothing_is_optimized_and_nothing_split() -> None:
    done, dump = ran("main0_before", "sysctl=0", *OPTIMIZE_64)
    assert isinstance(done.outcome, Completed)
    assert len(dump.folios) == 64
    assert compare(replace(dump, folios=()), real("main0_before")) == ()
    assert {row.mapped_by for row in dump.folios} == {"PMD leaf"}


def test_switched_on_again_only_newcomers_are_optimized() -> None:
    _, dump = ran("lists_before", "sysctl=0", "optimize:shrunk8", "sysctl=1", "optimize:others20")
    early = {row.pfn for row in real("shrunk8").folios}
    assert {row.pfn for row in dump.folios if not row.optimized} == early
    assert {row.pfn for row in dump.folios if row.optimized} == {
        row.pfn for row in real("others20").folios
    } - early


@pytest.mark.slow
def test_a_run_over_real_input_replays() -> None:
    done, dump = ran("lists_before", *SHRUNK)
    setup = setup_from(real("lists_before"), do(*SHRUNK), 2)
    again = run(setup, lambda _system: Replay(parse(str(done.schedule))))
    assert (again.events, again.findings) == (done.events, done.findings)
    assert compare(ran("lists_before", *SHRUNK)[1], dump) == ()


def test_the_number_of_cpus_makes_no_difference_to_the_page_tables() -> None:
    _, alone = ran("lists_before", *OTHERS, cpus=1)
    assert compare(alone, ran("lists_before", *OTHERS)[1]) == ()


def test_tails_are_read_only_where_there_are_tails() -> None:
    _, dump = ran("lists_before", *OTHERS)
    assert Counter(leaf.flags for leaf in leaves_of(dump))[RO] == 20 * 7


def test_a_folio_whose_frames_have_been_taken_cannot_come_back() -> None:
    """Only a kernel that does something else in between can do that."""
    setup = setup_from(real("lists_before"), do(*OTHERS[:1]), 1)
    pages = setup.boot.huge_pages
    # The pool has never given them back: they are not free.
    actors = actors_of(Plan((Join(HSTATE_2M, pages[:1], frozenset({int(pages[0].pfn)})),), pages))
    with pytest.raises(InputError) as caught:
        run(Setup(setup.boot, actors, (), setup.watched), lambda _system: InOrder())
    assert str(caught.value) == (f"folio {pages[0].pfn:#x} cannot join the pool again: its frames are in use")
