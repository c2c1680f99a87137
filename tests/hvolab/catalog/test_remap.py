"""remap and remap-1g: pages, flags, counters, before and after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from catalog_runs import FIRST_FRAME, HEAD, LARGE, MIB, PAGE, RO, RW, VMEMMAP, Mapped, leaf, own_run, seen

from emu.events import Finished, IpiSent, MachineEvent
from hvolab.catalog import scenario
from hvolab.show.pages_view import PagesView, Phase, meaning
from hvolab.subject.outcome import Completed, Run
from hvolab.subject.picker import Replay
from hvolab.subject.run import run
from hvolab.subject.scenario import Scenario
from hvolab.subject.schedule import parse
from hvolab.subject.script import ScriptPicker
from kernel_model.boot import System

# --- remap ----------------------------------------------------------------------------------------------


def phases_of(
    chosen: Scenario, cpus: int, also: Callable[[System], Callable[..., None]]
) -> tuple[Run, list[Phase]]:
    """The view that the report shows, and one listener more."""
    setup = chosen.build(cpus)
    views: list[PagesView] = []

    def view(system: System) -> PagesView:
        views.append(PagesView(system, setup.watched, setup.tour))
        return views[-1]

    done = run(setup, lambda system: ScriptPicker(setup.script, system.machine), (view, also))
    return done, views[0].phases


def after_each_operation(
    mapped: list[dict[int, Mapped]], pages: range
) -> Callable[[System], Callable[..., None]]:
    """A listener that walks the page tables itself whenever an operation ends."""

    def listener(system: System) -> Callable[..., None]:
        mapped.append({va: leaf(system.machine, va) for va in pages})

        def listen(_number: int, event: MachineEvent) -> None:
            if isinstance(event, Finished) and event.name in ("optimize", "restore"):
                mapped.append({va: leaf(system.machine, va) for va in pages})

        return listen

    return listener


PAGES = range(HEAD, HEAD + 8 * PAGE, PAGE)


@pytest.mark.parametrize("cpus", [1, 2, 3, 5])
def test_remap_shows_what_each_cpu_reads_through_its_own_tlb(cpus: int) -> None:
    mapped: list[dict[int, Mapped]] = []
    done, phases = phases_of(scenario("remap"), cpus, after_each_operation(mapped, PAGES))
    assert [phase.name for phase in phases] == ["before", "optimized", "restored"]
    for phase, tables in zip(phases, mapped, strict=True):
        assert [row.pfn for row in phase.rows] == [tables[va].pa >> 12 for va in PAGES]
        assert [row.flags for row in phase.rows] == [tables[va].flags for va in PAGES]
        assert [row.index for row in phase.rows] == list(range(8))
        for row in phase.rows:
            assert [cpu for cpu, _ in row.read] == list(range(cpus))
    before, optimized, restored = phases
    # Each CPU reads a head and seven tails, then eight heads, then a head and seven tails.
    own = [[meaning(words, p.folio) for _, words in row.read] for p in phases for row in p.rows]
    head, tail = ["a head"] * cpus, ["a tail"] * cpus
    assert own == [head, *[tail] * 7, *[head] * 8, head, *[tail] * 7]
    # Of all that is read through a tail of an optimized folio, nothing differs from the head's page.
    assert {row.read for row in optimized.rows} == {optimized.rows[0].read}
    assert [row.pfn for row in before.rows] == list(range(FIRST_FRAME, FIRST_FRAME + 8))
    assert {row.flags for row in before.rows} == {LARGE}
    assert len({row.pfn for row in optimized.rows}) == 1
    assert [row.flags for row in optimized.rows] == [RW] + [RO] * 7
    assert len({row.pfn for row in restored.rows}) == 8
    assert {row.flags for row in restored.rows} == {RW}
    assert restored.rows[0].pfn == optimized.rows[0].pfn not in {row.pfn for row in before.rows}
    assert done.findings == ()
    assert done.uses == ()


def test_remap_saves_7_pages_and_gives_them_back() -> None:
    _, phases = phases_of(scenario("remap"), 2, after_each_operation([], PAGES))
    counted = [dict(phase.counters) for phase in phases]
    boot = [counters["nr_memmap_boot_pages"] for counters in counted]
    later = [counters["nr_memmap_pages"] for counters in counted]
    assert boot == [512, 512 - 8, 512 - 8]
    assert later == [0, 1, 8]
    saved = [boot[0] + later[0] - boot[n] - later[n] for n in range(3)]
    assert saved == [0, 7, 0]
    # Of the 7 frames one went into the page table of the split.
    free = [phase.free_frames for phase in phases]
    assert [free[1] - free[0], free[2] - free[0]] == [7 - 1, -1]


@pytest.mark.parametrize("cpus", [2, 5])
def test_remap_leaves_the_tails_readable_as_tails(cpus: int) -> None:
    """Their compound_head points to the head again, in every one of the 512 struct pages but the head."""
    done = seen("remap", cpus)
    assert [done.word(HEAD + 64 * n + 8) for n in range(1, 512)] == [HEAD + 1] * 511


# --- remap-1g -------------------------------------------------------------------------------------------


HEAD_1G = VMEMMAP + 64 * 0x40000
PAGES_1G = range(HEAD_1G, HEAD_1G + 4096 * PAGE, PAGE)
SECTIONS_1G = (2048 + 128) // 128


@dataclass
class Remap1g:
    run: Run
    phases: list[Phase]
    mapped: list[dict[int, Mapped]]


@pytest.fixture(scope="module")
def remap_1g() -> Remap1g:
    mapped: list[dict[int, Mapped]] = []
    done, phases = phases_of(scenario("remap-1g"), 1, after_each_operation(mapped, PAGES_1G))
    return Remap1g(done, phases, mapped)


def test_remap_1g_saves_4095_pages_by_the_counters(remap_1g: Remap1g) -> None:
    assert isinstance(remap_1g.run.outcome, Completed)
    assert remap_1g.run.findings == ()
    counted = [dict(phase.counters) for phase in remap_1g.phases]
    boot = [counters["nr_memmap_boot_pages"] for counters in counted]
    later = [counters["nr_memmap_pages"] for counters in counted]
    total = 512 * SECTIONS_1G
    assert boot == [total, total - 4096, total - 4096]
    assert later == [0, 1, 4096]
    free = [phase.free_frames for phase in remap_1g.phases]
    assert [free[1] - free[0], free[2] - free[0]] == [4095 - 8, -8]


def test_remap_1g_saves_4095_pages_by_the_page_tables(remap_1g: Remap1g) -> None:
    before, optimized, restored = remap_1g.mapped
    frames = [{mapped.pa >> 12 for mapped in tables.values()} for tables in (before, optimized, restored)]
    assert [len(found) for found in frames] == [4096, 1, 4096]
    assert not frames[1] & frames[0]
    assert [optimized[va].flags for va in PAGES_1G] == [RW] + [RO] * 4095
    assert {mapped.flags for mapped in restored.values()} == {RW}


def test_remap_1g_splits_its_8_pmds(remap_1g: Remap1g) -> None:
    before, optimized, restored = remap_1g.mapped
    assert {mapped.level for mapped in before.values()} == {2}
    assert {mapped.level for mapped in optimized.values()} == {1}
    assert {mapped.level for mapped in restored.values()} == {1}
    machine = remap_1g.run.system.machine
    levels = [leaf(machine, VMEMMAP + n * 2 * MIB).level for n in range(SECTIONS_1G)]
    first = (HEAD_1G - VMEMMAP) // (2 * MIB)
    assert levels == [2] * first + [1] * 8 + [2] * (SECTIONS_1G - first - 8)


def test_remap_1g_shows_its_first_8_pages(remap_1g: Remap1g) -> None:
    read = [[meaning(words, p.folio) for row in p.rows for _, words in row.read] for p in remap_1g.phases]
    assert read == [["a head"] + ["a tail"] * 7, ["a head"] * 8, ["a head"] + ["a tail"] * 7]


@pytest.mark.slow
def test_remap_1g_replays(remap_1g: Remap1g) -> None:
    first = remap_1g.run
    again = run(scenario("remap-1g").build(1), lambda _system: Replay(parse(str(first.schedule))))
    assert (again.uses, again.findings, again.events) == (first.uses, first.findings, first.events)


@pytest.mark.slow
def test_remap_1g_with_a_second_cpu_interrupts_it() -> None:
    done = own_run(scenario("remap-1g"), 2)
    assert done.run.findings == ()
    assert {event.targets for _, event in done.events if isinstance(event, IpiSent)} == {(1,)}
