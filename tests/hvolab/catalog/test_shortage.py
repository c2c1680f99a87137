"""A shortage that the first free ends: the free races with the allocations, and the reduction knows."""

from __future__ import annotations

from dataclasses import replace

from small_setups import Body, Outcomes, allocates, config_of, setup_of, then

from hvolab.explore.budget import Budget
from hvolab.explore.explorer import explore
from hvolab.explore.reduce.dpor import Reduced
from hvolab.explore.reduce.explored import Blind
from hvolab.explore.search.depth_first import everything
from hvolab.explore.search.interface import Freedom, Strategy
from hvolab.judge.sight.resource import Kind
from hvolab.subject.scenario import Setup
from kernel_model.boot import Kernel
from kernel_model.core.kconfig import KernelConfig
from kernel_model.layout import pfn_to_page
from kernel_model.mm.failures import AllocationFailures, FailFrom, FailUntilFreed

BACKING = 0x7F80
"""A frame behind the struct pages of memory that nobody touches, in use since boot, with two references."""

PLAIN = KernelConfig(debug_vm=False, debug_list=False, page_poisoning=False)


def frees_twice() -> Body:
    async def body(kernel: Kernel) -> None:
        for _ in range(2):
            await kernel.pages.free_page(pfn_to_page(BACKING))

    return body


def short_of_memory(failures: AllocationFailures) -> Setup:
    """Two allocations on one CPU, and on another a page freed."""
    config = replace(config_of(), kernel=PLAIN, failures=failures)
    return setup_of(then(allocates(0), allocates(0)), frees_twice(), boot_config=config)


def outcomes(setup: Setup, search: Strategy) -> set[tuple[object, ...]]:
    """Whether the first and the second allocation succeeded, in every order."""
    seen = Outcomes(search)
    done = explore(setup, seen, frozenset(Freedom), Budget(runs=20_000))
    assert done.coverage.complete
    return {values for _, (_, values), _ in seen.seen}


def test_a_free_between_two_allocations_is_told_from_one_before_and_one_after() -> None:
    setup = short_of_memory(FailUntilFreed(0))
    # Freed before any has failed it does not help; freed after both it comes too late.
    expected = {(False, False), (False, True)}
    assert outcomes(setup, everything()) == expected
    assert outcomes(setup, Reduced()) == expected


def test_what_tells_them_apart_is_a_named_word() -> None:
    assert outcomes(
        short_of_memory(FailUntilFreed(0)), Reduced(blind=Blind(kinds=frozenset({Kind.NAMED})))
    ) == {(False, False)}


def test_for_ever_is_longer_than_until_a_page_is_freed() -> None:
    for search in (everything(), Reduced()):
        assert outcomes(short_of_memory(FailFrom(0)), search) == {(False, False)}
