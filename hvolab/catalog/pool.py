"""Upstream's pool against what may run beside it: scenarios for `explore`, which takes every order.

Their own order is only an example: the pool's operation first, then who races with it.
"""

from __future__ import annotations

from dataclasses import replace

from emu.cpu.ops import Load, Store
from emu.paging.models import LAZY
from hvolab.catalog.common import (
    HUGE_PAGE,
    MEMORY_BYTES,
    RAW_ERROR,
    add_to_pool,
    dissolve,
    memory_failure,
    shrink,
)
from hvolab.catalog.readers import get_page
from hvolab.subject.scenario import Group, GuestActor, KernelActor, Scenario, Setup, vmemmap_page
from hvolab.subject.script import ToEnd
from kernel_model.boot import BootConfig, Kernel, PoolAtBoot
from kernel_model.layout import FREE_HPAGE_WORK_PENDING
from kernel_model.mm.hstate import HSTATE_2M, Hstate
from kernel_model.mm.image import HugePage
from kernel_model.mm.page import Offset, field, nth_page

TAIL_1 = vmemmap_page(HUGE_PAGE, 1)
# Two of the smaller size in one: demoting it does what demoting 1 GiB does, 512 times quicker.
SIZE_4M = Hstate("4M", 10)
PAGE_4M = HugePage(HUGE_PAGE.pfn, SIZE_4M)


# -- actors ----------------------------------------------------------------------------------------------


async def _toggle(kernel: Kernel, huge: HugePage) -> None:
    """vm.hugetlb_optimize_vmemmap = 0, and 1 again"""
    del huge
    await kernel.hvo.write_sysctl(0)
    await kernel.hvo.write_sysctl(1)


async def _grow_to_two(kernel: Kernel, huge: HugePage) -> None:
    await kernel.pool.set_max_huge_pages(huge.hstate, 2)


async def _free_atomically(kernel: Kernel, huge: HugePage) -> None:
    """A folio in use that is surplus by now loses its last reference where nobody may sleep.

    What is left to the work item is done by a worker afterwards.
    """
    folio = await kernel.pool.dequeue_hugetlb_folio(huge.hstate)
    if folio is None:
        return  # somebody was quicker
    await kernel.pool.set_max_huge_pages(huge.hstate, 0)
    await Store(field(folio, Offset.REFCOUNT), 0, 4)
    await kernel.pool.free_huge_folio(folio)
    if await Load(FREE_HPAGE_WORK_PENDING):
        await kernel.pool.kworker()


async def _demote(kernel: Kernel, huge: HugePage) -> None:
    await kernel.pool.demote_pool_huge_page(huge.hstate, HSTATE_2M, 1)


async def _error_in_second_half(kernel: Kernel, huge: HugePage) -> None:
    await kernel.raw.memory_failure(nth_page(huge.folio, HSTATE_2M.pages_per_huge_page + RAW_ERROR))


async def _shrink_small(kernel: Kernel, huge: HugePage) -> None:
    del huge
    await kernel.pool.set_max_huge_pages(HSTATE_2M, 0)


def _toggled(cpu: int) -> KernelActor:
    return KernelActor(cpu, "toggle", _toggle)


def _setup(cpus: int, pool: PoolAtBoot, page: HugePage, *actors: GuestActor | KernelActor) -> Setup:
    boot = BootConfig(MEMORY_BYTES, cpus, (page,), model=LAZY, pool=pool)
    return Setup(boot, actors, (), (vmemmap_page(page, 0), vmemmap_page(page, 1)))


def _new(cpus: int, *actors: GuestActor | KernelActor) -> Setup:
    return _setup(cpus, PoolAtBoot.LISTED, HUGE_PAGE, *actors)


def _pooled(cpus: int, *actors: GuestActor | KernelActor) -> Setup:
    return _setup(cpus, PoolAtBoot.POOLED, HUGE_PAGE, *actors)


def _pooled_4m(cpus: int, *actors: GuestActor | KernelActor) -> Setup:
    return _setup(cpus, PoolAtBoot.POOLED, PAGE_4M, *actors)


def _demote_memory_failure(cpus: int) -> Setup:
    demote = KernelActor(0, "demote", _demote)
    setup = _pooled_4m(cpus, demote, KernelActor(1, "memory-failure", _error_in_second_half))
    return replace(setup, script=(ToEnd(0), ToEnd(1)))


GROW_GET_PAGE = Scenario(
    "grow-get-page",
    Group.POOL,
    "A new huge page joins the pool while a walker wants a reference on a tail: does it write there?",
    "no order is wrong: the folio is frozen from the start, its tails' counts are 0",
    "Growing freezes before it optimizes, and optimizes before anybody can be handed the page.",
    2,
    frozenset(),
    lambda cpus: _new(cpus, add_to_pool(0), get_page(1, TAIL_1)),
)


SHRINK_GET_PAGE = Scenario(
    "shrink-get-page",
    Group.POOL,
    "A huge page leaves the pool while a walker takes a reference on one of its tails: does it write there?",
    "no order is wrong: the count is 0 until the tails are back, and then the page is an ordinary one",
    "Restore puts writable pages behind the tails before the folio is given back and can be taken.",
    2,
    frozenset(),
    lambda cpus: _pooled(cpus, shrink(0), get_page(1, TAIL_1)),
)


GROW_MEMORY_FAILURE = Scenario(
    "grow-memory-failure",
    Group.POOL,
    "A memory error is reported in a huge page that joins the pool: is it forgotten, or a tail written to?",
    "no tail is written to: the type is set first; `explore` finds the order in which it is forgotten",
    "The head page is copied, then remapped: what is kept with the head in between stays behind.",
    2,
    frozenset(),
    lambda cpus: _new(cpus, add_to_pool(0), memory_failure(1)),
)


