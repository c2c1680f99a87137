"""Lazy coherence: who flushes when, what is held until then, and what is settled."""

from __future__ import annotations

import pytest
from hvo_lab import Lab, lab_2m

from emu.choice import Choice, Step, TakeInterrupt
from emu.cpu.cpu import RoutineContext
from emu.cpu.ops import Store
from emu.events import Invalidated, IpiSent
from emu.paging.models import LAZY
from kernel_model.core.events import FlushBegun, FlushesSettled, OperationReturned, PageFreed
from kernel_model.flush.lazy import LATR, LATR_SHORT
from kernel_model.flush.policy import NamedPolicy
from kernel_model.layout import PerCpu

BOTH = pytest.mark.parametrize("policy", [LATR, LATR_SHORT], ids=lambda one: one.name)


def optimized(policy: NamedPolicy) -> Lab:
    """CPU 0 has optimized the folio, and no CPU has ticked yet but where it had to."""
    lab = lab_2m(cpus=3, policy=policy, model=LAZY)
    huge = lab.config.huge_pages[0]
    lab.start(lambda: lab.kernel.hvo.hugetlb_vmemmap_optimize_folio(huge.hstate, huge.folio))

    def others_answer(enabled: list[Choice]) -> Choice:
        return next((one for one in enabled if one == Step(0)), enabled[-1])

    while not lab.heard(OperationReturned):
        lab.perform(others_answer(lab.machine.enabled()))
    return lab


def tick(lab: Lab, cpu: int) -> None:
    """One whole tick of that CPU."""
    lab.perform(TakeInterrupt(cpu))
    while Step(cpu) in lab.machine.enabled():
        lab.perform(Step(cpu))


def freed(lab: Lab) -> int:
    return len(lab.heard(PageFreed))


def begun(lab: Lab) -> int:
    return max(event.generation for event in lab.heard(FlushBegun))


def settled(lab: Lab) -> int:
    return max((event.generation for event in lab.heard(FlushesSettled)), default=0)


@BOTH
def test_nobody_is_interrupted_for_a_flush_and_nothing_is_freed_when_it_returns(policy: NamedPolicy) -> None:
    lab = optimized(policy)
    assert [event.generation for event in lab.heard(FlushBegun)] == [1, 2]
    assert {type(event.payload).__name__ for event in lab.seen(IpiSent)} <= {"SyncCore"}
    assert freed(lab) == 0


@BOTH
def test_when_all_have_ticked_everything_is_settled_and_freed(policy: NamedPolicy) -> None:
    lab = optimized(policy)
    lab.run()
    assert (settled(lab), freed(lab)) == (begun(lab), 8)
    assert {event.cpu for event in lab.seen(Invalidated)} == {0, 1, 2}
    assert TakeInterrupt(0) not in lab.machine.enabled()


@pytest.mark.parametrize("last", [0, 1, 2])
def test_pages_are_held_until_the_last_cpu_has_caught_up_whichever_that_is(last: int) -> None:
    lab = optimized(LATR)
    for cpu in (0, 1, 2):
        if cpu != last:
            tick(lab, cpu)
            assert freed(lab) == 0
    assert settled(lab) < begun(lab)
    tick(lab, last)
    assert settled(lab) == begun(lab)
    if last != 0:
        assert freed(lab) == 0, "the CPU that holds them frees them, at its next tick"
        tick(lab, 0)
    assert freed(lab) == 8


def test_held_too_shortly_they_are_freed_when_only_the_cpu_that_holds_them_has_ticked() -> None:
    lab = optimized(LATR_SHORT)
    tick(lab, 0)
    assert (settled(lab), freed(lab)) == (begun(lab), 8)


def test_what_is_held_is_added_to_what_was() -> None:
    lab = optimized(LATR)
    huge = lab.config.huge_pages[0]
    lab.start(lambda: lab.kernel.hvo.hugetlb_vmemmap_restore_folio(huge.hstate, huge.folio))
    lab.start(lambda: lab.kernel.hvo.hugetlb_vmemmap_optimize_folio(huge.hstate, huge.folio))
    while len(lab.heard(OperationReturned)) < 3:
        enabled = lab.machine.enabled()
        lab.perform(Step(0) if Step(0) in enabled else enabled[-1])
    assert freed(lab) == 0
    lab.run()
    assert freed(lab) == 16


def test_a_tick_does_not_free_what_is_held_by_the_generation_of_what_was_held_before() -> None:
    """It once could come between the two, and free pages that another CPU was still to forget."""
    lab = optimized(LATR)
    huge = lab.config.huge_pages[0]
    lab.start(lambda: lab.kernel.hvo.hugetlb_vmemmap_restore_folio(huge.hstate, huge.folio))
    lab.start(lambda: lab.kernel.hvo.hugetlb_vmemmap_optimize_folio(huge.hstate, huge.folio))
    held, told = [], []
    while len(lab.heard(OperationReturned)) < 3:
        context, on = lab.machine.cpus[0].top, lab.machine.cpus[0].interrupts_enabled
        assert isinstance(context, RoutineContext)
        held += [on] if "splice_init" in context.functions() else []
        told += (
            [on] if isinstance(context.pending, Store) and context.pending.va == PerCpu(0).held_until else []
        )
        enabled = lab.machine.enabled()
        lab.perform(Step(0) if Step(0) in enabled else enabled[-1])
    assert (len(held) > 5, set(held), told) == (True, {False}, [False])


def test_nothing_is_settled_while_a_cpu_has_never_caught_up() -> None:
    lab = optimized(LATR)
    tick(lab, 0)
    assert lab.heard(FlushesSettled) == []
