"""What rests on the interrupt of a flush: a handler that an NMI breaks into, a section that holds it off."""

from __future__ import annotations

from dataclasses import replace

from emu.addr import VirtAddr, frame_start
from emu.cpu.ops import Load, SetInterrupts, Store, ThisCpu
from emu.paging.models import LAZY
from hvolab.catalog.common import HUGE_PAGE, MEMORY_BYTES, optimize
from hvolab.subject.scenario import Group, KernelActor, Scenario, Setup, vmemmap_page
from kernel_model.boot import BootConfig, Kernel
from kernel_model.core.nmi import Nmi
from kernel_model.layout import PerCpu, direct_map
from kernel_model.mm.image import HugePage
from kernel_model.mm.page import Offset, field
from kernel_model.mm.pagewalk import lookup_address

TAIL_1 = vmemmap_page(HUGE_PAGE, 1)


async def _reads_a_tail() -> None:
    await Load(field(TAIL_1, Offset.COMPOUND_HEAD))


async def _idles(kernel: Kernel, huge: HugePage) -> None:
    """From here on the CPU does nothing but answer interrupts."""
    del kernel, huge
    await Store(PerCpu(await ThisCpu()).idle, 1)


def _nmi_walker(cpus: int) -> Setup:
    boot = BootConfig(MEMORY_BYTES, cpus, (HUGE_PAGE,), model=LAZY)
    boot = replace(boot, nmi=Nmi("an NMI that reads a tail", _reads_a_tail))
    return Setup(boot, (optimize(0), KernelActor(1, "idle", _idles)), (), (TAIL_1,))


async def _looks_up(kernel: Kernel, huge: HugePage) -> None:
    """As GUP-fast does with a user's page: which frame is it, and then what is in it."""
    were = await SetInterrupts(enabled=False)
    frame = await lookup_address(kernel.init_mm, vmemmap_page(huge, 1))
    if frame is not None:
        await Load(VirtAddr(direct_map(frame_start(frame)) + Offset.COMPOUND_HEAD))
    await SetInterrupts(enabled=were)


def _irqs_off_walker(cpus: int) -> Setup:
    boot = BootConfig(MEMORY_BYTES, cpus, (HUGE_PAGE,), model=LAZY)
    return Setup(boot, (optimize(0), KernelActor(1, "look up", _looks_up)), (), (TAIL_1,))


NMI_WALKER = Scenario(
    "nmi-walker",
    Group.RACE,
    "An NMI comes while a CPU is about to flush, and its handler reads a tail: when may the CPU answer?",
    "no order is wrong: the CPU answers when it has flushed, and until then everybody waits",
    "Of the kernel's own addresses anything may use one, also between an early answer and the flush.",
    2,
    frozenset(),
    _nmi_walker,
)

IRQS_OFF_WALKER = Scenario(
    "irqs-off-walker",
    Group.RACE,
    "A CPU looks a tail up in the page tables, interrupts off, and reads the frame: who waits for it?",
    "no order is wrong: the flush interrupts that CPU too, which answers when its section is over",
    "A flush that interrupts nobody waits for nobody: who looks frames up then needs another protection.",
    2,
    frozenset(),
    _irqs_off_walker,
)
