"""Policies as values, and one of one's own."""

from __future__ import annotations

import pytest
from flat_cpu import FlatCpu
from hvo_lab import MIB, Lab

from emu.addr import VirtAddr
from emu.paging.pte import Pte
from kernel_model.boot import BootConfig
from kernel_model.core.events import FlushBegun
from kernel_model.core.sites import FlushSite
from kernel_model.flush.broken import NEVER, SKIPS_LAST_CPU
from kernel_model.flush.policy import EntryChange, NamedPolicy, PolicySetup, StaleRange, announce, settle
from kernel_model.flush.upstream import UPSTREAM, UpstreamFlush


@pytest.mark.parametrize("policy", [UPSTREAM, SKIPS_LAST_CPU, NEVER], ids=lambda policy: policy.name)
def test_each_policy_has_a_name_and_a_summary(policy: NamedPolicy) -> None:
    assert policy.name == policy.name.lower().replace(" ", "-")
    assert policy.summary


def test_a_policy_of_ones_own_is_twenty_lines() -> None:
    class OnlyHere(UpstreamFlush):
        def targets(self, initiator: int) -> frozenset[int]:
            return super().targets(initiator) & frozenset()

    lab = Lab(BootConfig(16 * MIB, 2, (), policy=NamedPolicy("only-here", "flushes this CPU", OnlyHere)))
    lab.call(lab.kernel.flush.flush_tlb_all)
    assert lab.heard(FlushBegun)[0].cpus == frozenset({0})
    assert (len(lab.invalidations(0)), len(lab.invalidations(1))) == (1, 0)
    assert UpstreamFlush(PolicySetup(frozenset({0, 1, 5}), 33)).targets(5) == frozenset({0, 1})


@pytest.mark.parametrize("generation", [-1, "a", True, 1.0])
def test_what_is_no_generation_is_not_announced(generation: object) -> None:
    stale = StaleRange.everywhere_at(FlushSite.ELSEWHERE)
    with pytest.raises(ValueError, match=r"is no generation: they are numbered from 1, and 0 is none$"):
        FlatCpu().run(announce(stale, frozenset(), generation))


@pytest.mark.parametrize("generation", [0, -1, "x", True])
def test_what_is_no_generation_is_not_settled(generation: object) -> None:
    with pytest.raises(
        ValueError, match=r"is no generation that could be settled: they are numbered from 1$"
    ):
        FlatCpu().run(settle(generation))


def test_what_are_no_cpus_and_no_entry_is_told() -> None:
    stale = StaleRange.everywhere_at(FlushSite.ELSEWHERE)
    with pytest.raises(TypeError, match=r"^announce\(\) wants the CPUs as a frozenset, not \[0\]$"):
        FlatCpu().run(announce(stale, [0]))
    change = EntryChange(VirtAddr(0x1000), Pte(0), None, None)
    with pytest.raises(TypeError, match=r"^exchange\(\) wants an entry, not 'x'$"):
        FlatCpu().run(change.exchange("x"))
