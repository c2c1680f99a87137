"""Going back to time zero: what is put back, and that the same run then gives the same events again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hvo_lab import FOLIO_LIST, KEY, MIB, Lab, lab_2m

from emu.addr import PageSize, PhysAddr, VirtAddr
from emu.choice import Defaults
from emu.cpu.ops import SetInterrupts
from emu.events import MachineEvent
from emu.paging.models import LAZY, SKYLAKE, CpuModel
from emu.paging.tlb import Port
from firmware.catalog import program
from kernel_model.core.spinlock import INIT_MM_PAGE_TABLE_LOCK, spin_lock
from kernel_model.layout import VMEMMAP_OPTIMIZE_ENABLED, PerCpu
from kernel_model.mm.failures import FailAt
from kernel_model.mm.hstate import HSTATE_2M

RAM = 32 * MIB
FOLIOS = (0x1000, 0x1200)


def small(**options: Any) -> Lab:
    """A machine of 32 MiB with two huge pages, and the guest programs in its text already."""
    lab = lab_2m(*FOLIOS, ram=RAM, **options)
    for name in ("get_page_unless_zero", "write_tail"):
        lab.load(program(name))
    return lab


def snapshot(lab: Lab) -> dict[str, object]:
    memory, pages = lab.machine.memory, lab.kernel.pages
    return {
        "memory": hash(memory.read(PhysAddr(0), memory.size)),
        "journal": memory.journal.now,
        "counters": dict(lab.machine.counters),
        "words": {word: value for word, value in lab.machine.words.items() if value},
        "free": [pfn for pfn in range(memory.frames) if pages.is_free(pfn)],
        "interrupts": [cpu.interrupts_enabled for cpu in lab.machine.cpus],
        "tlbs": [cpu.mmu.tlb.entries() for cpu in lab.machine.cpus],
        "enabled": lab.machine.enabled(),
        "steps": lab.machine.steps,
        "sysctl": lab.word_at(VMEMMAP_OPTIMIZE_ENABLED),
        "events": len(lab.events),
    }


def both(lab: Lab) -> list[MachineEvent | None]:
    """A run with a bit of everything: lists, a guest, failures; all its events."""
    folio = lab.config.huge_pages[0].folio
    lab.start_guest(program("get_page_unless_zero"), 1, rdi=folio, rsi=KEY, rdx=PerCpu(1).rcu_nesting)
    lab.start_guest(program("write_tail"), 1, rdi=folio + 4096, rsi=0)
    lab.optimize_list()
    lab.restore_list()
    return list(lab.events)


@pytest.mark.parametrize("model", [SKYLAKE, LAZY], ids=lambda model: model.name)
def test_the_same_run_after_a_reset_gives_the_same_events(model: CpuModel) -> None:
    lab = small(model=model, failures=FailAt(frozenset({1, 7})))
    zero = snapshot(lab)
    first = both(lab)
    assert len(first) > 500
    lab.reset()
    assert snapshot(lab) == zero
    assert both(lab) == first
    lab.reset()
    assert snapshot(lab) == zero


@pytest.mark.parametrize("steps", [1, 20, 60, 130, 200, 260])
def test_a_run_may_be_given_up_anywhere(steps: int) -> None:
    """With list heads on the stack, locks held, and interrupts pending."""
    lab = small()
    zero = snapshot(lab)
    hvo = lab.kernel.hvo
    lab.start(lambda: hvo.hugetlb_vmemmap_optimize_folios(HSTATE_2M, VirtAddr(FOLIO_LIST)))
    lab.start(lambda: lab.kernel.flush.flush_tlb_all(), cpu=1)
    for _ in range(steps):
        lab.machine.perform(lab.machine.enabled()[-1], Defaults())
    assert lab.machine.busy
    lab.reset()
    assert snapshot(lab) == zero
    lab.optimize_list()
    lab.check_conservation()


async def _hold_the_lock() -> None:
    await spin_lock(INIT_MM_PAGE_TABLE_LOCK)
    await SetInterrupts(False)
    await spin_lock(INIT_MM_PAGE_TABLE_LOCK)


@pytest.mark.parametrize("mess", [_hold_the_lock], ids=["a lock held with interrupts off"])
def test_a_deadlock_is_undone(mess: Callable[[], object]) -> None:
    lab = small()
    zero = snapshot(lab)
    lab.start(mess)  # type: ignore[arg-type]
    while enabled := lab.machine.enabled():
        lab.perform(enabled[0])
    assert lab.machine.busy
    lab.reset()
    assert snapshot(lab) == zero
    lab.optimize_list()


def test_a_cpu_may_keep_what_it_could_have_cached_since_boot() -> None:
    """The window of a lazy TLB opens at time zero, not after as many stores as the boot image took."""
    lab = small(model=LAZY)
    huge = lab.config.huge_pages[0]
    lab.call(lambda: lab.kernel.hvo.hugetlb_vmemmap_split_folio(huge.hstate, huge.folio), cpu=0)
    usable = lab.machine.cpus[1].mmu.tlb.usable(huge.folio, 0, Port.DATA)
    assert [entry.page_size for entry in usable.entries] == [PageSize.MIB2]


def test_the_sysctl_is_what_it_was_at_boot() -> None:
    lab = small()
    lab.call(lambda: lab.kernel.hvo.write_sysctl(0))
    assert lab.word_at(VMEMMAP_OPTIMIZE_ENABLED) == 0
    lab.reset()
    assert lab.word_at(VMEMMAP_OPTIMIZE_ENABLED) == 1
