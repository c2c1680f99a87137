"""Beyond vmemmap: stale uses in every range that is asked for, and freed frames through any address."""

from __future__ import annotations

from dataclasses import replace

import pytest
from small_setups import PTE, TABLE, flush_all, freed, operation, setup_of, split, then

from emu.addr import PAGE_SHIFT, Pfn, VirtAddr, frame_start
from emu.cpu.condition import Word, WordIs
from emu.cpu.ops import AddWords, Await, FetchAndNot, Load, Store
from emu.paging.pte import PteBit
from emu.paging.walk import Walk
from hvolab.catalog.common import HUGE_PAGE, MEMORY_BYTES
from hvolab.explore.budget import Budget
from hvolab.explore.explorer import explore
from hvolab.explore.reduce.dpor import Reduced
from hvolab.explore.search.depth_first import everything
from hvolab.explore.search.interface import Freedom, Strategy
from hvolab.judge.verdict import Finding, Verdict
from hvolab.subject.ranges import RANGES
from hvolab.subject.scenario import Setup
from kernel_model.boot import BootConfig, Kernel, boot
from kernel_model.layout import direct_map

FREE = frozenset({Freedom.SCHEDULE, Freedom.IRQ, Freedom.TLB})
GO = Word("go")


def _leaf_of(va: VirtAddr) -> VirtAddr:
    """Where the 2 MiB leaf of the direct map for that address lies, in the direct map."""
    found = boot(BootConfig(MEMORY_BYTES, 1, (HUGE_PAGE,))).machine.cpus[0].mmu.peek(va)
    assert isinstance(found, Walk)
    return direct_map(found.steps[-1].pa)


UNUSED = direct_map(frame_start(Pfn(0x4000)))  # in the huge page, which nobody here uses
LEAF = _leaf_of(UNUSED)


async def protects_the_direct_map(kernel: Kernel) -> None:
    """set_memory_ro() without its flush: an operation makes a leaf read-only and returns."""

    async def protect(_kernel: Kernel) -> None:
        await FetchAndNot(LEAF, PteBit.WRITE)

    await operation(protect)(kernel)
    await AddWords(((GO, 1),))


async def writes_there(kernel: Kernel) -> None:
    await Await(WordIs(GO, 1))
    await Store(UNUSED, 1)


def found(setup: Setup, search: Strategy) -> list[Finding]:
    return [one.finding for one in explore(setup, search, FREE, Budget()).found]


def test_a_leaf_of_the_direct_map_made_read_only_without_a_flush_is_not_overlooked() -> None:
    setup = setup_of(protects_the_direct_map, writes_there)
    judged = replace(setup, judged=(RANGES.find("vmemmap"), RANGES.find("direct-map")))
    uses = [one for one in found(judged, Reduced()) if one.verdict is Verdict.MISSED_FLUSH]
    assert {(one.where.cpu, one.where.va) for one in uses} == {(1, UNUSED)}
    assert Verdict.MISSED_FLUSH not in {one.verdict for one in found(setup, Reduced())}


@pytest.mark.parametrize("names", [("vmemmap",), ("vmemmap", "direct-map"), ()], ids="+".join)
def test_the_reduced_search_is_told_what_is_judged_elsewhere(names: tuple[str, ...]) -> None:
    setup = replace(
        setup_of(protects_the_direct_map, writes_there), judged=tuple(RANGES.find(name) for name in names)
    )
    searches: tuple[Strategy, ...] = (Reduced(), everything())
    one, other = ({(f.verdict, f.where) for f in found(setup, search)} for search in searches)
    assert one == other


def frees_then_reads(va: VirtAddr):
    async def reads(kernel: Kernel) -> None:
        await Load(va)

    return then(freed(Pfn((va - direct_map(0)) >> PAGE_SHIFT)), reads)


def test_a_freed_frame_is_not_free_game_through_the_direct_map() -> None:
    (finding,) = found(setup_of(frees_then_reads(UNUSED)), Reduced())
    assert (finding.verdict, finding.where.va, finding.cause) == (
        Verdict.USE_AFTER_FREE,
        UNUSED,
        "a frame was used that had been freed",
    )


async def allocates_what_was_freed(kernel: Kernel) -> None:
    page = await kernel.pages.alloc_page("test")
    assert page is not None
    await kernel.pages.free_page(page)
    again = await kernel.pages.alloc_page("test")
    assert again == page


def test_the_allocator_may_use_what_is_free() -> None:
    assert found(setup_of(allocates_what_was_freed), Reduced()) == []


async def walks_a_freed_table(kernel: Kernel) -> None:
    """A software walker reads entries of a page table through the direct map."""
    await then(split, flush_all, freed(TABLE))(kernel)
    await Load(PTE)


def test_a_software_walker_in_a_freed_table_is_not_overlooked() -> None:
    verdicts = {(one.verdict, one.where.va) for one in found(setup_of(walks_a_freed_table), Reduced())}
    assert (Verdict.USE_AFTER_FREE, PTE) in verdicts
