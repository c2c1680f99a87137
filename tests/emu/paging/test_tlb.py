"""What all TLBs have in common."""

from __future__ import annotations

from hypothesis import given
from invalidations import INVALIDATIONS, PAGES, PCIDS, RULES, usable_for
from paging_rig import VA, possible
from property_settings import PROPERTY
from rule_shows import NEW, changed

from emu.addr import VirtAddr
from emu.paging.models import LAZY, SKYLAKE
from emu.paging.psc import drops
from emu.paging.tlb import Invalidation, Rule, removes, removes_all


def test_a_tlb_that_is_cleared_holds_nothing() -> None:
    for model in (SKYLAKE, LAZY):
        _, mmu = changed(model)
        mmu.reset()
        assert mmu.tlb.entries() == ()


def test_a_lazy_tlb_after_power_on_knows_nothing_of_what_was_mapped_before() -> None:
    _, mmu = changed(LAZY)
    mmu.reset()
    assert possible(mmu, VA) == {NEW}


@PROPERTY
@given(INVALIDATIONS, PAGES, PCIDS, RULES)
def test_what_removes_all_removes_every_entry_and_every_directory_entry(
    what: Invalidation, page: VirtAddr, pcid: int, rules: frozenset[Rule]
) -> None:
    each = all(removes(what, one, rules) for one in usable_for(page, pcid)) and drops(what, rules)
    assert removes_all(what, page, pcid, rules) == each
