"""What an NMI's handler may see, in the middle of another interrupt's."""

from __future__ import annotations

from dataclasses import replace

from emu.cpu.ops import Load, Store, ThisCpu
from emu.paging.models import LAZY
from hvolab.catalog.common import HUGE_PAGE, MEMORY_BYTES, optimize
from hvolab.subject.scenario import Group, KernelActor, Scenario, Setup, vmemmap_page
from kernel_model.boot import BootConfig, Kernel
from kernel_model.core.nmi import Nmi
from kernel_model.layout import PerCpu
from kernel_model.mm.image import HugePage
from kernel_model.mm.page import Offset, field

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
