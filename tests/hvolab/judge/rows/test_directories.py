"""Uses through directory entries and page-table pages: changed, freed and used again, seen by any CPU."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from small_setups import LEAF, PAGE, PMD, PTE, WORD, flush_all, loads, operation, setup_of, split, split_table

from emu.addr import PAGE_BYTES, PAGE_SHIFT, Pfn, frame_start
from emu.cpu.condition import Word, WordIs
from emu.cpu.ops import AddWords, Await, Fill, Store
from emu.paging.models import (
    LAZY,
    LAZY_ALDER_LAKE,
    LAZY_ERRATUM_383,
    LAZY_NO_PSC,
    LAZY_SINGLE,
    CpuModel,
)
from emu.paging.pte import Pte
from hvolab.catalog import scenario
from hvolab.catalog.common import HUGE_PAGE, MEMORY_BYTES
from hvolab.explore.budget import Budget
from hvolab.explore.explorer import explore
from hvolab.explore.reduce.dpor import Reduced
from hvolab.explore.search.interface import Freedom
from hvolab.judge.verdict import Finding, Verdict
from hvolab.subject.scenario import Setup, with_deviation
from kernel_model.boot import BootConfig, Kernel
from kernel_model.flush.broken import SKIPS_LAST_CPU
from kernel_model.layout import direct_map, page_to_pfn, page_to_virt
from kernel_model.mm.pgtable import PAGE_KERNEL, PAGE_TABLE, mk_pte

LAZY_MODELS = (LAZY, LAZY_SINGLE, LAZY_ALDER_LAKE, LAZY_ERRATUM_383, LAZY_NO_PSC)
GO = Word("go")
OTHER_TABLE, NEW, OTHERS = Pfn(0x3002), Pfn(0x3001), Pfn(0x3003)
INDEX = PAGE >> PAGE_SHIFT & 511

Body = Callable[[Kernel], Awaitable[None]]


def found(setup: Setup) -> list[Finding]:
    done = explore(setup, Reduced(), frozenset(Freedom), Budget())
    assert done.coverage.complete
    return [one.finding for one in done.found]


def on(model: CpuModel, body: Body, reader: Body) -> Setup:
    boot = BootConfig(MEMORY_BYTES, 2, (HUGE_PAGE,), model=model)
    return setup_of(body, reader, boot_config=boot)


async def reads_twice(kernel: Kernel) -> None:
    await Await(WordIs(GO, 1))
    await loads(1, WORD, WORD)(kernel)


async def points_the_pmd_at_another_table(kernel: Kernel) -> None:
    """An operation does that and returns unflushed; the flush that follows is nobody's who owed one."""
    await split(kernel)
    await flush_all(kernel)
    await Fill(direct_map(frame_start(OTHER_TABLE)), split_table())
    await Store(direct_map(frame_start(OTHER_TABLE) + (PTE & (PAGE_BYTES - 1))), mk_pte(NEW, PAGE_KERNEL))
    await AddWords(((GO, 1),))

    async def change(_kernel: Kernel) -> None:
        await Store(PMD, Pte.make(OTHER_TABLE, PAGE_TABLE))

    await operation(change)(kernel)
    await flush_all(kernel)


@pytest.mark.parametrize("model", LAZY_MODELS, ids=lambda model: model.name)
def test_a_use_through_a_changed_directory_entry_is_not_left_unjudged(model: CpuModel) -> None:
    verdicts = {finding.verdict for finding in found(on(model, points_the_pmd_at_another_table, reads_twice))}
    assert Verdict.MISSED_FLUSH in verdicts


def collapse(*steps: str) -> Body:
    """Puts the 2 MiB leaf back over a split PMD, then does what `steps` say: flush, free."""

    async def body(kernel: Kernel) -> None:
        table = await kernel.pages.alloc_page("pte table")
        assert table is not None
        await Fill(page_to_virt(table), split_table())
        await Store(PMD, Pte.make(page_to_pfn(table), PAGE_TABLE))
        await flush_all(kernel)
        await AddWords(((GO, 1),))

        async def free_and_use_again() -> None:
            await kernel.pages.free_page(table)
            other = mk_pte(OTHERS, PAGE_KERNEL).to_bytes(8, "little")
            await Fill(page_to_virt(table), bytes(8 * INDEX) + other + bytes(PAGE_BYTES - 8 * INDEX - 8))

        async def inner(kernel: Kernel) -> None:
            await Store(PMD, LEAF)
            for step in steps:
                await (flush_all(kernel) if step == "flush" else free_and_use_again())

        await operation(inner)(kernel)

    return body


@pytest.mark.parametrize("steps", [("free", "flush"), ("free",)], ids=" then ".join)
@pytest.mark.parametrize(
    "model", [LAZY, pytest.param(LAZY_SINGLE, marks=pytest.mark.slow)], ids=lambda model: model.name
)
def test_a_walk_through_a_page_table_that_was_freed_is_not_overlooked(
    model: CpuModel, steps: tuple[str, ...]
) -> None:
    shown = found(on(model, collapse(*steps), reads_twice))
    freed = [finding for finding in shown if finding.verdict is Verdict.USE_AFTER_FREE and finding.where.cpu]
    assert freed
    assert any("page table" in line for line in freed[0].why)


@pytest.mark.parametrize("model", [LAZY, LAZY_SINGLE, LAZY_NO_PSC], ids=lambda model: model.name)
def test_a_page_table_freed_after_the_flush_is_no_violation_for_who_used_it_before(model: CpuModel) -> None:
    shown = found(on(model, collapse("flush", "free"), reads_twice))
    assert [finding for finding in shown if finding.where.cpu == 1] == []


@pytest.mark.parametrize("cpus", [3, 4, 16])
def test_a_cpu_left_out_of_a_flush_is_not_excused_for_having_no_actor(cpus: int) -> None:
    setup = with_deviation(scenario("flush-reader").build(cpus), SKIPS_LAST_CPU)
    done = explore(setup, Reduced(), frozenset(Freedom), Budget())
    assert cpus - 1 in {one.finding.where.cpu for one in done.found}
