"""An allocator with frames and a CPU to call it on, and what a struct page of it holds."""

from __future__ import annotations

import pytest
from flat_cpu import FlatCpu
from hvo_lab import STRUCT, VMEMMAP, StructPage

from emu.addr import VirtAddr
from emu.cpu.routine import ContextKilled
from kernel_model.core.events import KernelBug
from kernel_model.core.kconfig import KernelConfig
from kernel_model.mm.buddy import Buddy

BASE = 0x000F_FFFF_C000_0000
UNUSED = StructPage(BASE, 0, 0, 0, 0, 0, 0xFFFF_FFFF, 0, 0)
RESERVED, PRIVATE, HWPOISON, LRU, MLOCKED = 1 << 13, 1 << 14, 1 << 20, 1 << 5, 1 << 19


def page(pfn: int) -> VirtAddr:
    return VirtAddr(VMEMMAP + STRUCT * pfn)


class Zone:
    """An allocator with frames, and a CPU to call it on."""

    def __init__(self, *ranges: tuple[int, int], cpus: int = 1, config: KernelConfig | None = None) -> None:
        self.cpu = FlatCpu()
        self.pages = Buddy(config or KernelConfig(), cpus, self.cpu.ledger)
        for start, end in ranges:
            for pfn in range(start, end):
                self.write(pfn, UNUSED)
            self.pages.add_free(start, end)

    def write(self, pfn: int, struct: StructPage) -> None:
        self.cpu.write_bytes(page(pfn), struct.pack())

    def read(self, pfn: int) -> StructPage:
        return StructPage.parse(self.cpu.read_bytes(page(pfn), STRUCT))

    def alloc(self, cpu: int = 0) -> int | None:
        """The frame number; None when there is none."""
        found = self.cpu.run(self.pages.alloc_page("test"), cpu)
        return None if found is None else (found - VMEMMAP) // STRUCT

    def free(self, pfn: int, cpu: int = 0) -> None:
        self.cpu.run(self.pages.free_page(page(pfn)), cpu)

    def bug(self, pfn: int) -> KernelBug:
        """The BUG that freeing this frame ends in."""
        with pytest.raises(ContextKilled):
            self.free(pfn)
        return self.cpu.heard(KernelBug)[-1]
