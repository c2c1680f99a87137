"""Kernel stacks: where a routine's local list heads live, in guest memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from emu.addr import PAGE_BYTES, VirtAddr
from kernel_model.core.lists import LIST_HEAD_BYTES
from kernel_model.layout import PerCpu


class Stacks:
    """One page of stack for each CPU, handed out from the bottom."""

    def __init__(self, cpus: int) -> None:
        self._used = [0] * cpus

    def reset(self) -> None:
        """Nothing is in use."""
        self._used = [0] * len(self._used)

    @contextmanager
    def list_head(self, cpu: int) -> Iterator[VirtAddr]:
        """Room for one list head on that CPU's stack, for as long as the block runs.

        Raises OverflowError when the page is full.
        """
        offset = self._used[cpu]
        if offset + LIST_HEAD_BYTES > PAGE_BYTES:
            raise OverflowError(f"kernel stack of cpu{cpu} is full")
        self._used[cpu] += LIST_HEAD_BYTES
        try:
            yield VirtAddr(PerCpu(cpu).stack + offset)
        finally:
            self._used[cpu] -= LIST_HEAD_BYTES
