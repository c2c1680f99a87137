"""What a judge looks at orders the steps that change it: reduced and unreduced search show the same.

Each setup here was once explored "exhaustively" without the finding it has.
"""

from __future__ import annotations

import pytest
from small_catalog import other_table
from small_setups import (
    NEW,
    ends_one_frame_twice,
    on_the_folio,
    operation,
    reads_in_between,
    set_pte,
    setup_of,
    split,
    then,
)

from emu.cpu.ops import Annotate, FetchAndNot, FetchOr
from emu.paging.models import LAZY, LAZY_ERRATUM_383, LAZY_NO_PSC, LAZY_SINGLE, CpuModel
from hvolab.catalog.common import HUGE_PAGE, MEMORY_BYTES, restore
from hvolab.explore.budget import Budget
from hvolab.explore.explorer import explore
from hvolab.explore.reduce.dpor import Reduced
from hvolab.explore.search.bounds import Preemptions
from hvolab.explore.search.depth_first import DepthFirst, everything
from hvolab.explore.search.interface import Freedom, Strategy
from hvolab.judge.verdict import Verdict, Where
from hvolab.subject.scenario import KernelActor, Setup
from kernel_model.boot import BootConfig, Kernel
from kernel_model.core.events import OperationBegun, OperationReturned
from kernel_model.mm.image import HugePage
from kernel_model.mm.page import HugetlbFlag, Offset, field
from kernel_model.mm.pgtable import PAGE_KERNEL

FREE = frozenset({Freedom.SCHEDULE, Freedom.IRQ, Freedom.TLB})
FLAG = field(HUGE_PAGE.folio, Offset.PRIVATE)


def shown(setup: Setup, search: Strategy, seconds: float | None = None) -> set[tuple[Verdict, Where, str]]:
    done = explore(setup, search, FREE, Budget(seconds=seconds))
    return {(one.finding.verdict, one.finding.where, one.finding.cause) for one in done.found}


def verdicts(found: set[tuple[Verdict, Where, str]]) -> set[Verdict]:
    return {verdict for verdict, _, _ in found}


async def flips_the_flag(kernel: Kernel, huge: HugePage) -> None:
    """Changes what nobody but the invariant reads, and changes it back."""
    await FetchOr(FLAG, HugetlbFlag.VMEMMAP_OPTIMIZED)
    await FetchAndNot(FLAG, HugetlbFlag.VMEMMAP_OPTIMIZED)


async def does_nothing(kernel: Kernel, huge: HugePage) -> None:
    begun = await Annotate(OperationBegun("hugetlb_vmemmap_restore_folio", (huge.folio,)))
    await Annotate(OperationReturned("hugetlb_vmemmap_restore_folio", begun, 0, (huge.folio,)))


def beside_the_flip(actor: KernelActor) -> Setup:
    boot = BootConfig(MEMORY_BYTES, 2, (HUGE_PAGE,), model=LAZY)
    return Setup(boot, (actor, KernelActor(1, "flip", flips_the_flag)), (), ())


def test_what_an_invariant_reads_when_an_operation_returns_is_not_unordered() -> None:
    setup = beside_the_flip(KernelActor(0, "op", does_nothing))
    found = shown(setup, Reduced())
    assert found == shown(setup, everything())
    assert [cause[:2] for _, _, cause in found] == ["I5"]


def test_what_an_invariant_reads_when_the_port_returns_is_not_unordered() -> None:
    setup = beside_the_flip(restore(0))
    found = shown(setup, Reduced())
    assert shown(setup, DepthFirst(Preemptions(2))) <= found
    assert "I5" in {cause[:2] for _, _, cause in found}


@pytest.mark.parametrize("model", [LAZY, LAZY_NO_PSC], ids=lambda model: model.name)
def test_versions_ended_by_different_operations_are_not_one(model: CpuModel) -> None:
    boot = BootConfig(MEMORY_BYTES, 2, (HUGE_PAGE,), model=model)
    setup = setup_of(ends_one_frame_twice, reads_in_between, boot_config=boot)
    found = shown(setup, Reduced())
    assert Verdict.MISSED_FLUSH in verdicts(found)
    assert found == shown(setup, everything())


def test_with_one_entry_a_page_the_older_of_two_versions_is_found_too() -> None:
    boot = BootConfig(MEMORY_BYTES, 2, (HUGE_PAGE,), model=LAZY_SINGLE)
    setup = setup_of(ends_one_frame_twice, reads_in_between, boot_config=boot)
    assert shown(setup, Reduced()) == shown(setup, everything())


@pytest.mark.parametrize("model", [LAZY, LAZY_ERRATUM_383], ids=lambda model: model.name)
def test_tables_that_nobody_translates_through_are_not_unknown_to_who_looks_at_them_in_the_end(
    model: CpuModel,
) -> None:
    """One CPU exchanges the table, the other changes an entry of the old one; no CPU accesses the page."""
    boot = BootConfig(MEMORY_BYTES, 2, (HUGE_PAGE,), model=model)
    changes = on_the_folio(set_pte(NEW, PAGE_KERNEL))
    setup = setup_of(then(split, operation(other_table)), changes, boot_config=boot)
    found = shown(setup, Reduced())
    assert {cause[:2] for _, _, cause in found} == {"I1"}
    assert found == shown(setup, everything())
