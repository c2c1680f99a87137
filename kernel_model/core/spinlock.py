"""Spinlocks: a named word that is 0 or the holder's CPU number + 1. Holding one disables preemption."""

from __future__ import annotations

from emu.cpu.condition import Word, WordIs
from emu.cpu.ops import AddWords, Await, SetInterrupts, ThisCpu

INIT_MM_PAGE_TABLE_LOCK = Word("init_mm.page_table_lock")
HUGETLB_LOCK = Word("hugetlb_lock")


def preempt_count(cpu: int) -> Word:
    """The number of spinlocks that CPU's context holds."""
    return Word("preempt_count", cpu)


async def spin_lock(lock: Word) -> None:
    """Wait, with interrupts as they are, until the lock is free; take it in the same step."""
    cpu = await ThisCpu()
    await Await(WordIs(lock, 0), then=((lock, cpu + 1), (preempt_count(cpu), 1)))


async def spin_unlock(lock: Word) -> None:
    cpu = await ThisCpu()
    await AddWords(((lock, -(cpu + 1)), (preempt_count(cpu), -1)))


async def spin_lock_irq(lock: Word) -> None:
    """Interrupts off, then take the lock."""
    await SetInterrupts(enabled=False)
    await spin_lock(lock)


async def spin_unlock_irq(lock: Word) -> None:
    """Release the lock, then interrupts on, whatever they were before."""
    await spin_unlock(lock)
    await SetInterrupts(enabled=True)


async def mutex_lock(lock: Word) -> None:
    """Wait until nobody holds it: unlike a spinlock it disables nothing."""
    cpu = await ThisCpu()
    await Await(WordIs(lock, 0), then=((lock, cpu + 1),))


async def mutex_unlock(lock: Word) -> None:
    cpu = await ThisCpu()
    await AddWords(((lock, -(cpu + 1)),))
