"""What the tests of kernel_model share: a booted machine, a way to run it, and eyes of their own.

Nothing here asks the kernel model what it did. Page tables are walked by this file's own arithmetic over the
bytes of physical memory, lists are followed there, struct pages are read there. What a page table should
look like after an operation is computed here from what it looked like before.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass
from gzip import open as gzip_open
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from hvo_words import StructPage, flags_of, pfn_of

from emu.addr import Pfn, PhysAddr, VirtAddr
from emu.choice import Answerer, Choice, Defaults, Question, Step, VersionQuestion
from emu.cpu.condition import Word
from emu.cpu.cpu import GuestThread, KernelThread
from emu.events import Annotated, Invalidated, MachineEvent
from emu.machine import Machine
from emu.paging.tlb import Invalidation
from firmware.program import Program
from kernel_model.boot import BootConfig, Kernel, boot
from kernel_model.core.events import KernelEvent
from kernel_model.mm.hstate import HSTATE_1G, HSTATE_2M, Hstate
from kernel_model.mm.image import HugePage

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "linux-6.12"

PAGE = 4096
REGION = 2 << 20
"""Bytes of vmemmap one PMD entry maps; also the size of the blocks behind it."""
STRUCT = 64
MIB = 1 << 20
SECTION = 128 * MIB
VMEMMAP = 0xFFFF_EA00_0000_0000
DIRECT_MAP = 0xFFFF_8880_0000_0000
TEXT = 0xFFFF_FFFF_8100_0000

# Addresses in the direct map; the memory map is on one page in kernel_model/layout.py.
KEY = DIRECT_MAP + 6 * MIB
FOLIO_LIST = KEY + 0x40
NON_HVO_FOLIOS = KEY + 0x50

RW = "P W A D G NX"
RO = "P A G NX"
LARGE = "P W A D G NX PSE"
TABLE = "P W U A D"

POISON1, POISON2 = 0xDEAD_0000_0000_0100, 0xDEAD_0000_0000_0122
OPTIMIZED = 0x10
"""HPG_vmemmap_optimized in the head's `private` word, whose lowest byte is byte 40 of the head page."""

ENOMEM, ENOTSUPP = -12, -524

MOST_STEPS = 500_000
"""Of one run; the longest, a 1 GiB page, takes 110841."""

_T = TypeVar("_T")

Routine = Coroutine[Any, Any, Any]


class Leaf(NamedTuple):
    """One leaf of the page tables: level 2 (2 MiB) or 1 (4 KiB), first frame, flags as text."""

    level: int
    pfn: int
    flags: str


Leaves = Mapping[int, Leaf]


# --- what page tables should look like ------------------------------------------------------------------


def region_of(va: int) -> int:
    """Start of the 2 MiB of vmemmap that hold an address."""
    return va & ~(REGION - 1)


def pages_of(huge: HugePage) -> range:
    """The addresses of a folio's vmemmap pages."""
    return range(huge.folio, huge.folio + huge.hstate.pages_per_huge_page * STRUCT, PAGE)


def regions_of(huge: HugePage) -> range:
    """The 2 MiB of vmemmap each that a folio's struct pages lie in."""
    pages = pages_of(huge)
    return range(region_of(pages[0]), region_of(pages[-1]) + 1, REGION)


def split(leaves: Leaves, regions: Iterable[int]) -> dict[int, Leaf]:
    """The leaves after these 2 MiB leaves became 512 PTEs each, mapping what they mapped."""
    after = dict(leaves)
    for region in regions:
        large = after[region]
        if large.level == 2:
            after |= {region + n * PAGE: Leaf(1, large.pfn + n, RW) for n in range(512)}
    return after


def shared(leaves: Leaves, huge: HugePage, head: int) -> dict[int, Leaf]:
    """The leaves after an optimized folio's pages all map frame `head`, the first of them writable."""
    first, *tails = pages_of(huge)
    return {**leaves, first: Leaf(1, head, RW), **dict.fromkeys(tails, Leaf(1, head, RO))}


