"""A CPU's threads are one process, its interrupts another."""

from __future__ import annotations

from emu.choice import Defaults, Step, TakeInterrupt
from emu.cpu.cpu import KernelThread
from emu.cpu.ops import Load, SendIpi
from emu.machine import Machine
from emu.paging.models import LAZY
from hvolab.catalog.common import HUGE_PAGE, MEMORY_BYTES
from hvolab.explore.footprint.process import in_handler, process_of
from kernel_model.boot import BootConfig, boot
from kernel_model.core.smp import CALL_FUNCTION_VECTOR, SyncCore
from kernel_model.layout import direct_map


def machine() -> Machine:
    """CPU 0 has sent CPU 1 an interrupt; CPU 1 has a thread."""
    made: Machine = boot(BootConfig(MEMORY_BYTES, 2, (HUGE_PAGE,), model=LAZY)).machine

    async def sends() -> None:
        await SendIpi(frozenset({1}), CALL_FUNCTION_VECTOR, SyncCore())

    async def loads() -> None:
        await Load(direct_map(0x700 << 12))

    made.start(0, KernelThread("sends", sends))
    made.start(1, KernelThread("loads", loads))
    made.perform(Step(0), Defaults())
    return made


def test_threads_and_interrupts_of_a_cpu_are_told_apart() -> None:
    made = machine()
    assert [process_of(made, choice) for choice in (Step(0), Step(1), TakeInterrupt(1))] == [0, 2, 3]
    assert not in_handler(made.cpus[1])
