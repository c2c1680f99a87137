"""Policies that are wrong on purpose: what they leave out, and that they leave out nothing else."""

from __future__ import annotations

import pytest
from hvo_lab import PAGE, VMEMMAP, Lab, lab_2m

from emu.addr import VirtAddr
from emu.choice import Step
from emu.events import Invalidated, IpiAcknowledged, IpiTaken
from emu.paging.tlb import InvalidateAll, Invlpg
from kernel_model.core.events import FlushCompleted, PageFreed
from kernel_model.flush.broken import (
    EARLY_ACK,
    FLUSH_ALL_NO_OP,
    LOCAL_ONLY,
    NEVER,
    NO_WAIT,
    RELEASE_BEFORE_FLUSH,
    SKIPS_IDLE,
    SKIPS_LAST_CPU,
)
from kernel_model.flush.policy import NamedPolicy
from kernel_model.flush.upstream import UPSTREAM
from kernel_model.layout import PerCpu

SMALL, LARGE, ALL = 8, 34, None
"""Pages to flush: below the ceiling of 33, above it, and flush_tlb_all()."""


def dropped(policy: NamedPolicy, pages: int | None) -> dict[int, str]:
    """What each of three CPUs invalidates when CPU 0 flushes; CPU 1 says that it is idle."""
    lab: Lab = lab_2m(cpus=3, policy=policy)
    lab.write(PerCpu(1).idle, (1).to_bytes(8, "little"))
    start, flush = VirtAddr(VMEMMAP), lab.kernel.flush
    if pages is None:
        lab.call(flush.flush_tlb_all)
    else:
        lab.call(lambda: flush.flush_tlb_kernel_range(start, VirtAddr(start + pages * PAGE)))
    told = {}
    for event in lab.seen(Invalidated):
        match event.what:
            case InvalidateAll():
                told[event.cpu] = "all"
            case Invlpg(pages=count):
                told[event.cpu] = f"{count} pages"
    return told


@pytest.mark.parametrize(
    ("policy", "cpus"),
    [
        (UPSTREAM, {0, 1, 2}),
        (SKIPS_IDLE, {0, 2}),
        (SKIPS_LAST_CPU, {0, 1}),
        (LOCAL_ONLY, {0}),
        (NEVER, set()),
    ],
    ids=lambda one: getattr(one, "name", ""),
)
def test_who_is_left_out_is_all_that_differs_from_upstream(policy: NamedPolicy, cpus: set[int]) -> None:
    """A range above the ceiling is a full flush for those that are flushed at all."""
    assert dropped(policy, SMALL) == dict.fromkeys(cpus, "8 pages")
    assert dropped(policy, LARGE) == dict.fromkeys(cpus, "all")
    assert dropped(policy, ALL) == dict.fromkeys(cpus, "all")


def test_where_flush_tlb_all_does_nothing_ranges_are_flushed_as_upstream() -> None:
    assert dropped(FLUSH_ALL_NO_OP, ALL) == {}
    for pages in (SMALL, LARGE):
        assert dropped(FLUSH_ALL_NO_OP, pages) == dropped(UPSTREAM, pages)


def test_who_does_not_wait_goes_on_before_anybody_else_has_flushed() -> None:
    lab = lab_2m(cpus=2, policy=NO_WAIT)
    call = lab.start(lab.kernel.flush.flush_tlb_all)
    while Step(0) in lab.machine.enabled():
        lab.perform(Step(0))
    assert call.returned
    assert len(lab.heard(FlushCompleted)) == 1
    assert {event.cpu for event in lab.seen(Invalidated)} == {0}
    assert lab.seen(IpiTaken) == []


@pytest.mark.parametrize("whole", [False, True])
def test_pages_are_free_before_the_flush_where_it_comes_after(whole: bool) -> None:
    lab = lab_2m(cpus=2, policy=RELEASE_BEFORE_FLUSH)
    if whole:
        lab.optimize_list()
    else:
        lab.optimize(lab.config.huge_pages[0])
    split, freed, after = lab.seen(Invalidated)[:2], lab.heard(PageFreed), lab.seen(Invalidated)[2:]
    assert (len(split), len(freed), len(after)) == (2, 8, 2)
    order = [type(event) for event in (*lab.heard(PageFreed, FlushCompleted),)]
    assert order == [FlushCompleted, *[PageFreed] * 8, FlushCompleted]


def test_an_early_answer_comes_before_the_flush_and_what_waits_goes_on_between() -> None:
    lab = lab_2m(cpus=2, policy=EARLY_ACK)
    lab.call(lab.kernel.flush.flush_tlb_all)
    seen = [event for event in lab.recent() if isinstance(event, IpiAcknowledged | Invalidated)]
    assert [(type(event), event.cpu) for event in seen] == [
        (Invalidated, 0),
        (IpiAcknowledged, 1),
        (Invalidated, 1),
    ]
