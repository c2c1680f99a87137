"""Kernel stacks: where a routine's local list heads live, in guest memory."""

from __future__ import annotations

from types import TracebackType

from emu.addr import PAGE_BYTES, VirtAddr
from emu.cpu.ops import StackRoom
from kernel_model.core.lists import LIST_HEAD_BYTES
from kernel_model.layout import PerCpu


class ListHead:
    """Room for one list head on that CPU's stack, for as long as the block runs: one page, from the bottom.

        async with ListHead(cpu) as pages:

    A routine that is killed in the block takes its stack with it. Raises OverflowError when the page is full.
    """

    def __init__(self, cpu: int) -> None:
        self._cpu = cpu

    async def __aenter__(self) -> VirtAddr:
        offset = await StackRoom(LIST_HEAD_BYTES)
        if offset + LIST_HEAD_BYTES > PAGE_BYTES:
            raise OverflowError(f"kernel stack of cpu{self._cpu} is full")
        return VirtAddr(PerCpu(self._cpu).stack + offset)

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            await StackRoom(-LIST_HEAD_BYTES)
