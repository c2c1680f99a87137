"""A CPU between two address spaces: who leaves it out, and when it looks whether it has to catch up."""

from __future__ import annotations

import pytest
from hvo_lab import Lab, lab_2m

from emu.choice import Step
from emu.events import Invalidated, IpiSent
from emu.paging.models import LAZY
from emu.paging.tlb import InvalidateAll
from kernel_model.core.events import FlushBegun
from kernel_model.flush.policy import NamedPolicy
from kernel_model.flush.switching import SKIP_SWITCHING, SKIP_SWITCHING_LATE

BOTH = pytest.mark.parametrize("policy", [SKIP_SWITCHING, SKIP_SWITCHING_LATE], ids=lambda one: one.name)


def lab_with(policy: NamedPolicy) -> Lab:
    return lab_2m(cpus=3, policy=policy, model=LAZY)


def between(policy: NamedPolicy) -> Lab:
    """CPU 1 has left, and not arrived."""
    lab = lab_with(policy)
    lab.start(lab.kernel.flush.switch_mm_irqs_off, 1)
    lab.perform(Step(1))
    return lab


def targets(lab: Lab) -> list[tuple[int, ...]]:
    return [event.targets for event in lab.seen(IpiSent)]


@BOTH
def test_who_is_between_two_is_left_out_and_flushes_when_it_arrives(policy: NamedPolicy) -> None:
    lab = between(policy)
    lab.start(lab.kernel.flush.flush_tlb_all, 0)
    while Step(0) in lab.machine.enabled():
        lab.perform(Step(0))
    assert targets(lab) == [(2,)]
    lab.run()
    assert [event.cpu for event in lab.seen(Invalidated) if event.what == InvalidateAll()].count(1) == 1
    assert [event.cpus for event in lab.heard(FlushBegun)] == [frozenset({0, 2})]


@BOTH
def test_who_is_not_is_interrupted(policy: NamedPolicy) -> None:
    lab = lab_with(policy)
    lab.call(lab.kernel.flush.switch_mm_irqs_off, 1)
    lab.call(lab.kernel.flush.flush_tlb_all)
    assert targets(lab) == [(1, 2)]
    assert lab.seen(Invalidated)[0].cpu == 0, "nobody had to catch up"


@BOTH
def test_who_has_caught_up_does_not_do_so_again(policy: NamedPolicy) -> None:
    lab = lab_with(policy)
    lab.call(lab.kernel.flush.flush_tlb_all)
    for _ in range(2):
        lab.call(lab.kernel.flush.switch_mm_irqs_off, 1)
    assert [event.cpu for event in lab.seen(Invalidated)].count(1) == 2, "the interrupt's, and one more"


def flushed_while_it_arrives(policy: NamedPolicy, steps: int) -> Lab:
    """CPU 0 flushes everything when CPU 1 has made so many steps of its arrival."""
    lab = between(policy)
    for _ in range(steps):
        lab.perform(Step(1))
    lab.start(lab.kernel.flush.flush_tlb_all, 0)
    while Step(0) in lab.machine.enabled():
        lab.perform(Step(0))
    lab.run()
    return lab


@pytest.mark.parametrize("steps", range(4))
def test_whenever_somebody_flushes_who_arrives_is_interrupted_or_notices(steps: int) -> None:
    lab = flushed_while_it_arrives(SKIP_SWITCHING, steps)
    assert 1 in [event.cpu for event in lab.seen(Invalidated)]


def test_who_looks_too_early_is_not_interrupted_and_does_not_notice() -> None:
    lab = flushed_while_it_arrives(SKIP_SWITCHING_LATE, 2)
    assert targets(lab) == [(2,)]
    assert [event.cpu for event in lab.seen(Invalidated)] == [0, 2]
