"""What each CPU read in each vmemmap page, phase by phase: the view of the remap scenarios."""

from __future__ import annotations

from dataclasses import dataclass

from emu.addr import PAGE_SHIFT, PhysAddr, VirtAddr
from emu.events import Finished, MachineEvent
from emu.paging.walk import Walk
from hvolab.subject.scenario import Tour
from kernel_model.boot import System
from kernel_model.layout import PAGE_OFFSET, PerCpu
from kernel_model.mm.page import PageFlag


@dataclass(frozen=True, slots=True)
class PageRow:
    """One vmemmap page as it is mapped, and what each CPU read at its start: (flags, compound_head)."""

    index: int
    pfn: int
    size: str
    flags: str
    read: tuple[tuple[int, tuple[int, int]], ...]


@dataclass(frozen=True, slots=True)
class Phase:
    """The state between two operations. Counters are in 4 KiB pages."""

    name: str
    folio: VirtAddr
    rows: tuple[PageRow, ...]
    free_frames: int
    counters: tuple[tuple[str, int], ...]


class PagesView:
    """Collects a phase each time the last reader of a phase is done."""

    def __init__(self, system: System, watched: tuple[VirtAddr, ...], tour: Tour) -> None:
        self.phases: list[Phase] = []
        self._system = system
        self._watched = watched
        self._readers = tour.readers
        self._states = dict(tour.states)
        self._read: dict[int, list[tuple[int, int]]] = {}
        self._name = "before"

    def __call__(self, _number: int, event: MachineEvent) -> None:
        if not isinstance(event, Finished):
            return
        who = event.cpu, event.name
        self._name = self._states.get(who, self._name)
        if who not in self._readers:
            return
        self._read[event.cpu] = self._buffer(event.cpu)
        if len(self._read) == len(self._readers):
            self.phases.append(self._phase())
            self._read = {}

    def _buffer(self, cpu: int) -> list[tuple[int, int]]:
        memory, start = self._system.machine.memory, PerCpu(cpu).buffer - PAGE_OFFSET
        words = memory.read(PhysAddr(start), 16 * len(self._watched))
        values = [int.from_bytes(words[i : i + 8], "little") for i in range(0, len(words), 8)]
        return list(zip(values[::2], values[1::2], strict=True))

    def _phase(self) -> Phase:
        machine = self._system.machine
        rows = []
        for index, page in enumerate(self._watched):
            found = machine.cpus[0].mmu.peek(page)
            assert isinstance(found, Walk)
            read = tuple((cpu, words[index]) for cpu, words in sorted(self._read.items()))
            rows.append(PageRow(index, found.pa >> PAGE_SHIFT, str(found.size), found.leaf.flags(), read))
        counters = tuple((name, machine.count(name)) for name in ("nr_memmap_boot_pages", "nr_memmap_pages"))
        free = self._system.kernel.pages.free_frames()
        return Phase(self._name, self._watched[0], tuple(rows), free, counters)


def meaning(words: tuple[int, int], folio: VirtAddr) -> str:
    """What a reader takes a struct page for, by its flags and compound_head words."""
    flags, compound_head = words
    if compound_head & 1:
        return "a tail" if compound_head - 1 == folio else f"a tail of {compound_head - 1:#x}"
    if flags & PageFlag.HEAD:
        return "a head"
    return "neither"
