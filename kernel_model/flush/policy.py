"""The interface of a flush policy, and what one is told about the machine it runs on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from emu.addr import VirtAddr
from emu.cpu.software import Grain
from kernel_model.core.history import History


@dataclass(frozen=True, slots=True)
class FlushSite:
    """The machine as a policy sees it. `ceiling` is tlb_single_page_flush_ceiling, in 4 KiB pages."""

    online: frozenset[int]
    ceiling: int


class FlushPolicy(Protocol):
    """Both routines return when the kernel may rely on the flush, and announce begin and completion."""

    async def flush_tlb_all(self) -> None: ...

    async def flush_tlb_kernel_range(self, start: VirtAddr, end: VirtAddr) -> None:
        """Flush the 4 KiB pages of [start, end), both in bytes."""
        ...


@dataclass(frozen=True, slots=True)
class NamedPolicy:
    """A policy by name, and how to make one for a machine. `history`: of one that a kernel had."""

    name: str
    summary: str
    build: Callable[[FlushSite], FlushPolicy]
    grain: Grain = Grain.ATOMIC  # of the interrupt handler; stepwise where its steps can be told apart
    history: History | None = None
