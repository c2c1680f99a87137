"""What litmus programs share: the CPU models they run on, and two marked frames."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from litmus_enumerator import NEW, OLD, PAGE, Litmus

from emu.cpu.condition import Word
from emu.cpu.software import TrapOutcome
from emu.paging.models import LAZY, LAZY_NO_PSC, LAZY_SINGLE, CpuModel
from emu.paging.walk import Control

MODELS = [LAZY, LAZY_SINGLE, LAZY_NO_PSC]
every_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)


def on(
    model: CpuModel, *, on_trap: TrapOutcome = TrapOutcome.RETRY, control: Control | None = None
) -> Callable[[], Litmus]:
    """Makes machines of that model."""
    return lambda: Litmus(model=model, on_trap=on_trap, control=control or Control())


def marked(litmus: Litmus) -> None:
    """The first word of the old frame says 1, of the new one 2."""
    litmus.preset(OLD * PAGE, 1)
    litmus.preset(NEW * PAGE, 2)


READY = Word("ready")
