"""Policies that are wrong on purpose: what they leave out, and that they leave out nothing else."""

from __future__ import annotations

import pytest
from hvo_lab import PAGE, VMEMMAP, Lab, lab_2m

from emu.addr import VirtAddr
from emu.events import Invalidated
from emu.paging.tlb import InvalidateAll, Invlpg
from kernel_model.flush.broken import FLUSH_ALL_NO_OP, LOCAL_ONLY, NEVER, SKIPS_IDLE, SKIPS_LAST_CPU
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
