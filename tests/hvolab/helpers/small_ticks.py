"""Ticks of local timers in small programs: what comes at one counts itself and flushes a page."""

from __future__ import annotations

from dataclasses import replace

from small_setups import PAGE, Body, Y, config_of

from emu.cpu.ops import FlushTlbPages, Load, NeedTick, Store
from emu.paging.models import LAZY, CpuModel
from kernel_model.boot import BootConfig, Kernel
from kernel_model.flush.policy import Deed, NamedPolicy
from kernel_model.flush.upstream import UpstreamFlush


class CountsTicks(UpstreamFlush):
    """Not by one instruction: two ticks can be counted as one."""

    async def tick(self, free_held: Deed) -> None:
        await FlushTlbPages(PAGE)
        await Store(Y, await Load(Y) + 1)


COUNTS_TICKS = NamedPolicy("counts-ticks", "each tick flushes a page", CountsTicks)


def ticking(model: CpuModel = LAZY) -> BootConfig:
    """Two such CPUs."""
    return replace(config_of(model), policy=COUNTS_TICKS)


def needs_tick(*cpus: int) -> Body:
    async def body(kernel: Kernel) -> None:
        await NeedTick(frozenset(cpus))

    return body