def frames(leaves: Leaves) -> Iterator[int]:
    """Every frame mapped, as often as it is."""
    for leaf in leaves.values():
        yield from range(leaf.pfn, leaf.pfn + (512 if leaf.level == 2 else 1))


def restored_tail(head_page: bytes) -> bytes:
    """What restore leaves in a tail's own page: the head page, structs 0-2 overwritten by 3-5."""
    return head_page[3 * STRUCT : 6 * STRUCT] + head_page[3 * STRUCT :]


def with_byte(data: bytes, offset: int, value: int) -> bytes:
    return data[:offset] + bytes((value,)) + data[offset + 1 :]


# --- the machine ------------------------------------------------------------------------------------------


class OldestVersion:
    """Answers as the CPU that keeps every stale translation as long as it may."""

    def answer(self, question: Question) -> int:
        return 0 if isinstance(question, VersionQuestion) else question.default


@dataclass
class Call:
    """A kernel routine that was started: whether it has returned, and what."""

    returned: bool = False
    value: Any = None


class Deadlock(Exception):
    """Nothing can happen and work is left."""


class Lab:
    """A booted kernel, all its events, and reads of physical memory that involve none of its code.

    Of a long run only the events of the kinds in `keep` are kept.
    """

    def __init__(self, config: BootConfig, keep: tuple[type, ...] = ()) -> None:
        self.config = config
        self._keep = keep
        self.system = boot(config)
        self.machine: Machine = self.system.machine
        self.kernel: Kernel = self.system.kernel
        self.events: list[MachineEvent | None] = []
        """By number: every event of the run so far; None where it was not kept."""
        self._mark = 0
        self.machine.trace.listen(self._hear)
        self.initial = self.vmemmap()

    def _hear(self, number: int, event: MachineEvent) -> None:
        assert number == len(self.events)
        self.events.append(event if not self._keep or isinstance(event, self._keep) else None)

    def reset(self) -> None:
        """Back to time zero, and listening again."""
        self.system.reset()
        self.events.clear()
        self._mark = 0
        self.machine.trace.listen(self._hear)

    # -- running ---------------------------------------------------------------------------------------

    def start(self, routine: Callable[[], Routine], cpu: int = 0, name: str = "routine") -> Call:
        call = Call()

        async def body() -> None:
            call.value = await routine()
            call.returned = True

        self.machine.start(cpu, KernelThread(name, body))
        return call

    def run(
        self,
        pick: Callable[[list[Choice]], Choice] = lambda enabled: enabled[0],
        answerer: Answerer | None = None,
    ) -> None:
        """Until nothing is left. Raises Deadlock when something is, but nothing can happen."""
        answers = answerer or Defaults()
        last = self.machine.steps + MOST_STEPS
        while enabled := self.machine.enabled():
            self.machine.perform(pick(enabled), answers)
            assert self.machine.steps < last, "this never ends"
        if self.machine.busy:
            raise Deadlock(str(self.machine.blocked()))

    def perform(self, choice: Choice) -> None:
        self.machine.perform(choice, Defaults())

    def word_named(self, name: str, index: int = 0) -> int:
        """A word the machine holds beside memory: a lock, a count of locks held."""
        return self.machine.words[Word(name, index)]

    def run_until(self, cpu: int, seen: Callable[[MachineEvent], bool]) -> MachineEvent:
        """Step one CPU until one of its steps made an event of that kind; other CPUs take interrupts."""
        heard = len(self.events)
        while True:
            enabled = self.machine.enabled()
            choice: Choice = Step(cpu)
            if choice not in enabled:
                choice = next(other for other in enabled if not isinstance(other, Step))
            self.machine.perform(choice, Defaults())
            for event in self.events[heard:]:
                if event is not None and event.cpu == cpu and seen(event):
                    return event
            heard = len(self.events)

    def call(self, routine: Callable[[], Routine], cpu: int = 0, answerer: Answerer | None = None) -> Any:
        """Run a routine to its end, alone, and return its result."""
        call = self.start(routine, cpu)
        self.run(answerer=answerer)
        assert call.returned, f"killed: {self.heard()[-1:]}"
        return call.value

    def optimize(self, huge: HugePage, cpu: int = 0) -> None:
        self.call(lambda: self.kernel.hvo.hugetlb_vmemmap_optimize_folio(huge.hstate, huge.folio), cpu)

    def restore(self, huge: HugePage, cpu: int = 0) -> int:
        return self.call(lambda: self.kernel.hvo.hugetlb_vmemmap_restore_folio(huge.hstate, huge.folio), cpu)

    def optimize_list(
        self, hstate: Hstate = HSTATE_2M, cpu: int = 0, answerer: Answerer | None = None
    ) -> None:
        hvo = self.kernel.hvo
        self.call(lambda: hvo.hugetlb_vmemmap_optimize_folios(hstate, VirtAddr(FOLIO_LIST)), cpu, answerer)

    def restore_list(self, hstate: Hstate = HSTATE_2M, cpu: int = 0, answerer: Answerer | None = None) -> int:
        hvo, lists = self.kernel.hvo, (VirtAddr(FOLIO_LIST), VirtAddr(NON_HVO_FOLIOS))
        return self.call(lambda: hvo.hugetlb_vmemmap_restore_folios(hstate, *lists), cpu, answerer)

    def load(self, program: Program) -> None:
        """Put a guest program where it is linked, within the 2 MiB of kernel text."""
        assert TEXT <= program.origin < TEXT + REGION
        self.machine.memory.load_image(PhysAddr(2 * MIB + program.origin - TEXT), program.code)

    def start_guest(self, program: Program, cpu: int, **registers: int) -> None:
        self.load(program)
        self.machine.start(cpu, GuestThread(program.name, VirtAddr(program.origin), registers))

    # -- what happened ---------------------------------------------------------------------------------

    def mark(self) -> None:
        """From here on only later events count."""
        self._mark = len(self.events)

    def recent(self) -> list[MachineEvent]:
        """The events since the mark."""
        return [event for event in self.events[self._mark :] if event is not None]

    def heard(self, *kinds: type[Any]) -> list[Any]:
        """What the kernel announced since the mark, of these types (all when none is given), in order."""
        payloads = [event.payload for event in self.recent() if isinstance(event, Annotated)]
        return [payload for payload in payloads if not kinds or isinstance(payload, kinds)]

    def seen(self, kind: type[_T]) -> list[_T]:
        """The machine's events of one type since the mark, in order."""
        return [event for event in self.recent() if isinstance(event, kind)]

    def number_of(self, wanted: KernelEvent) -> int:
        """The number of the first event since the mark with that payload."""
        numbered = enumerate(self.events[self._mark :], self._mark)
        return next(n for n, event in numbered if isinstance(event, Annotated) and event.payload == wanted)

    def invalidations(self, cpu: int) -> list[Invalidation]:
        return [event.what for event in self.seen(Invalidated) if event.cpu == cpu]

    # -- memory, as it is ------------------------------------------------------------------------------

    def word(self, pa: int) -> int:
        return int.from_bytes(self.machine.memory.read(PhysAddr(pa), 8), "little")

    def table(self, pfn: int) -> tuple[int, ...]:
        """The 512 entries of a page-table page."""
        return struct.unpack("<512Q", self.machine.memory.read_frame(Pfn(pfn)))

    def directory(self, va: int) -> tuple[int, ...]:
        """The page directory that an address's 2 MiB belong to."""
        entries = self.table(self.machine.cpus[0].mmu.root)
        for shift in (39, 30):
            entries = self.table(pfn_of(entries[va >> shift & 511]))
        return entries

    def pmd_address(self, va: int) -> int:
        """Where the PMD entry for a vmemmap address lies in physical memory."""
        top = self.table(self.machine.cpus[0].mmu.root)[va >> 39 & 511]
        directory = pfn_of(self.table(pfn_of(top))[va >> 30 & 511])
        return directory * PAGE + (va >> 21 & 511) * 8

    def vmemmap(self) -> dict[int, Leaf]:
        """Every leaf of the vmemmap page tables, by address."""
        leaves = {}
        for number, pmd in enumerate(self.directory(VMEMMAP)):
            va = VMEMMAP + number * REGION
            if not pmd & 1:
                continue
            if pmd >> 7 & 1:
                leaves[va] = Leaf(2, pfn_of(pmd), flags_of(pmd))
                continue
            assert flags_of(pmd) == TABLE
            for index, pte in enumerate(self.table(pfn_of(pmd))):
                if pte & 1:
                    leaves[va + index * PAGE] = Leaf(1, pfn_of(pte), flags_of(pte))
        return leaves

    def tables(self) -> dict[int, int]:
        """The page-table page of each 2 MiB of vmemmap that is split."""
        pmds = enumerate(self.directory(VMEMMAP))
        return {VMEMMAP + n * REGION: pfn_of(pmd) for n, pmd in pmds if pmd & 1 and not pmd >> 7 & 1}

    def leaf(self, va: int) -> Leaf:
        leaves = self.vmemmap()
        return leaves.get(va & ~(PAGE - 1)) or leaves[region_of(va)]

    def frame(self, va: int) -> int:
        """The 4 KiB frame behind a vmemmap address."""
        pmd = self.directory(va)[va >> 21 & 511]
        if pmd >> 7 & 1:
            return pfn_of(pmd) + (va >> 12 & 511)
        return pfn_of(self.table(pfn_of(pmd))[va >> 12 & 511])

    def mapping(self, huge: HugePage) -> list[tuple[int, str]]:
        """Frame and flags of each of a folio's vmemmap pages, as a PTE has them, split or not."""
        leaves = self.vmemmap()
        found = []
        for va in pages_of(huge):
            whole = leaves.get(region_of(va))
            if whole is not None and whole.level == 2:
                found.append((whole.pfn + (va - region_of(va)) // PAGE, whole.flags.removesuffix(" PSE")))
            else:
                found.append((leaves[va].pfn, leaves[va].flags))
        return found

    def frames_of(self, huge: HugePage) -> list[int]:
        return [pfn for pfn, _ in self.mapping(huge)]

    def contents(self, pfn: int) -> bytes:
        return self.machine.memory.read_frame(Pfn(pfn))

    def physical(self, va: int) -> int:
        """Where a vmemmap or direct-map address lies."""
        if va >= VMEMMAP:
            return self.frame(va) * PAGE + va % PAGE
        return va - DIRECT_MAP

    def bytes_at(self, va: int, length: int) -> bytes:
        return self.machine.memory.read(PhysAddr(self.physical(va)), length)

    def write(self, va: int, data: bytes) -> None:
        """Change memory behind everybody's back."""
        self.machine.memory.load_image(PhysAddr(self.physical(va)), data)

    def word_at(self, va: int) -> int:
        return self.word(self.physical(va))

    def struct_page(self, pfn: int) -> StructPage:
        return StructPage.parse(self.bytes_at(VMEMMAP + pfn * STRUCT, STRUCT))

    def write_struct(self, pfn: int, page: StructPage) -> None:
        """Change a struct page behind everybody's back."""
        self.write(self.page(pfn), page.pack())

    @staticmethod
    def page(pfn: int) -> VirtAddr:
        """pfn_to_page()"""
        return VirtAddr(VMEMMAP + pfn * STRUCT)

    def linked(self, head: int) -> list[int]:
        """The struct pages on a list in memory, followed forwards, and backwards to check."""
        ahead, behind = self._follow(head, 0), self._follow(head, 8)
        assert ahead == behind[::-1]
        return [entry - 8 for entry in ahead]

    def _follow(self, head: int, offset: int) -> list[int]:
        entries = []
        entry = self.word_at(head + offset)
        while entry != head:
            assert len(entries) < 1000
            entries.append(entry)
            entry = self.word_at(entry + offset)
        return entries

    # -- the whole -------------------------------------------------------------------------------------

    def counters(self) -> dict[str, int]:
        return {name: self.machine.count(name) for name in ("nr_memmap_pages", "nr_memmap_boot_pages")}

    def key(self) -> int:
        return self.word_at(KEY)

    def optimized(self, huge: HugePage) -> bool:
        return bool(self.word_at(huge.folio + 40) & OPTIMIZED)

    def state(self) -> State:
        return State(
            self.vmemmap(),
            self.tables(),
            self.counters(),
            self.key(),
            self.kernel.pages.free_frames(),
            self.linked(FOLIO_LIST),
            self.linked(NON_HVO_FOLIOS),
            tuple(self.optimized(huge) for huge in self.config.huge_pages),
        )

    def check_conservation(self) -> None:
        """What holds whenever no operation of HVO is under way."""
        leaves, tables = self.vmemmap(), self.tables()
        backing = set(frames(leaves))
        assert len(backing) == sum(self.counters().values())
        lost = len(backing) + len(tables)
        had = len(set(frames(self.initial)))
        first_free = boot_free_frames(self.config)
        assert self.kernel.pages.free_frames() == first_free + had - lost
        held = (*backing, *tables.values())
        assert [hex(pfn) for pfn in held if self.kernel.pages.is_free(pfn)] == []
        for huge in self.config.huge_pages:
            flags = [flags for _, flags in self.mapping(huge)]
            distinct = len(set(self.frames_of(huge)))
            if self.optimized(huge):
                assert (flags, distinct) == ([RW] + [RO] * (len(flags) - 1), 1)
            else:
                assert (set(flags), distinct) == ({RW}, len(flags))
        assert self.key() == sum(self.optimized(huge) for huge in self.config.huge_pages)


def boot_free_frames(config: BootConfig) -> int:
    """All frames but the kernel's 8 MiB, the huge pages, and the blocks behind vmemmap."""
    sections = -(-config.memory_bytes // SECTION)
    huge = sum(h.hstate.pages_per_huge_page for h in config.huge_pages)
    return config.memory_bytes // PAGE - 8 * MIB // PAGE - huge - sections * 512


class State(NamedTuple):
    """Everything HVO may change, but for contents of frames and struct pages of free frames."""

    leaves: dict[int, Leaf]
    tables: dict[int, int]
    counters: dict[str, int]
    key: int
    free_frames: int
    folio_list: list[int]
    non_hvo: list[int]
    optimized: tuple[bool, ...]


# --- usual machines ---------------------------------------------------------------------------------------


def huge_2m(pfn: int = 0x4000) -> HugePage:
    return HugePage(Pfn(pfn), HSTATE_2M)


def lab_2m(*pfns: int, ram: int = SECTION, cpus: int = 2, **options: Any) -> Lab:
    """A machine with 2 MiB huge pages at these frames, linked on FOLIO_LIST in that order."""
    pages = tuple(huge_2m(pfn) for pfn in pfns or (0x4000,))
    return Lab(BootConfig(ram, cpus, pages, **options))


def lab_of_order(order: int, cpus: int = 2, **options: Any) -> Lab:
    """A machine with one huge page of 2**order base pages; from order 15 on it fills its vmemmap PMDs."""
    hstate = HSTATE_1G if order == 18 else Hstate(f"order {order}", order)
    pages = hstate.pages_per_huge_page
    first = max(pages, 0x4000)
    ram = -(-(first + pages) * PAGE // SECTION) * SECTION + SECTION
    keep = (Annotated, Invalidated) if order >= 16 else ()
    return Lab(BootConfig(ram, cpus, (HugePage(Pfn(first), hstate),), **options), keep)


def fixture(name: str) -> Any:
    """A file of the real kernel's that is not a dump."""
    with gzip_open(FIXTURES / f"{name}.json.gz", "rt", encoding="ascii") as file:
        return json.load(file)
