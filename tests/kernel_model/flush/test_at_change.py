"""Policies that flush where an entry changes: what is left for the places where Linux flushes."""

from __future__ import annotations

import pytest
from flush_seen import flushed
from hvo_lab import lab_2m

from emu.paging.models import LAZY
from kernel_model.core.sites import FlushSite
from kernel_model.flush.breaking import BBM
from kernel_model.flush.policy import NamedPolicy
from kernel_model.flush.stopping import PAUSE_REMOTE, STOP_MACHINE


@pytest.mark.parametrize("policy", [BBM, STOP_MACHINE, PAUSE_REMOTE], ids=lambda one: one.name)
def test_each_entry_is_flushed_by_itself_and_nothing_again(policy: NamedPolicy) -> None:
    lab = lab_2m(cpus=2, policy=policy, model=LAZY)
    lab.optimize(lab.config.huge_pages[0])
    assert flushed(lab) == [(FlushSite.ELSEWHERE, 512), *[(FlushSite.ELSEWHERE, 1)] * 8]
