"""Kernel stacks: a page of list heads for each CPU."""

from __future__ import annotations

import pytest
from flat_cpu import FlatCpu

from emu.cpu.routine import ContextKilled
from kernel_model.core.bug import bug
from kernel_model.core.lists import LIST_HEAD_BYTES
from kernel_model.core.stack import ListHead


async def three() -> list[int]:
    async with ListHead(0) as first, ListHead(0) as second, ListHead(1) as other:
        heads = [first, second, other]
    async with ListHead(0) as again:
        return [*heads, again]


def test_a_kernel_stack_hands_out_a_page_of_list_heads() -> None:
    cpu = FlatCpu()
    first, second, other, again = cpu.run(three())
    assert second - first == LIST_HEAD_BYTES
    assert abs(other - first) >= 4096
    assert again == first
    assert cpu.stack == 0, "a block that is left by a return gives its room back too"


async def nest(depth: int) -> None:
    async with ListHead(0):
        if depth:
            await nest(depth - 1)


def test_a_full_kernel_stack_is_an_overflow() -> None:
    FlatCpu().run(nest(4096 // LIST_HEAD_BYTES - 1))
    with pytest.raises(OverflowError, match="kernel stack of cpu0 is full"):
        FlatCpu().run(nest(4096 // LIST_HEAD_BYTES))


async def dies() -> None:
    async with ListHead(0):
        await bug("dies", "here")


def test_a_routine_that_is_killed_or_closed_asks_for_nothing_more() -> None:
    """Its stack is gone with it; an op in its last moment would be one that nobody carries out."""
    cpu = FlatCpu()
    with pytest.raises(ContextKilled):
        cpu.run(dies())
    assert cpu.stack == LIST_HEAD_BYTES
    routine = dies()
    routine.send(None)
    routine.close()
