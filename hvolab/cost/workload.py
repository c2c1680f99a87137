"""What is reckoned: a batch of huge pages is optimized while every other CPU has work of its own.

The others have used the struct pages of the batch, and memory that has nothing to do with it; they wait, with
interrupts on, and use all of it again.
"""

from __future__ import annotations

from dataclasses import dataclass

from emu.addr import PAGE_BYTES, PAGE_SHIFT, Pfn, VirtAddr
from emu.cpu.condition import Word, WordIs
from emu.cpu.ops import AddWords, Await, Load
from emu.memory import MIB
from emu.paging.models import SKYLAKE
from hvolab.subject.scenario import KernelActor, Setup
from kernel_model.boot import BootConfig, Kernel
from kernel_model.layout import FOLIO_LIST, PAGE_OFFSET, PMD_SIZE
from kernel_model.mm.hstate import Hstate, hugetlb_vmemmap_size
from kernel_model.mm.image import HugePage

# Room below the huge pages for the kernel and what it allocates, above them for vmemmap.
_BELOW, _ABOVE = 64 * MIB, 64 * MIB
_OWN_PAGES = 16  # of 2 MiB, of the direct map, that each of the others uses beside
MOST_FOLIOS = 1024
_MOST_OF_A_FOLIO = 8  # vmemmap pages of each folio that the others use
_READY, _DONE = Word("ready"), Word("done")


@dataclass(frozen=True, slots=True)
class Workload:
    """So many huge pages of one size, on so many CPUs."""

    cpus: int
    folios: int
    hstate: Hstate

    @property
    def loads(self) -> int:
        """By all CPUs together, at least."""
        return 2 * self.cpus * (_MOST_OF_A_FOLIO * self.folios + _OWN_PAGES)

    def setup(self) -> Setup:
        """CPUs with sets and ways: what is lost has to be filled again."""
        pages = self.hstate.pages_per_huge_page
        start = -(-(_BELOW >> PAGE_SHIFT) // pages) * pages
        folios = tuple(HugePage(Pfn(start + number * pages), self.hstate) for number in range(self.folios))
        end = start + self.folios * pages
        size = -(-((end << PAGE_SHIFT) + _ABOVE + end // 32) // (128 * MIB)) * 128 * MIB
        boot = BootConfig(size, self.cpus, folios, model=SKYLAKE)
        others = tuple(KernelActor(cpu, f"uses {cpu}", self._uses) for cpu in range(1, self.cpus))
        return Setup(boot, (KernelActor(0, "optimize", self._optimizes), *others), (), ())

    async def _optimizes(self, kernel: Kernel, huge: HugePage) -> None:
        await Await(WordIs(_READY, self.cpus - 1))
        await kernel.hvo.hugetlb_vmemmap_optimize_folios(huge.hstate, FOLIO_LIST)
        await AddWords(((_DONE, 1),))

    async def _uses(self, kernel: Kernel, huge: HugePage) -> None:
        del kernel
        await self._touches(huge)
        await AddWords(((_READY, 1),))
        await Await(WordIs(_DONE, 1))
        await self._touches(huge)

    async def _touches(self, first: HugePage) -> None:
        of_a_folio = min(_MOST_OF_A_FOLIO, hugetlb_vmemmap_size(self.hstate) // PAGE_BYTES)
        for number in range(self.folios):
            folio = first.folio + number * hugetlb_vmemmap_size(self.hstate)
            for page in range(of_a_folio):
                await Load(VirtAddr(folio + page * PAGE_BYTES))
        for page in range(_OWN_PAGES):
            await Load(VirtAddr(PAGE_OFFSET + page * PMD_SIZE))
