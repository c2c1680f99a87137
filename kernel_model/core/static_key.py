"""A static key: one 64-bit word, nonzero = enabled, that readers test where real code is patched.

static_branch_inc() and static_branch_dec() move a count; the steps 0 -> 1 and 1 -> 0 patch code, and return
only after every CPU has been interrupted to serialize (kernel/jump_label.c). The key orders code, not TLBs.
"""

from __future__ import annotations

from emu.addr import VirtAddr
from emu.cpu.ops import FetchAdd, Load, ThisCpu
from kernel_model.core.smp import SyncCore, csd_lock_wait, on_each_cpu
from kernel_model.core.spinlock import JUMP_LABEL_MUTEX, mutex_lock, mutex_unlock


class StaticKey:
    """The key whose count is the word at `word`."""

    def __init__(self, word: VirtAddr, online: frozenset[int]) -> None:
        self.word = word
        self._online = online

    async def static_branch_inc(self) -> None:
        await self._move(1, patched_at=0)

    async def static_branch_dec(self) -> None:
        await self._move(-1, patched_at=1)

    async def _move(self, delta: int, patched_at: int) -> None:
        """Change the count under the mutex; patch when it was `patched_at` before."""
        cpu = await ThisCpu()
        await mutex_lock(JUMP_LABEL_MUTEX)
        before = await FetchAdd(self.word, delta)
        if before == patched_at:
            await csd_lock_wait(await on_each_cpu(self._online - {cpu}, SyncCore()))
        await mutex_unlock(JUMP_LABEL_MUTEX)

    async def enabled(self) -> bool:
        return bool(await Load(self.word))
