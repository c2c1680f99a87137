"""Locks: a named word that is 0 or the holder's CPU number + 1. Holding a spinlock disables preemption.

Every lock of the model is named here, so that whoever meets a word can tell whether it is one and whose.
"""

from __future__ import annotations

from emu.cpu.condition import Word, WordIs
from emu.cpu.ops import AddWords, Await, SetInterrupts, ThisCpu

INIT_MM_PAGE_TABLE_LOCK = Word("init_mm.page_table_lock")
HUGETLB_LOCK = Word("hugetlb_lock")
ZONE_LOCK = Word("zone.lock")
JUMP_LABEL_MUTEX = Word("jump_label_mutex")
_RESIZE_LOCK = "resize_lock"
_LOCKS = frozenset({INIT_MM_PAGE_TABLE_LOCK, HUGETLB_LOCK, ZONE_LOCK, JUMP_LABEL_MUTEX})


# What takes and releases locks, by name: who called it is who has the lock.
LOCKING_FUNCTIONS = frozenset(
    {"spin_lock", "spin_unlock", "spin_lock_irq", "spin_unlock_irq", "mutex_lock", "mutex_unlock"}
)


def resize_lock(order: int) -> Word:
    """hstate->resize_lock of the huge pages of that order: a mutex."""
    return Word(_RESIZE_LOCK, order)


def is_lock(word: Word) -> bool:
    """Whether that word is a lock: then `holder_of` tells who has it."""
    return word in _LOCKS or word.name == _RESIZE_LOCK


def holder_of(value: int) -> int | None:
    """The CPU that holds the lock whose word has this value; None when nobody does."""
    return value - 1 if value else None


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
