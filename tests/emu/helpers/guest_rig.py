"""A guest core over a page table: four pages of code at CODE and four of data at VA, all frames distinct."""

from __future__ import annotations

from collections.abc import Mapping

import keystone
from paging_rig import PAGE, VA, A, P, PagingRig, leaf

from emu.addr import PhysAddr, VirtAddr
from emu.guest.guest_core import GuestCore, StepResult
from emu.mmu import Mmu
from emu.paging.models import SKYLAKE, CpuModel

CODE = 0xFFFF_FFFF_8100_0000
CODE_FRAME = 0x400
DATA_FRAME = 0x800
PAGES = 4
EXECUTABLE = P | A

_KEYSTONE = keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_64)


def assemble(text: str, at: int = CODE) -> bytes:
    encoded, _ = _KEYSTONE.asm(text, at)
    return bytes(encoded)


class GuestRig(PagingRig):
    """`put` writes a program, `core` makes a core that stands at it."""

    def __init__(self) -> None:
        super().__init__()
        for page in range(PAGES):
            self.map(CODE + page * PAGE, CODE_FRAME + page, EXECUTABLE)
            self.map(VA + page * PAGE, DATA_FRAME + page)

    def code_pa(self, at: int) -> PhysAddr:
        return PhysAddr(CODE_FRAME * PAGE + at - CODE)

    def put(self, program: str | bytes, at: int = CODE) -> None:
        code = program if isinstance(program, bytes) else assemble(program, at)
        self.memory.load_image(self.code_pa(at), code)

    def fill_data(self) -> None:
        """Every data byte says where it is."""
        for page in range(PAGES):
            data = bytes((0x11 * (page + 1) + index) % 251 for index in range(PAGE))
            self.memory.load_image(PhysAddr((DATA_FRAME + page) * PAGE), data)

    def core(
        self,
        registers: Mapping[str, int] | None = None,
        at: int = CODE,
        model: CpuModel = SKYLAKE,
        mmu: Mmu | None = None,
    ) -> GuestCore:
        self.last_mmu = mmu or self.mmu(model)
        core = GuestCore(0, self.memory, self.last_mmu, self.trace)
        core.load("guest", VirtAddr(at), registers or {})
        return core

    def unmap(self, va: int) -> None:
        """That page has never been mapped."""
        self.preset(self.slot(va), 0)

    def data(self) -> bytes:
        return self.memory.read(PhysAddr(DATA_FRAME * PAGE), PAGES * PAGE)

    def word(self, va: int) -> int:
        return self.memory.read_word(PhysAddr(DATA_FRAME * PAGE + va - VA))

    def remap(self, va: int, frame: int) -> None:
        self.set(self.slot(va), leaf(frame))


def steps(core: GuestCore, count: int) -> list[StepResult]:
    return [core.step() for _ in range(count)]
