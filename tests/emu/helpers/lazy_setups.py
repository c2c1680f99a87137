"""Page tables that change before a lazy TLB's eyes."""

from __future__ import annotations

from paging_rig import TABLE, VA, PagingRig, leaf

from emu.addr import Pfn
from emu.mmu import Mmu
from emu.paging.models import CpuModel
from emu.paging.pte import Pte

OTHER_TABLE = Pfn(0x7F0)


def on_table(rig: PagingRig, table: Pfn, index: int, entry: int) -> None:
    """That entry of the page table was always there."""
    rig.preset((table << 12) + 8 * index, entry)


def replaced_directory(model: CpuModel) -> tuple[PagingRig, Mmu]:
    """The PDE of VA pointed to a table with frame 1, then to another with frame 2."""
    rig = PagingRig()
    rig.map(VA, 1)
    mmu = rig.mmu(model)
    on_table(rig, OTHER_TABLE, 0, leaf(2))
    rig.set(rig.slot(VA, 2), Pte.make(OTHER_TABLE, TABLE))
    return rig, mmu
