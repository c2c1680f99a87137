"""Spinlocks: every order of two small threads, and what holding one means."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hvo_lab import KEY, MIB, Deadlock, Lab, lab_2m

from emu.addr import VirtAddr
from emu.choice import Step
from emu.cpu.condition import Word
from emu.cpu.ops import Load, Store
from kernel_model.boot import BootConfig
from kernel_model.core.smp import FlushEverything, csd_lock_wait, on_each_cpu
from kernel_model.core.spinlock import (
    HUGETLB_LOCK,
    INIT_MM_PAGE_TABLE_LOCK,
    JUMP_LABEL_MUTEX,
    ZONE_LOCK,
    holder_of,
    is_lock,
    mutex_lock,
    mutex_unlock,
    preempt_count,
    resize_lock,
    spin_lock,
    spin_unlock,
)
from kernel_model.mm.failures import ALLOCATIONS, FailAt
from kernel_model.mm.hstate import HSTATE_2M

LOCK, OTHER_LOCK = Word("a lock"), Word("another lock")
COUNT = VirtAddr(KEY + 0x200)
OWN = VirtAddr(KEY + 0x300)
Threads = Callable[[int], Coroutine[Any, Any, None]]


def small(cpus: int = 2) -> Lab:
    return Lab(BootConfig(16 * MIB, cpus, ()))


async def add_with_lock(cpu: int) -> None:
    await Store(VirtAddr(OWN + 8 * cpu), 1)  # something that does not matter
    await spin_lock(LOCK)
    await Store(COUNT, await Load(COUNT) + 1)
    await spin_unlock(LOCK)


async def add_without_lock(cpu: int) -> None:
    await Store(COUNT, await Load(COUNT) + 1)


def explore(thread: Threads) -> dict[str, int]:
    """Every order of two of these threads, as the CPUs that stepped, and what the count was in the end."""
    outcomes: dict[str, int] = {}
    todo = [""]
    while todo:
        prefix = todo.pop()
        lab = small()
        for cpu in (0, 1):
            lab.start(lambda cpu=cpu: thread(cpu), cpu)  # type: ignore[misc]
        for cpu in prefix:
            lab.perform(Step(int(cpu)))
        enabled = lab.machine.enabled()
        if not enabled:
            assert not lab.machine.busy, f"deadlock after {prefix}"
            outcomes[prefix] = lab.word_at(COUNT)
        todo += [f"{prefix}{choice.cpu}" for choice in enabled]
    return outcomes


def test_without_a_lock_an_update_is_lost_in_four_of_six_orders() -> None:
    assert explore(add_without_lock) == {"0011": 2, "1100": 2, "0101": 1, "0110": 1, "1001": 1, "1010": 1}


def test_with_a_lock_no_update_is_lost_in_any_order() -> None:
    """Five steps each, the last four behind the lock: only the other's first step can come in between."""
    orders = [f"{'0' * n}1{'0' * (5 - n)}1111" for n in range(6)]
    orders += [f"{'1' * n}0{'1' * (5 - n)}0000" for n in range(6)]
    assert explore(add_with_lock) == dict.fromkeys(orders, 2)


def test_a_lock_names_its_holder_and_counts_as_no_preemption() -> None:
    lab = small()

    async def nest() -> None:
        await spin_lock(LOCK)
        await spin_lock(OTHER_LOCK)
        await spin_unlock(LOCK)
        await spin_unlock(OTHER_LOCK)

    seen = []
    lab.start(nest, cpu=1)
    while lab.machine.enabled():
        lab.perform(Step(1))
        words = lab.machine.words
        seen.append((words[LOCK], words[OTHER_LOCK], lab.word_named("preempt_count", 1)))
    assert seen == [(2, 0, 1), (2, 2, 2), (0, 2, 1), (0, 0, 0)]
    assert lab.word_named("preempt_count", 0) == 0


def test_taking_a_lock_twice_is_a_deadlock() -> None:
    lab = small()

    async def twice() -> None:
        await spin_lock(LOCK)
        await spin_lock(LOCK)

    lab.start(twice)
    with pytest.raises(Deadlock, match="a lock = 0"):
        lab.run()


def test_two_locks_in_opposite_order_can_deadlock() -> None:
    lab = small()

    async def both(first: Word, second: Word) -> None:
        await spin_lock(first)
        await spin_lock(second)

    lab.start(lambda: both(LOCK, OTHER_LOCK), cpu=0)
    lab.start(lambda: both(OTHER_LOCK, LOCK), cpu=1)
    lab.perform(Step(0))
    lab.perform(Step(1))
    assert lab.machine.enabled() == []
    assert lab.machine.blocked() == {0: "another lock = 0", 1: "a lock = 0"}


def test_a_cpu_that_waits_for_a_lock_takes_interrupts() -> None:
    """Rule L6: so the holder may wait for acknowledgements."""
    lab = small()

    async def hold_and_flush() -> None:
        await spin_lock(LOCK)
        await csd_lock_wait(await on_each_cpu(frozenset({1}), FlushEverything()))
        await spin_unlock(LOCK)

    async def wait() -> None:
        await spin_lock(LOCK)
        await spin_unlock(LOCK)

    holder = lab.start(hold_and_flush, cpu=0)
    lab.perform(Step(0))
    waiter = lab.start(wait, cpu=1)
    assert lab.machine.blocked() == {1: "a lock = 0"}
    lab.run()
    assert holder.returned
    assert waiter.returned


# --- who has it -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cpu", [0, 1, 15])
def test_the_holder_of_each_lock_can_be_told_from_its_word(cpu: int) -> None:
    lab = lab_2m(cpus=16)
    locks = (INIT_MM_PAGE_TABLE_LOCK, HUGETLB_LOCK, ZONE_LOCK, JUMP_LABEL_MUTEX, resize_lock(9))
    held = []

    async def takes() -> None:
        for lock in locks:
            await mutex_lock(lock)
        held.extend(holder_of(lab.machine.words[lock]) for lock in locks)
        for lock in locks:
            await mutex_unlock(lock)

    lab.call(takes, cpu)
    assert held == [cpu] * 5
    assert [holder_of(lab.machine.words[lock]) for lock in locks] == [None] * 5


def test_no_word_that_is_left_held_is_unknown_as_a_lock() -> None:
    """Everything that the machine's words are used for, in a run of all there is to run."""
    lab = lab_2m(0x4000, 0x4200, failures=FailAt(frozenset({100})))
    lab.call(lambda: lab.kernel.pool.set_max_huge_pages(HSTATE_2M, 2))
    lab.optimize_list()
    words = set(lab.machine.words)
    locks = {word for word in words if is_lock(word)}
    assert locks == {INIT_MM_PAGE_TABLE_LOCK, HUGETLB_LOCK, ZONE_LOCK, JUMP_LABEL_MUTEX, resize_lock(9)}
    assert words - locks == {preempt_count(0), ALLOCATIONS}
