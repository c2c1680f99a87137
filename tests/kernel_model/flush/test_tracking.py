"""Access bits: what need not be flushed, and what an exchange sees."""

from __future__ import annotations

import pytest
from hvo_lab import PAGE, Lab, lab_2m, pages_of

from emu.addr import VirtAddr
from emu.choice import Step
from emu.cpu.ops import Load, SetInterrupts, Store
from emu.events import Annotated, IpiSent, MachineEvent, Marked, Stored
from emu.paging.models import LAZY
from emu.paging.pte import Pte, PteBit
from emu.paging.walk import Walk
from kernel_model.core.events import FlushBegun, FlushCompleted, PageFreed
from kernel_model.core.sites import FlushSite
from kernel_model.flush.policy import EntryChange, NamedPolicy
from kernel_model.flush.tracking import ABIS, ABIS_KERNEL, AF_BBM
from kernel_model.layout import direct_map
from kernel_model.mm.pagewalk import lookup_address

ACCESSED = 1 << 5


def optimized(policy: NamedPolicy) -> Lab:
    lab = lab_2m(cpus=2, policy=policy, model=LAZY)
    huge = lab.config.huge_pages[0]
    lab.call(lambda: lab.kernel.hvo.hugetlb_vmemmap_optimize_folio(huge.hstate, huge.folio))
    return lab


def restore(lab: Lab) -> list[FlushBegun]:
    """The flushes of it."""
    before = len(lab.heard(FlushBegun))
    huge = lab.config.huge_pages[0]
    lab.call(lambda: lab.kernel.hvo.hugetlb_vmemmap_restore_folio(huge.hstate, huge.folio))
    return lab.heard(FlushBegun)[before:]


def read(lab: Lab, page: int) -> None:
    """By CPU 1, through the page tables."""
    pages = pages_of(lab.config.huge_pages[0])

    async def reads() -> None:
        await Load(VirtAddr(pages[page]))

    lab.call(reads, 1)


def change_again(lab: Lab, page: int) -> list[FlushBegun]:
    """What maps that page becomes writable, and is flushed if the policy says so."""
    before = len(lab.heard(FlushBegun))
    start = VirtAddr(pages_of(lab.config.huge_pages[0])[page])
    found = lab.machine.cpus[0].mmu.peek(start)
    assert isinstance(found, Walk)
    at, value = direct_map(found.steps[-1].pa), found.leaf | PteBit.WRITE

    async def store() -> None:
        await Store(at, value)

    async def changes() -> None:
        end = VirtAddr(start + PAGE)
        await lab.kernel.flush.change(FlushSite.REMAP, start, end, EntryChange(at, Pte(value), store, store))
        await lab.kernel.flush.flush_tlb_kernel_range(start, end, FlushSite.REMAP)

    lab.call(changes)
    return lab.heard(FlushBegun)[before:]


def test_what_boot_has_marked_is_flushed_and_what_nobody_has_used_since_is_not() -> None:
    lab = optimized(ABIS)
    assert len(lab.heard(FlushBegun)) == 2, "the split, and the remap"
    assert change_again(lab, 3) == []
    assert change_again(lab, 3) == [], "nor the second time"


def test_one_entry_that_has_been_used_is_flushed() -> None:
    lab = optimized(ABIS)
    read(lab, 3)
    assert [event.va - pages_of(lab.config.huge_pages[0])[0] for event in lab.seen(Marked)][-1] == 3 * PAGE
    assert [event.site for event in change_again(lab, 3)] == [FlushSite.REMAP]
    assert change_again(lab, 3) == [], "it is old again"


def test_restoring_a_folio_uses_what_it_copies() -> None:
    """copy_page() reads the first tail through the entry that is about to change."""
    assert len(restore(optimized(ABIS))) == 1


def test_what_the_kernel_had_marked_looks_unused_once_it_is_made_old() -> None:
    lab = optimized(ABIS_KERNEL)
    assert lab.heard(FlushBegun) == []
    assert [event for event in lab.seen(IpiSent) if "Flush" in type(event.payload).__name__] == []


