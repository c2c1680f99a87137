"""How the tests of the rules of docs/hardware-rules.md show a rule, and that it matters.

Where `emu.paging.tlb.Rule` has a flag for the rule, the same sequence runs once more on a CPU without it, and
the wrong behaviour must appear: a rule whose loss nothing shows is not tested.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from paging_rig import FRAME, PAGE, RW, VA, PagingRig, leaf, read

from emu.addr import PageSize
from emu.mmu import Mmu, without_rule
from emu.paging.models import LAZY, SKYLAKE, CpuModel
from emu.paging.pte import PteBit
from emu.paging.tlb import Rule
from emu.paging.walk import Control

OLD, NEW = FRAME, FRAME + 1
PCIDS = Control(pcid_enable=True)
HOLDS_AND_LAZY = [SKYLAKE, LAZY]
by_model = pytest.mark.parametrize("model", HOLDS_AND_LAZY, ids=lambda model: model.name)
Frames = set[int | None]
Sequence = Callable[[CpuModel], Frames]


def shows(rule: Rule, model: CpuModel, sequence: Sequence, *, kept: Frames, broken: Frames) -> None:
    """The sequence ends in `kept` on the model, in `broken` on the same model without the rule."""
    assert sequence(model) == kept
    assert sequence(without_rule(model, rule)) == broken


def changed(
    model: CpuModel,
    bits: PteBit = RW,
    size: PageSize = PageSize.KIB4,
    control: Control | None = None,
    at: int = 0,
) -> tuple[PagingRig, Mmu]:
    """A CPU that has used a page whose entry then got another frame. Nothing was invalidated."""
    rig = PagingRig()
    old, new = (0x800, 0xA00) if size is PageSize.MIB2 else (OLD, NEW)
    pa = rig.map(VA, old, bits, size)
    mmu = rig.mmu(model, control)
    assert read(mmu, VA + at) == old + at // PAGE
    rig.set(pa, leaf(new, bits, size))
    return rig, mmu
