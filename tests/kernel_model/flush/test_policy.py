"""Policies as values, and one of one's own."""

from __future__ import annotations

import pytest
from hvo_lab import MIB, Lab

from kernel_model.boot import BootConfig
from kernel_model.core.events import FlushBegun
from kernel_model.flush.broken import NEVER, SKIPS_LAST_CPU
from kernel_model.flush.policy import NamedPolicy, PolicySetup
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
