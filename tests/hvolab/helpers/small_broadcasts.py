"""INVLPGB and TLBSYNC in small programs."""

from __future__ import annotations

from small_setups import PAGE, Body

from emu.cpu.ops import Annotate, Invlpgb, InvlpgbAll, TlbSync
from kernel_model.boot import Kernel
from kernel_model.core.events import FlushBegun, FlushCompleted


async def broadcasts_page(kernel: Kernel) -> None:
    await Invlpgb(PAGE)


async def broadcasts_all(kernel: Kernel) -> None:
    await InvlpgbAll()


async def syncs(kernel: Kernel) -> None:
    await TlbSync()


def announced(*, start: int, end: int, by: Body) -> Body:
    async def body(kernel: Kernel) -> None:
        begun = await Annotate(FlushBegun("flush_tlb_kernel_range", start, end, frozenset()))
        await by(kernel)
        await Annotate(FlushCompleted(begun))

    return body
