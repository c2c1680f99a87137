"""Policies that are a table."""

from __future__ import annotations

import pytest
from flush_seen import flushed
from hvo_lab import lab_2m

from kernel_model.core.events import FlushBegun, FlushCompleted, PageFreed
from kernel_model.core.sites import FlushSite
from kernel_model.flush.policy import NamedPolicy
from kernel_model.flush.table import What, table


@pytest.mark.parametrize(("what", "cpus"), [(What.NOTHING, frozenset()), (What.AS_LINUX, frozenset({0, 1}))])
def test_what_is_not_flushed_is_relied_on_all_the_same(what: What, cpus: frozenset[int]) -> None:
    lab = lab_2m(cpus=2, policy=NamedPolicy("mine", "", table({FlushSite.REMAP: what})))
    lab.optimize(lab.config.huge_pages[0])
    split, remap = lab.heard(FlushBegun)
    assert (split.cpus, remap.cpus) == (frozenset({0, 1}), cpus)
    assert [one.begun for one in lab.heard(FlushCompleted)] == [lab.number_of(split), lab.number_of(remap)]


def test_what_is_settled_is_not_announced() -> None:
    lab = lab_2m(cpus=2, policy=NamedPolicy("mine", "", table({FlushSite.REMAP: What.SETTLED})))
    lab.optimize(lab.config.huge_pages[0])
    assert flushed(lab) == [(FlushSite.SPLIT, 512)]
    assert len(lab.heard(FlushCompleted)) == 1
    assert lab.heard(PageFreed)
