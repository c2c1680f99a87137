"""Awaiting an op hands it to the machine, and its answer back."""

from __future__ import annotations

import pytest

from emu.addr import VirtAddr
from emu.cpu.ops import Load, Store


def test_an_op_is_handed_over_as_it_is_and_the_answer_comes_back() -> None:
    async def routine() -> int:
        await Store(VirtAddr(8), 5)
        return await Load(VirtAddr(8)) + 1

    running = routine()
    assert running.send(None) == Store(VirtAddr(8), 5, 8)
    assert running.send(None) == Load(VirtAddr(8), 8)
    with pytest.raises(StopIteration) as ended:
        running.send(41)
    assert ended.value.value == 42


def test_what_goes_wrong_with_an_op_is_raised_where_it_is_awaited() -> None:
    async def routine() -> str:
        try:
            await Load(VirtAddr(8))
        except KeyError:
            return "caught"
        return "not raised"

    running = routine()
    running.send(None)
    with pytest.raises(StopIteration) as ended:
        running.throw(KeyError("x"))
    assert ended.value.value == "caught"
