"""Routines and handlers that more than one test of the machine runs."""

from __future__ import annotations

from machine_rig import MachineRig
from paging_rig import PAGE, VA

from emu.addr import VirtAddr
from emu.cpu.condition import Word
from emu.cpu.ops import Acknowledge, FlushTlbPages, Load
from emu.cpu.software import Grain, InterruptHandler, Trap, TrapOutcome
from emu.paging.walk import FaultCode

X, Y = Word("x"), Word("y", 3)
PRESENT_WRITE = FaultCode.WRITE | FaultCode.PROTECTION


async def one_load() -> None:
    await Load(VA)


def retrying(times: int, seen: list[Trap] | None = None, repair: object = None):
    """A handler that retries that often (performing `repair` each time) and then kills."""
    left = [times]

    async def handler(trap: Trap) -> TrapOutcome:
        if seen is not None:
            seen.append(trap)
        if repair is not None:
            await repair
        left[0] -= 1
        return TrapOutcome.RETRY if left[0] >= 0 else TrapOutcome.KILL

    return handler


def table_alias(rig: MachineRig, va: int) -> VirtAddr:
    """An address by which kernel code can store to the page-table entry of `va`."""
    pa = rig.slot(va)
    rig.map(VA + 64 * PAGE, pa >> 12)
    return VirtAddr(VA + 64 * PAGE + pa % PAGE)


async def acknowledging(request: int, payload: object) -> None:
    await FlushTlbPages(VA)
    await Acknowledge(request)


def atomic(routine=acknowledging) -> InterruptHandler:
    return InterruptHandler(routine, Grain.ATOMIC)


def stepwise(routine=acknowledging) -> InterruptHandler:
    return InterruptHandler(routine, Grain.STEPWISE)
