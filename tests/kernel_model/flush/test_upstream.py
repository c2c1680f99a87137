"""Flush policies: whose TLB is emptied, by how much, and when the caller may rely on it."""

from __future__ import annotations

import pytest
from hvo_lab import DIRECT_MAP, KEY, PAGE, REGION, VMEMMAP, Lab, lab_2m

from emu.addr import VirtAddr
from emu.choice import Step, TakeInterrupt
from emu.cpu.ops import Load, SetInterrupts
from emu.events import Invalidated, IpiSent, IpiTaken
from emu.paging.models import KABY_LAKE, SKYLAKE, ZEN_3, CpuModel
from emu.paging.tlb import InvalidateAll, Invlpg
from kernel_model.core.events import FlushBegun, FlushCompleted
from kernel_model.core.kconfig import KernelConfig
from kernel_model.core.smp import CALL_FUNCTION_VECTOR, FlushEverything, FlushPages
from kernel_model.flush.broken import NEVER, SKIPS_LAST_CPU
from kernel_model.flush.policy import NamedPolicy
from kernel_model.flush.upstream import UPSTREAM

EVERYWHERE = (0, 1 << 64)
SPLIT = VirtAddr(VMEMMAP)
"""A 2 MiB of vmemmap that is split in every test, so that its pages are cached one by one."""


def lab_with(
    policy: NamedPolicy = UPSTREAM, cpus: int = 3, model: CpuModel = SKYLAKE, ceiling: int = 33
) -> Lab:
    """Every CPU of it has cached the first 40 pages of vmemmap, one by one, and a direct-map page."""
    kernel = KernelConfig(tlb_single_page_flush_ceiling=ceiling)
    lab = lab_2m(cpus=cpus, policy=policy, model=model, kernel=kernel)
    huge = lab.config.huge_pages[0]
    lab.call(lambda: lab.kernel.hvo.hugetlb_vmemmap_split_folio(huge.hstate, huge.folio))

    async def touch() -> None:
        for number in range(40):
            await Load(VirtAddr(SPLIT + number * PAGE))
        await Load(VirtAddr(KEY))

    for cpu in range(cpus):
        lab.machine.cpus[cpu].mmu.reset()
        lab.call(touch, cpu)
    lab.mark()
    return lab


