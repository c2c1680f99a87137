"""Flushes that hardware carries to all CPUs: what is sent, how much at a time, and who waits."""

from __future__ import annotations

import pytest
from hvo_lab import PAGE, VMEMMAP, Lab, lab_2m

from emu.addr import VirtAddr
from emu.events import BroadcastCompleted, BroadcastSent, IpiSent
from emu.paging.models import LAZY, SKYLAKE, CpuModel
from emu.paging.tlb import Broadcast, InvalidateAll, Invlpg
from kernel_model.core.events import FlushBegun, FlushCompleted
from kernel_model.core.kconfig import KernelConfig
from kernel_model.flush.broadcast import INVLPGB, INVLPGB_NO_TLBSYNC
from kernel_model.flush.policy import NamedPolicy


def lab_with(policy: NamedPolicy, ceiling: int = 33, model: CpuModel = LAZY) -> Lab:
    kernel = KernelConfig(tlb_single_page_flush_ceiling=ceiling)
    return lab_2m(cpus=3, policy=policy, model=model, kernel=kernel)


def sent(lab: Lab) -> list[Broadcast]:
    return [event.what for event in lab.seen(BroadcastSent)]


def flush(lab: Lab, pages: int) -> None:
    start = VirtAddr(VMEMMAP)
    lab.call(lambda: lab.kernel.flush.flush_tlb_kernel_range(start, VirtAddr(start + pages * PAGE)), 0)


@pytest.mark.parametrize(
    ("pages", "chunks"),
    [(1, [1]), (8, [8]), (9, [8, 1]), (20, [8, 8, 4]), (33, [8, 8, 8, 8, 1])],
)
def test_a_range_goes_out_in_chunks_and_is_waited_for_once(pages: int, chunks: list[int]) -> None:
    lab = lab_with(INVLPGB)
    flush(lab, pages)
    starts = [VMEMMAP + 8 * PAGE * number for number in range(len(chunks))]
    assert sent(lab) == [
        Invlpg(VirtAddr(start), 0, count) for start, count in zip(starts, chunks, strict=True)
    ]
    assert [event.what for event in lab.seen(BroadcastCompleted)] == [tuple(sent(lab))]
    assert lab.seen(IpiSent) == []


@pytest.mark.parametrize(("ceiling", "pages"), [(33, 34), (0, 1), (512, 513)])
def test_more_pages_than_the_ceiling_are_everything(ceiling: int, pages: int) -> None:
    lab = lab_with(INVLPGB, ceiling)
    flush(lab, pages)
    assert sent(lab) == [InvalidateAll()]


def test_flush_tlb_all_is_everything_on_all_cpus() -> None:
    lab = lab_with(INVLPGB)
    lab.call(lab.kernel.flush.flush_tlb_all)
    assert sent(lab) == [InvalidateAll()]
    assert [event.cpus for event in lab.heard(FlushBegun)] == [frozenset({0, 1, 2})]


@pytest.mark.parametrize(
    ("policy", "waits"), [(INVLPGB, 1), (INVLPGB_NO_TLBSYNC, 0)], ids=["waits", "goes on"]
)
def test_the_kernel_relies_on_it_after_tlbsync_or_at_once(policy: NamedPolicy, waits: int) -> None:
    lab = lab_with(policy)
    flush(lab, 1)
    assert (len(lab.seen(BroadcastCompleted)), len(lab.heard(FlushCompleted))) == (waits, 1)


@pytest.mark.parametrize("model", [LAZY, SKYLAKE], ids=lambda model: model.name)
def test_the_cpus_are_given_what_the_policy_asks_of_them(model: CpuModel) -> None:
    lab = lab_with(INVLPGB, model=model)
    flush(lab, 8)
    assert [cpu.mmu.model.invlpgb_count_max for cpu in lab.machine.cpus] == [8, 8, 8]
