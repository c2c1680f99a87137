"""BUG_ON, VM_BUG_ON and the warnings: announced in the trace; a BUG also ends its context."""

from __future__ import annotations

from emu.cpu.ops import Annotate
from emu.cpu.routine import ContextKilled
from kernel_model.core.events import KernelBug, KernelWarning


async def bug(where: str, message: str) -> None:
    """BUG(): announce and end the context. Raises ContextKilled always."""
    await Annotate(KernelBug(where, message))
    raise ContextKilled(f"{where}: {message}")


async def warn(where: str, message: str) -> None:
    """WARN(): announce and go on. That a message counts once a run is for the reader of the trace."""
    await Annotate(KernelWarning(where, message))
