"""Setups whose schedules can be counted by hand: each CPU makes so many steps, which disturb nobody."""

from __future__ import annotations

from collections.abc import Callable

from emu.cpu.ops import Load
from emu.cpu.routine import Code
from emu.paging.models import LAZY
from hvolab.catalog.common import HUGE_PAGE, MEMORY_BYTES
from hvolab.explore.search.interface import Freedom
from hvolab.subject.scenario import KernelActor, Setup
from kernel_model.boot import BootConfig, Kernel
from kernel_model.layout import PerCpu
from kernel_model.mm.image import HugePage

ALL = frozenset({Freedom.SCHEDULE, Freedom.IRQ, Freedom.TLB})
WORD = PerCpu(0).buffer


def loads(count: int) -> Callable[[Kernel, HugePage], Code]:
    async def routine(kernel: Kernel, huge: HugePage) -> None:
        for _ in range(count):
            await Load(WORD)

    return routine


def setup_of(*steps: int) -> Setup:
    """CPU n runs a routine of steps[n] loads and nothing else."""
    actors = tuple(KernelActor(cpu, f"t{cpu}", loads(count)) for cpu, count in enumerate(steps))
    return Setup(BootConfig(MEMORY_BYTES, len(steps), (HUGE_PAGE,), model=LAZY), actors, (), ())