def cached(lab: Lab, cpu: int) -> set[int]:
    """The pages of the range that a CPU has cached, by number, and -1 for the direct map."""
    entries = lab.machine.cpus[cpu].mmu.tlb.entries()
    pages = {(entry.page - SPLIT) // PAGE for entry in entries if SPLIT <= entry.page < SPLIT + REGION}
    return pages | ({-1} if any(DIRECT_MAP <= entry.page < VMEMMAP for entry in entries) else set())


ALL = {-1, *range(40)}


def flush_range(lab: Lab, first: int, end: int, cpu: int = 0) -> None:
    start, stop = VirtAddr(SPLIT + first * PAGE), VirtAddr(SPLIT + end * PAGE)
    lab.call(lambda: lab.kernel.flush.flush_tlb_kernel_range(start, stop), cpu)


# --- upstream ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [SKYLAKE, KABY_LAKE, ZEN_3], ids=lambda model: model.name)
@pytest.mark.parametrize("initiator", [0, 2])
def test_flush_tlb_all_empties_every_tlb(model: CpuModel, initiator: int) -> None:
    lab = lab_with(model=model)
    assert [cached(lab, cpu) for cpu in range(3)] == [ALL] * 3
    lab.call(lab.kernel.flush.flush_tlb_all, initiator)
    assert [cached(lab, cpu) for cpu in range(3)] == [set()] * 3
    begun, completed = lab.heard(FlushBegun, FlushCompleted)
    assert begun == FlushBegun("flush_tlb_all", *EVERYWHERE, frozenset({0, 1, 2}))
    assert completed == FlushCompleted(lab.number_of(begun))


def test_a_range_flush_takes_only_its_pages() -> None:
    lab = lab_with()
    flush_range(lab, 3, 11)
    assert [cached(lab, cpu) for cpu in range(3)] == [ALL - set(range(3, 11))] * 3
    begun, _ = lab.heard(FlushBegun, FlushCompleted)
    start = SPLIT + 3 * PAGE
    assert begun == FlushBegun("flush_tlb_kernel_range", start, start + 8 * PAGE, frozenset({0, 1, 2}))


def test_33_pages_are_flushed_one_by_one_and_34_as_a_whole() -> None:
    lab = lab_with()
    flush_range(lab, 0, 33)
    assert [lab.invalidations(cpu) for cpu in range(3)] == [[Invlpg(SPLIT, 0, 33)]] * 3
    assert cached(lab, 1) == ALL - set(range(33))
    lab.mark()
    flush_range(lab, 0, 34)
    assert [lab.invalidations(cpu) for cpu in range(3)] == [[InvalidateAll()]] * 3
    assert cached(lab, 1) == set()


@pytest.mark.parametrize(
    ("ceiling", "pages", "whole"), [(0, 1, True), (1, 1, False), (8, 8, False), (8, 9, True)]
)
def test_the_ceiling_is_the_last_count_flushed_page_by_page(ceiling: int, pages: int, whole: bool) -> None:
    lab = lab_with(ceiling=ceiling)
    flush_range(lab, 0, pages)
    assert lab.invalidations(2) == [InvalidateAll() if whole else Invlpg(SPLIT, 0, pages)]


def test_the_requests_say_what_is_to_be_done() -> None:
    lab = lab_with()
    flush_range(lab, 0, 8)
    lab.call(lab.kernel.flush.flush_tlb_all)
    sent = lab.seen(IpiSent)
    assert [(event.targets, event.vector, event.payload) for event in sent] == [
        ((1, 2), CALL_FUNCTION_VECTOR, FlushPages(SPLIT, 8)),
        ((1, 2), CALL_FUNCTION_VECTOR, FlushEverything()),
    ]


def test_the_initiator_sends_then_flushes_itself_then_waits() -> None:
    """Rule L1. Nothing is taken by the others before, so everything is in the order of the initiator."""
    lab = lab_with()
    call = lab.start(lab.kernel.flush.flush_tlb_all)
    while Step(0) in lab.machine.enabled():
        lab.perform(Step(0))
    kinds = [type(event) for event in lab.recent() if isinstance(event, IpiSent | Invalidated | IpiTaken)]
    assert kinds == [IpiSent, Invalidated]
    assert (cached(lab, 0), cached(lab, 1)) == (set(), ALL)
    assert lab.machine.blocked() == {0: f"request {lab.seen(IpiSent)[0].request} is acknowledged by all"}
    for cpu in (2, 1):
        assert lab.heard(FlushCompleted) == []
        assert not call.returned
        lab.perform(TakeInterrupt(cpu))
        assert cached(lab, cpu) == set()
    lab.run()
    assert call.returned
    assert len(lab.heard(FlushCompleted)) == 1


def test_a_cpu_with_interrupts_off_is_waited_for() -> None:
    lab = lab_with(cpus=2)

    async def off_for_a_while() -> None:
        await SetInterrupts(False)
        await Load(VirtAddr(SPLIT))
        await SetInterrupts(True)

    lab.start(off_for_a_while, cpu=1)
    lab.perform(Step(1))
    lab.start(lab.kernel.flush.flush_tlb_all)
    while Step(0) in lab.machine.enabled():
        lab.perform(Step(0))
    assert lab.machine.enabled() == [Step(1)]
    lab.run()
    assert cached(lab, 1) == set()


def test_two_flushes_at_once_do_not_wait_for_each_other_forever() -> None:
    lab = lab_with(cpus=2)
    calls = [lab.start(lab.kernel.flush.flush_tlb_all, cpu) for cpu in (0, 1)]
    while steps := [choice for choice in lab.machine.enabled() if isinstance(choice, Step)]:
        lab.perform(steps[0])
    assert lab.machine.enabled() == [TakeInterrupt(0), TakeInterrupt(1)]
    lab.run()
    assert all(call.returned for call in calls)


def test_alone_on_the_machine() -> None:
    lab = lab_with(cpus=1)
    lab.call(lab.kernel.flush.flush_tlb_all)
    assert cached(lab, 0) == set()
    assert lab.heard(FlushBegun)[0].cpus == frozenset({0})


# --- policies that are wrong on purpose -------------------------------------------------------------------


@pytest.mark.parametrize("initiator", [0, 1])
def test_skips_last_cpu_leaves_out_the_highest_number(initiator: int) -> None:
    lab = lab_with(SKIPS_LAST_CPU)
    flush_range(lab, 0, 8, initiator)
    assert [cached(lab, cpu) for cpu in range(3)] == [ALL - set(range(8))] * 2 + [ALL]
    lab.call(lab.kernel.flush.flush_tlb_all, initiator)
    assert [cached(lab, cpu) for cpu in range(3)] == [set(), set(), ALL]
    assert [flush.cpus for flush in lab.heard(FlushBegun)] == [frozenset({0, 1})] * 2
    assert len(lab.heard(FlushCompleted)) == 2


def test_skips_last_cpu_is_right_when_the_last_cpu_itself_flushes() -> None:
    lab = lab_with(SKIPS_LAST_CPU)
    lab.call(lab.kernel.flush.flush_tlb_all, 2)
    assert [cached(lab, cpu) for cpu in range(3)] == [set()] * 3
    assert lab.heard(FlushBegun)[0].cpus == frozenset({0, 1, 2})


def test_no_flush_announces_and_does_nothing() -> None:
    lab = lab_with(NEVER)
    lab.call(lab.kernel.flush.flush_tlb_all)
    flush_range(lab, 0, 8)
    assert [cached(lab, cpu) for cpu in range(3)] == [ALL] * 3
    assert lab.seen(Invalidated) == lab.seen(IpiSent) == []
    assert lab.heard(FlushBegun) == [
        FlushBegun("flush_tlb_all", *EVERYWHERE, frozenset()),
        FlushBegun("flush_tlb_kernel_range", SPLIT, SPLIT + 8 * PAGE, frozenset()),
    ]
    assert [completed.begun for completed in lab.heard(FlushCompleted)] == [
        lab.number_of(begun) for begun in lab.heard(FlushBegun)
    ]