SHRINK_MEMORY_FAILURE = Scenario(
    "shrink-memory-failure",
    Group.POOL,
    "A memory error is reported in a huge page that leaves the pool: is it forgotten, or a tail written to?",
    "no order is wrong: the type goes when the tails are back, and errors move after that",
    "The orders of 32c877191e02 and 5596d9e8b553.",
    2,
    frozenset(),
    lambda cpus: _pooled(cpus, shrink(0), memory_failure(1)),
)


DISSOLVE_MEMORY_FAILURE = Scenario(
    "dissolve-memory-failure",
    Group.POOL,
    "Memory hotplug dissolves a huge page while a memory error is reported in it: who keeps the error?",
    "no order is wrong: the head until the type is gone, the page itself after that",
    "Dissolving restores by itself, to be able to undo its counts; the rest is the path of freeing.",
    2,
    frozenset(),
    lambda cpus: _pooled(cpus, dissolve(0), memory_failure(1)),
)


DISSOLVE_SHRINK = Scenario(
    "dissolve-shrink",
    Group.POOL,
    "The one page of the pool is dissolved while the pool is shrunk to nothing: is it freed twice?",
    "no order is wrong: whoever takes it off the free list under the lock frees it",
    "Everything that moves a folio between lists holds hugetlb_lock; restoring does not.",
    2,
    frozenset(),
    lambda cpus: _pooled(cpus, dissolve(0), shrink(1)),
)


SHRINK_GROW = Scenario(
    "shrink-grow",
    Group.POOL,
    "nr_hugepages becomes 0 on one CPU and 2 on another: what is the pool in the end?",
    "what the later of the two wanted: resizing holds a lock throughout",
    "resize_lock is what keeps two lists of folios in the making apart.",
    2,
    frozenset(),
    lambda cpus: _pooled(cpus, shrink(0), KernelActor(1, "grow", _grow_to_two)),
)


GROW_TOGGLE = Scenario(
    "grow-toggle",
    Group.POOL,
    "vm.hugetlb_optimize_vmemmap is switched off and on while a page joins the pool: is it half optimized?",
    "no order is wrong: it is optimized or it is not, and its flag says which",
    "The sysctl is read at each decision, and decides only that; the flag in the head remembers.",
    2,
    frozenset(),
    lambda cpus: _new(cpus, add_to_pool(0), _toggled(1)),
)


SHRINK_TOGGLE = Scenario(
    "shrink-toggle",
    Group.POOL,
    "The sysctl is switched off and on while an optimized page leaves the pool: is its vmemmap restored?",
    "no order is wrong: restoring asks the page's flag, never the sysctl",
    "Switching HVO off is about pages to come.",
    2,
    frozenset(),
    lambda cpus: _pooled(cpus, shrink(0), _toggled(1)),
)


FREE_GROW = Scenario(
    "atomic-free-grow",
    Group.POOL,
    "A surplus page is freed where nobody may sleep, and the pool is grown again: who waits for whom?",
    "no order is wrong: resizing waits for the work item, pending or running",
    "flush_free_hpage_work() at either end of a resize is what keeps the counts and the memory together.",
    2,
    frozenset(),
    lambda cpus: _pooled(
        cpus, KernelActor(0, "free", _free_atomically), KernelActor(1, "grow", _grow_to_two)
    ),
)


FREE_MEMORY_FAILURE = Scenario(
    "atomic-free-memory-failure",
    Group.POOL,
    "A memory error is reported in a page that waits for the worker to free it: who keeps it?",
    "no order is wrong: it is hugetlb until its tails are back",
    "The node of the worker's list lies in the head's `mapping`, which the error does not touch.",
    2,
    frozenset(),
    lambda cpus: _pooled(cpus, KernelActor(0, "free", _free_atomically), memory_failure(1)),
)


DEMOTE_MEMORY_FAILURE = Scenario(
    "demote-memory-failure",
    Group.POOL,
    "A memory error is reported in the second half of a large page that becomes two: who keeps it?",
    "in its own order the second of the small ones; `explore` finds the order in which it writes to a tail",
    "Between its compound_head() and its type the new folio is an ordinary one (docs/findings.md).",
    2,
    frozenset(),
    _demote_memory_failure,
)

DEMOTE_GET_PAGE = Scenario(
    "demote-get-page",
    Group.POOL,
    "A large page becomes two small ones while a walker takes a reference on a tail: does it write there?",
    "no order is wrong: all counts are 0 throughout",
    "The parts are frozen before they are folios of their own.",
    2,
    frozenset(),
    lambda cpus: _pooled_4m(cpus, KernelActor(0, "demote", _demote), get_page(1, TAIL_1)),
)


DEMOTE_SHRINK = Scenario(
    "demote-shrink",
    Group.POOL,
    "A large page becomes two small ones while the pool of small ones is shrunk: are both counted rightly?",
    "no order is wrong: demotion holds both resize locks while it fills the smaller pool",
    "Two hstates, two locks, one order.",
    2,
    frozenset(),
    lambda cpus: _pooled_4m(cpus, KernelActor(0, "demote", _demote), KernelActor(1, "shrink", _shrink_small)),
)


POOL: tuple[Scenario, ...] = (
    GROW_GET_PAGE,
    SHRINK_GET_PAGE,
    GROW_MEMORY_FAILURE,
    SHRINK_MEMORY_FAILURE,
    DISSOLVE_MEMORY_FAILURE,
    DISSOLVE_SHRINK,
    SHRINK_GROW,
    GROW_TOGGLE,
    SHRINK_TOGGLE,
    FREE_GROW,
    FREE_MEMORY_FAILURE,
    DEMOTE_MEMORY_FAILURE,
    DEMOTE_GET_PAGE,
    DEMOTE_SHRINK,
)
