"""From a configuration to time zero: what is laid out where, what cannot be, and going back there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hvo_lab import (
    FOLIO_LIST,
    KEY,
    LARGE,
    MIB,
    PAGE,
    REGION,
    SECTION,
    VMEMMAP,
    Lab,
    Leaf,
    huge_2m,
    lab_2m,
)

from emu.addr import PageSize, Pfn, PhysAddr, VirtAddr
from emu.choice import Defaults
from emu.cpu.ops import SetInterrupts
from emu.events import MachineEvent
from emu.paging.models import LAZY, SKYLAKE, CpuModel
from emu.paging.tlb import Port
from firmware.catalog import program
from kernel_model.boot import BootConfig, LayoutError, blocks_at_the_top, boot
from kernel_model.core.spinlock import INIT_MM_PAGE_TABLE_LOCK, spin_lock
from kernel_model.layout import (
    VMEMMAP_OPTIMIZE_ENABLED,
    PerCpu,
)
from kernel_model.mm.failures import FailAt
from kernel_model.mm.hstate import HSTATE_1G, HSTATE_2M, Hstate
from kernel_model.mm.image import HugePage

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


# --- what is laid out -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ram", "sections"), [(16 * MIB, 1), (SECTION, 1), (SECTION + 2 * MIB, 2), (1024 * MIB, 8)]
)
def test_each_begun_section_of_memory_has_2_mib_of_vmemmap_at_the_top(ram: int, sections: int) -> None:
    lab = Lab(BootConfig(ram, 1, ()))
    first = ram // PAGE - 512 * sections
    expected = {VMEMMAP + n * REGION: Leaf(2, first + 512 * n, LARGE) for n in range(sections)}
    assert lab.initial == expected
    assert blocks_at_the_top(ram) == {va: leaf.pfn for va, leaf in expected.items()}
    assert lab.counters() == {"nr_memmap_boot_pages": 512 * sections, "nr_memmap_pages": 0}
    lab.check_conservation()


def test_blocks_of_vmemmap_can_be_chosen() -> None:
    blocks = {VirtAddr(VMEMMAP): Pfn(0x2000), VirtAddr(VMEMMAP + REGION): Pfn(0x9000)}
    lab = Lab(BootConfig(2 * SECTION, 1, (huge_2m(),), vmemmap_blocks=blocks))
    assert {va: leaf.pfn for va, leaf in lab.initial.items()} == blocks
    assert not any(lab.kernel.pages.is_free(pfn) for pfn in (*range(0x2000, 0x2200), *range(0x9000, 0x9200)))
    assert lab.kernel.pages.is_free(0xFFFF)
    lab.check_conservation()


def test_boot_is_the_same_every_time() -> None:
    one, other = lab_2m(0x4000, 0x4200), lab_2m(0x4000, 0x4200)
    size = one.machine.memory.size
    assert one.machine.memory.read(0, size) == other.machine.memory.read(0, size)  # type: ignore[arg-type]


def test_time_zero_is_moment_zero() -> None:
    lab = lab_2m()
    assert lab.machine.memory.journal.now == 0
    assert lab.machine.enabled() == []
    assert lab.machine.steps == 0


# --- what cannot be laid out ------------------------------------------------------------------------------


def refused(ram: int, *huge: HugePage, **options: Any) -> str:
    with pytest.raises(LayoutError) as error:
        boot(BootConfig(ram, 2, huge, **options))
    return str(error.value)


def blocks(*pfns: int) -> dict[VirtAddr, Pfn]:
    return {VirtAddr(VMEMMAP + n * REGION): Pfn(pfn) for n, pfn in enumerate(pfns)}


def test_a_huge_page_that_is_not_aligned() -> None:
    assert refused(SECTION, huge_2m(0x4001)) == "huge page 0x4001 is not aligned to its 2M"
    assert (
        refused(2176 * MIB, HugePage(Pfn(0x20000), HSTATE_1G)) == "huge page 0x20000 is not aligned to its 1G"
    )


def test_a_huge_page_beyond_the_end_of_memory() -> None:
    assert refused(SECTION, huge_2m(0x8000)) == "huge page 0x8000 ends at frame 0x8200, memory at 0x8000"
    assert "ends at frame" in refused(SECTION, HugePage(Pfn(0), HSTATE_1G))


def test_a_huge_page_over_the_kernel() -> None:
    assert refused(SECTION, huge_2m(0x600)) == "huge page 0x600 overlaps the kernel"


def test_a_huge_page_over_the_blocks_behind_vmemmap() -> None:
    message = refused(SECTION, huge_2m(0x7E00))
    assert message in (
        "huge page 0x7e00 overlaps vmemmap block 0xffffea0000000000",
        "vmemmap block 0xffffea0000000000 overlaps huge page 0x7e00",
    )


def test_two_huge_pages_at_one_place() -> None:
    assert refused(SECTION, huge_2m(0x4000), huge_2m(0x4000)) == "huge page 0x4000 overlaps huge page 0x4000"
    large = HugePage(Pfn(0x4000), Hstate("64M", 14))
    assert refused(2 * SECTION, large, huge_2m(0x4400)) == "huge page 0x4400 overlaps huge page 0x4000"


def test_a_section_without_a_block_behind_its_vmemmap() -> None:
    message = refused(2 * SECTION, vmemmap_blocks=blocks(0x2000))
    assert message == "no block backs the vmemmap of section 1"


def test_a_block_that_is_not_aligned() -> None:
    message = refused(SECTION, vmemmap_blocks=blocks(0x2001))
    assert message == "vmemmap block at frame 0x2001 is not aligned to 2 MiB"


def test_a_block_beyond_the_end_of_memory() -> None:
    message = refused(SECTION, vmemmap_blocks=blocks(0x8000))
    assert message == "vmemmap block 0xffffea0000000000 ends at frame 0x8200, memory at 0x8000"


def test_one_block_for_two_sections() -> None:
    message = refused(2 * SECTION, vmemmap_blocks=blocks(0x2000, 0x2000))
    assert "overlaps vmemmap block" in message


@pytest.mark.parametrize("ram", [0, 8 * MIB, 17 * MIB, 32770 * MIB])
def test_a_size_of_memory_that_no_machine_has(ram: int) -> None:
    with pytest.raises(ValueError, match="memory size"):
        boot(BootConfig(ram, 1, ()))


@pytest.mark.parametrize("cpus", [0, -1, 257])
def test_a_number_of_cpus_that_no_machine_has(cpus: int) -> None:
    with pytest.raises(ValueError, match="CPUs"):
        boot(BootConfig(SECTION, cpus, ()))
