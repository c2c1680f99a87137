"""A geometry TLB under a probe that says what hits."""

from __future__ import annotations

from paging_rig import FRAME, PAGE, RW, PagingRig, access

from emu.addr import PageSize, VirtAddr
from emu.events import Source
from emu.mmu import Translation
from emu.paging.geometry import ArraySpec, Geometry, Replacement, SetHash
from emu.paging.models import CpuModel
from emu.paging.pte import PteBit
from emu.paging.tlb import ALL_RULES, Invlpg, Port, Rule
from emu.paging.walk import Access, Control

BOTH = frozenset(Port)
DATA, CODE = Port.DATA, Port.CODE
K4 = frozenset({PageSize.KIB4})


def array(
    level: int = 1,
    sets: int = 1,
    ways: int = 4,
    *,
    sizes: frozenset[PageSize] = K4,
    ports: frozenset[Port] = BOTH,
    replacement: Replacement = Replacement.LRU,
    set_hash: SetHash = SetHash.LOW_BITS,
) -> ArraySpec:
    return ArraySpec("test", level, ports, sizes, sets, ways, replacement, set_hash)


def model_of(*arrays: ArraySpec, rules: frozenset[Rule] = ALL_RULES) -> CpuModel:
    return CpuModel("test", Geometry(arrays), rules=rules)


class Probe:
    """A CPU whose 4K page number n is mapped to frame FRAME + n % 1024, as soon as it is looked at."""

    def __init__(self, *arrays: ArraySpec) -> None:
        self.rig = PagingRig()
        self.mmu = self.rig.mmu(model_of(*arrays), Control(pcid_enable=True))

    def look(self, number: int, port: Port = DATA, pcid: int = 0, bits: PteBit = RW) -> bool:
        """One access to the page. Returns whether it hit."""
        if not self.rig.get(self.rig.slot(number * PAGE)).present:
            self.rig.map(number * PAGE, FRAME + number % 1024, bits)
        self.mmu.pcid = pcid
        found = access(self.mmu, number * PAGE, Access.READ if port is DATA else Access.FETCH)
        assert isinstance(found, Translation)
        assert found.pa >> 12 == FRAME + number % 1024
        return found.source is Source.HIT

    def looks(self, *numbers: int, port: Port = DATA) -> list[bool]:
        return [self.look(number, port) for number in numbers]

    def drop(self, number: int) -> None:
        self.mmu.invalidate(Invlpg(VirtAddr(number * PAGE)))

    def held(self) -> set[int]:
        return {one.page // PAGE for one in self.mmu.tlb.entries()}

    def victims(self, *numbers: int) -> list[int]:
        """What each of these accesses pushes out."""
        gone: list[int] = []
        for number in numbers:
            before = self.held()
            self.look(number)
            gone += sorted(before - self.held())
        return gone
