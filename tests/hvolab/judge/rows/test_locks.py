"""Locks: what a deadlock says, what a killed context leaves behind, orders that no schedule was wrong by."""

from __future__ import annotations

import pytest
from small_setups import Body, setup_of, then

from emu.paging.models import LAZY
from hvolab.catalog.common import HUGE_PAGE, MEMORY_BYTES
from hvolab.explore.budget import Budget
from hvolab.explore.explorer import explore
from hvolab.explore.reduce.dpor import Reduced
from hvolab.explore.search.interface import Freedom
from hvolab.judge.rows.locks import LockTaken, TakenInOrder, inversions
from hvolab.judge.verdict import Verdict
from hvolab.subject.outcome import Deadlocked
from hvolab.subject.picker import InOrder
from hvolab.subject.run import run
from hvolab.subject.scenario import KernelActor, Setup
from hvolab.subject.script import ScriptPicker
from hvolab.subject.script_text import parse_script
from kernel_model.boot import BootConfig, Kernel
from kernel_model.core.bug import bug
from kernel_model.core.spinlock import HUGETLB_LOCK, ZONE_LOCK, spin_lock, spin_unlock
from kernel_model.mm.image import HugePage

FREE = frozenset({Freedom.SCHEDULE, Freedom.IRQ})


async def grow_a_pool(kernel: Kernel) -> None:
    await spin_lock(HUGETLB_LOCK)
    await spin_lock(ZONE_LOCK)
    await spin_unlock(ZONE_LOCK)
    await spin_unlock(HUGETLB_LOCK)


async def shrink_a_zone(kernel: Kernel) -> None:
    await spin_lock(ZONE_LOCK)
    await spin_lock(HUGETLB_LOCK)
    await spin_unlock(HUGETLB_LOCK)
    await spin_unlock(ZONE_LOCK)


def actors(*bodies: Body) -> Setup:
    def routine(body: Body) -> KernelActor:
        async def run_it(kernel: Kernel, huge: HugePage) -> None:
            await body(kernel)

        return KernelActor(bodies.index(body), body.__name__, run_it)

    boot = BootConfig(MEMORY_BYTES, max(2, len(bodies)), (HUGE_PAGE,), model=LAZY)
    return Setup(boot, tuple(routine(body) for body in bodies), (), ())


def test_a_deadlock_does_not_leave_open_who_holds_what_since_where() -> None:
    script = parse_script("cpu0 makes 1 step\ncpu1 makes 1 step")
    done = run(actors(grow_a_pool, shrink_a_zone), lambda system: ScriptPicker(script, system.machine))
    assert isinstance(done.outcome, Deadlocked)
    (finding,) = done.findings
    assert finding.verdict is Verdict.KERNEL
    assert finding.why == (
        "cpu0 in grow_a_pool waits for zone.lock, held by cpu1, taken in shrink_a_zone",
        "cpu1 in shrink_a_zone waits for hugetlb_lock, held by cpu0, taken in grow_a_pool",
    )


async def dies_with_the_lock(kernel: Kernel) -> None:
    await spin_lock(ZONE_LOCK)
    await bug("dies_with_the_lock", "BUG_ON(1)")


async def wants_the_lock(kernel: Kernel) -> None:
    await spin_lock(ZONE_LOCK)
    await spin_unlock(ZONE_LOCK)


def test_the_lock_of_a_killed_context_is_no_second_finding() -> None:
    done = run(actors(dies_with_the_lock, wants_the_lock), lambda _system: InOrder())
    assert isinstance(done.outcome, Deadlocked)
    assert [finding.cause for finding in done.findings] == ["BUG in dies_with_the_lock: BUG_ON(1)"]


async def both_ways_in_turn(kernel: Kernel) -> None:
    await then(grow_a_pool, shrink_a_zone)(kernel)


def test_two_locks_in_both_orders_are_a_warning_where_no_schedule_deadlocks() -> None:
    """One CPU alone cannot deadlock with itself; two that did the same could."""
    done = explore(actors(both_ways_in_turn), Reduced(), FREE, Budget())
    assert done.found == ()
    (warning,) = done.warnings
    one, other = warning.removeprefix("two locks in both orders: ").split("; but ")
    assert one == "hugetlb_lock in grow_a_pool, then zone.lock in grow_a_pool"
    assert other == "zone.lock in shrink_a_zone, then hugetlb_lock in shrink_a_zone"


def test_a_deadlock_is_a_finding_and_a_warning() -> None:
    done = explore(actors(grow_a_pool, shrink_a_zone), Reduced(), FREE, Budget())
    assert [one.finding.verdict for one in done.found] == [Verdict.KERNEL]
    assert len(done.warnings) == 1


@pytest.mark.parametrize("body", [grow_a_pool, shrink_a_zone], ids=lambda body: body.__name__)
def test_one_order_is_no_warning(body: Body) -> None:
    assert explore(actors(body), Reduced(), FREE, Budget()).warnings == ()


def test_a_third_lock_between_two_is_no_inversion() -> None:
    a, b, c = (LockTaken(name, "f") for name in "abc")
    assert inversions({TakenInOrder(a, b), TakenInOrder(b, c), TakenInOrder(a, c)}) == []
    assert inversions({TakenInOrder(a, b), TakenInOrder(b, a)}) == [
        "a in f, then b in f; but b in f, then a in f"
    ]


def test_words_are_the_way_back() -> None:
    order = TakenInOrder(LockTaken("a", "f"), LockTaken("b", "g"))
    assert TakenInOrder.of(*order.words()) == order


def test_nothing_is_known_of_a_setup_without_locks() -> None:
    async def nothing(kernel: Kernel) -> None:
        """Takes no lock."""

    assert run(setup_of(nothing), lambda _system: InOrder()).lock_orders == frozenset()
