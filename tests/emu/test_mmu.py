"""One CPU's MMU: what it tells, and what it does with what leads out of memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
from paging_rig import RW, VA, PagingRig, access, read

from emu.addr import PageSize, PhysAddr, VirtAddr
from emu.events import Invalidated
from emu.mmu import without_rule
from emu.paging.models import LAZY, SKYLAKE, ZEN_3, CpuModel
from emu.paging.tlb import ALL_RULES, Invlpg, Rule
from emu.paging.walk import BusError


@pytest.mark.parametrize("model", [SKYLAKE, ZEN_3, LAZY], ids=lambda model: model.name)
def test_an_access_beyond_memory_is_a_bus_error_by_a_cached_entry_too(model: CpuModel) -> None:
    """A 1G page that begins in memory and ends outside."""
    rig = PagingRig()
    rig.map(VA, 0, RW, PageSize.GIB1)
    mmu = rig.mmu(model)
    assert read(mmu, VA + 0x5000) == 5
    outside = rig.memory.size
    for _ in range(2):
        assert access(mmu, VA + outside + 8) == BusError(VirtAddr(VA + outside + 8), PhysAddr(outside + 8))


def test_without_rule_takes_away_that_rule_and_leaves_the_rest_of_the_model() -> None:
    for rule in Rule:
        model = without_rule(SKYLAKE, rule)
        assert model == replace(SKYLAKE, rules=ALL_RULES - {rule})
    assert SKYLAKE.rules == ALL_RULES


def test_an_invalidation_is_told_once_with_its_cpu() -> None:
    rig = PagingRig()
    rig.listen()
    mmu = rig.mmu(SKYLAKE)
    mmu.invalidate(Invlpg(VA, 0, 3))
    assert rig.events == [Invalidated(0, Invlpg(VA, 0, 3))]