def stores_to_tables(lab: Lab) -> list[MachineEvent]:
    functions = {"age", "make_if_old"}
    return [event for event in lab.seen(Stored) if functions & set(event.site.functions)]


def test_an_entry_is_made_old_flushed_and_exchanged() -> None:
    lab = optimized(AF_BBM)
    made = stores_to_tables(lab)
    assert len(made) == 2 * 9, "the PMD, and eight PTEs"
    begun = [n for n, event in enumerate(lab.events) if _is_flush_begun(event)]
    assert [_between(lab, *made[at : at + 2], begun) for at in range(0, 18, 2)] == [1] * 9
    assert [made[at].pa for at in range(0, 18, 2)] == [made[at].pa for at in range(1, 18, 2)]
    assert [made[at].old & ~ACCESSED for at in range(0, 18, 2)] == [made[at].old for at in range(1, 18, 2)]


def _between(lab: Lab, first: MachineEvent, last: MachineEvent, numbers: list[int]) -> int:
    """How many of them."""
    return sum(lab.events.index(first) < number < lab.events.index(last) for number in numbers)


def _is_flush_begun(event: MachineEvent | None) -> bool:
    return isinstance(event, Annotated) and isinstance(event.payload, FlushBegun)


def test_who_uses_the_entry_meanwhile_makes_it_try_again() -> None:
    lab = lab_2m(cpus=2, policy=AF_BBM, model=LAZY)
    huge = lab.config.huge_pages[0]
    lab.start(lambda: lab.kernel.hvo.hugetlb_vmemmap_optimize_folio(huge.hstate, huge.folio))
    while not stores_to_tables(lab):
        lab.perform(lab.machine.enabled()[0])
    while len(lab.heard(FlushBegun)) < 1 or Step(0) not in lab.machine.enabled():
        lab.perform(lab.machine.enabled()[-1])
    read(lab, 0)
    lab.run()
    ages = [event for event in stores_to_tables(lab) if "age" in event.site.functions]
    assert len(ages) == 10, "one of nine entries twice"


@pytest.mark.parametrize("policy", [ABIS, AF_BBM], ids=lambda one: one.name)
def test_the_final_page_tables_are_those_of_upstream_but_for_marks(policy: NamedPolicy) -> None:
    lab, upstream = optimized(policy), lab_2m(cpus=2, model=LAZY)
    huge = upstream.config.huge_pages[0]
    upstream.call(lambda: upstream.kernel.hvo.hugetlb_vmemmap_optimize_folio(huge.hstate, huge.folio))
    without = {va: (leaf.level, leaf.pfn, leaf.flags.replace("A ", "")) for va, leaf in lab.vmemmap().items()}
    assert without == {
        va: (leaf.level, leaf.pfn, leaf.flags.replace("A ", "")) for va, leaf in upstream.vmemmap().items()
    }


def test_who_looks_the_last_entry_up_without_using_it_is_not_waited_for() -> None:
    """Nothing is flushed after the exchange: interrupts off protect nobody's frame, as under a broadcast."""
    lab = lab_2m(cpus=2, policy=AF_BBM, model=LAZY)
    huge, found = lab.config.huge_pages[0], []
    lab.start(lambda: lab.kernel.hvo.hugetlb_vmemmap_optimize_folio(huge.hstate, huge.folio))
    while len(lab.heard(FlushCompleted)) < 9:
        enabled = lab.machine.enabled()
        lab.perform(Step(0) if Step(0) in enabled else enabled[-1])

    async def looks_up() -> None:
        await SetInterrupts(enabled=False)
        found.append(await lookup_address(lab.kernel.init_mm, VirtAddr(pages_of(huge)[7])))
        await SetInterrupts(enabled=True)

    lab.start(looks_up, 1)
    while not found:
        lab.perform(Step(1))
    while Step(0) in lab.machine.enabled():
        lab.perform(Step(0))
    assert not lab.machine.cpus[1].interrupts_enabled
    assert found[0] in [event.pfn for event in lab.heard(PageFreed)]
