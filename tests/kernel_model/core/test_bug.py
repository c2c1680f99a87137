"""BUG() ends the context, WARN() goes on."""

from __future__ import annotations

import pytest

from emu.cpu.ops import Annotate
from emu.cpu.routine import ContextKilled
from kernel_model.core.bug import bug, warn
from kernel_model.core.events import KernelBug, KernelWarning


def test_a_bug_is_announced_and_then_ends_the_context() -> None:
    running = bug("f", "list corrupted")
    assert running.send(None) == Annotate(KernelBug("f", "list corrupted"))
    with pytest.raises(ContextKilled, match=r"^f: list corrupted$"):
        running.send(None)


def test_a_warning_is_announced_and_the_code_goes_on() -> None:
    running = warn("f", "odd")
    assert running.send(None) == Annotate(KernelWarning("f", "odd"))
    with pytest.raises(StopIteration):
        running.send(None)
