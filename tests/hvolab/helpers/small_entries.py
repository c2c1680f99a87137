"""Entries of page tables that are made old, and become others if no walk has marked them since."""

from __future__ import annotations

from small_setups import NEW, PTE, Body, note

from emu.cpu.ops import CmpXchg, FetchAndNot, Load
from emu.paging.pte import Pte, PteBit
from kernel_model.boot import Kernel
from kernel_model.mm.pgtable import PAGE_KERNEL, mk_pte


async def ages(kernel: Kernel) -> None:
    """A is cleared in what maps PAGE."""
    await FetchAndNot(PTE, PteBit.ACCESSED)


def remaps_if_old(cpu: int) -> Body:
    async def body(kernel: Kernel) -> None:
        old = await Load(PTE)
        await note(cpu, old)
        if not Pte(old).accessed:
            await note(cpu, await CmpXchg(PTE, old, mk_pte(NEW, PAGE_KERNEL)) == old)

    return body
