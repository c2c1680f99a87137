"""Memory runs out while the pool shrinks: what upstream does, what the deviations do, in every order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from emu.addr import PAGE_BYTES, PhysAddr, VirtAddr
from emu.events import Annotated, MachineEvent
from emu.paging.walk import Walk
from hvolab.catalog.bugs.failures import FAILURES, RESTORE_BULK_RETRY, RESTORE_OUT_OF_MEMORY
from hvolab.explore.budget import Budget
from hvolab.explore.explorer import explore
from hvolab.explore.reduce.dpor import Reduced
from hvolab.explore.search.interface import Freedom
from hvolab.subject.outcome import Completed, Run
from hvolab.subject.run import collect, run
from hvolab.subject.scenario import Bug, Scenario, Setup, with_deviation
from hvolab.subject.script import Script, ScriptPicker, ordering
from hvolab.subject.script_text import parse_script
from kernel_model.core.events import AllocationFailed, PageFreed
from kernel_model.layout import PAGE_OFFSET, HstateFields

BUGS = [(chosen, bug) for chosen in FAILURES for bug in chosen.bugs]
IDS = [bug.deviation.name for _, bug in BUGS]
ALL = frozenset({Freedom.SCHEDULE, Freedom.IRQ, Freedom.TLB})


def followed(setup: Setup, script: Script) -> Run:
    return run(setup, lambda system: ScriptPicker(script, system.machine))


def in_order(setup: Setup) -> tuple[Run, list[object]]:
    """A run with the actors one after the other, and what the kernel announced in it."""
    events: list[tuple[int, MachineEvent]] = []
    script = ordering(parse_script("cpu0 to its end"))
    done = run(setup, lambda system: ScriptPicker(script, system.machine), (collect(events),))
    assert isinstance(done.outcome, Completed)
    assert done.findings == ()
    return done, [event.payload for _, event in events if isinstance(event, Annotated)]


def numbers(done: Run) -> tuple[int, ...]:
    """nr, free, surplus, max"""
    of, memory = HstateFields(9), done.system.machine.memory
    words = (of.nr_huge_pages, of.free_huge_pages, of.surplus_huge_pages, of.max_huge_pages)
    return tuple(memory.read_word(PhysAddr(va - PAGE_OFFSET)) for va in words)


def optimized(done: Run) -> list[bool]:
    """Whether each huge page has eight struct-page pages that all show one frame."""
    mmu = done.system.machine.cpus[0].mmu
    folios = [huge.folio for huge in done.system.config.huge_pages]
    shown = [[mmu.peek(VirtAddr(folio + n * PAGE_BYTES)) for n in range(8)] for folio in folios]
    return [len({walk.pfn for walk in walks if isinstance(walk, Walk)}) == 1 for walks in shown]


def test_what_cannot_be_restored_is_surplus_and_goes_later() -> None:
    setup = RESTORE_OUT_OF_MEMORY.build(2)
    done, heard = in_order(replace(setup, actors=setup.actors[:1]))
    # The first of the list's allocations, then the first for either folio singly.
    assert [event.position for event in heard if isinstance(event, AllocationFailed)] == [0, 1, 2]
    assert numbers(done) == (2, 2, 2, 0)
    assert optimized(done) == [True, True]
    done, heard = in_order(setup)
    assert len([event for event in heard if isinstance(event, PageFreed) and event.order == 9]) == 2
    assert numbers(done) == (0, 0, 0, 0)
    assert optimized(done) == [False, False]


def test_the_first_pays_for_the_second() -> None:
    done, heard = in_order(RESTORE_BULK_RETRY.build(2))
    kinds = (AllocationFailed, PageFreed)
    told = [type(event) for event in heard if isinstance(event, kinds)]
    # Failure, the first huge page freed, the second.
    assert told == [AllocationFailed, PageFreed, PageFreed]
    assert numbers(done) == (0, 0, 0, 0)


@pytest.mark.parametrize("chosen", FAILURES, ids=lambda one: one.name)
def test_no_order_is_wrong(chosen: Scenario) -> None:
    done = explore(chosen.build(2), Reduced(), ALL, Budget(seconds=60))
    assert done.coverage.complete
    assert done.found == ()


@pytest.mark.parametrize(("chosen", "bug"), BUGS, ids=IDS)
def test_the_script_shows_the_deviation_and_upstream_is_not_wrong_in_it(chosen: Scenario, bug: Bug) -> None:
    setup = chosen.build(2)
    wrong = followed(with_deviation(setup, bug.deviation), bug.script)
    assert bug.verdict in {finding.verdict for finding in wrong.findings}
    right = followed(setup, ordering(bug.script))
    assert right.findings == ()
    assert isinstance(right.outcome, Completed)


@pytest.mark.parametrize(("chosen", "bug"), BUGS, ids=IDS)
def test_the_deviation_is_found_from_the_actors_alone(chosen: Scenario, bug: Bug) -> None:
    done = explore(with_deviation(chosen.build(2), bug.deviation), Reduced(), ALL, Budget(seconds=60))
    assert bug.verdict in {one.finding.verdict for one in done.found}
