"""The story of a run: its significant events, one line each, by CPU.

Kernel routines make hundreds of steps; what matters here is who changed which translation when, who flushed,
who read or wrote a struct page and through what, and what was freed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import groupby
from typing import NamedTuple, assert_never

from emu.addr import PAGE_BYTES, PAGE_SHIFT, PhysAddr, VirtAddr, page_start
from emu.events import (
    Annotated,
    BroadcastCompleted,
    BroadcastSent,
    Copied,
    Faulted,
    Finished,
    GuestSite,
    Invalidated,
    IpiTaken,
    Loaded,
    MachineEvent,
    RoutineSite,
    Site,
    Source,
    Started,
    Stored,
    TickTaken,
)
from emu.machine import Machine
from emu.paging.pte import Pte
from emu.paging.tlb import (
    Broadcast,
    FaultedAt,
    InvalidateAll,
    InvalidateNonGlobal,
    Invalidation,
    Invlpg,
    InvpcidAddress,
    InvpcidContext,
    NewRoot,
)
from emu.paging.walk import Walk
from kernel_model.boot import System
from kernel_model.core.events import (
    FlushBegun,
    FlushCompleted,
    FlushesSettled,
    GracePeriodBegun,
    GracePeriodEnded,
    Oops,
    OperationReturned,
    PageFreed,
    SpuriousFault,
)
from kernel_model.layout import HUGETLB_OPTIMIZE_VMEMMAP_KEY, PMD_SIZE, PTRS_PER_PTE, VMEMMAP_START
from kernel_model.mm.hstate import hugetlb_vmemmap_size
from kernel_model.mm.image import HugePage
from kernel_model.mm.pgtable import pmd_leaf


class Tone(Enum):
    """How a line is to be read."""

    PLAIN = "one step of many"
    ALARM = "this is what it is about: a stale use, an Oops"


class _Said(NamedTuple):
    """What an event is worth saying. Lines of one `kind` are merged, unless it is empty;
    `short` is what is then said of the last."""

    text: str
    kind: str = ""
    short: str = ""
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True, slots=True)
class Line:
    """One line: `count` events of one kind that followed each other on one CPU, first at event `number`."""

    number: int
    cpu: int
    kind: str
    text: str
    last: str
    count: int = 1
    tone: Tone = Tone.PLAIN

    def __str__(self) -> str:
        return self.text if self.count == 1 else f"{self.text} ... {self.last} ({self.count} times)"


@dataclass(frozen=True, slots=True)
class Row:
    """A line as it is shown: in the column of its CPU, or, without one, in that of all who only look on."""

    number: int
    cpu: int | None
    text: str
    tone: Tone = Tone.PLAIN


def folded(lines: Sequence[Line], actors: Collection[int]) -> list[Row]:
    """Rows for the CPUs that run something, and for the others one wherever they follow each other."""
    rows: list[Row] = []
    for looks_on, group in groupby(lines, key=lambda line: line.cpu not in actors):
        if not looks_on:
            rows += [Row(line.number, line.cpu, str(line), line.tone) for line in group]
            continue
        together = list(group)
        cpus = sorted({line.cpu for line in together})
        texts = dict.fromkeys(str(line) for line in together)
        alarm = any(line.tone is Tone.ALARM for line in together)
        text = f"{_named(cpus)}: {'; '.join(texts)}"
        rows.append(Row(together[0].number, None, text, Tone.ALARM if alarm else Tone.PLAIN))
    return rows


def _named(cpus: list[int]) -> str:
    if len(cpus) > 2 and cpus == list(range(cpus[0], cpus[-1] + 1)):
        return f"cpu{cpus[0]} to cpu{cpus[-1]}"
    return ", ".join(f"cpu{cpu}" for cpu in cpus)


class Timeline:
    """A listener that keeps the significant events of a run about one huge page.

    `actors`: the CPUs on which something was started.
    """

    def __init__(self, system: System) -> None:
        self.lines: list[Line] = []
        self.actors: set[int] = set()
        self._machine: Machine = system.machine
        self._huge: HugePage = system.config.huge_pages[0]
        self._pmds = tuple(
            VirtAddr(huge.folio + offset)
            for huge in system.config.huge_pages
            for offset in range(0, hugetlb_vmemmap_size(huge.hstate), PMD_SIZE)
        )
        self._original = self._frames()

    def __call__(self, number: int, event: MachineEvent) -> None:
        told = self._tell(event)
        if told is None:
            return
        if self.lines and told.kind and (self.lines[-1].cpu, self.lines[-1].kind) == (event.cpu, told.kind):
            self.lines[-1] = replace(self.lines[-1], last=told.short, count=self.lines[-1].count + 1)
        else:
            self.lines.append(Line(number, event.cpu, told.kind, told.text, told.short, tone=told.tone))

    def _tell(self, event: MachineEvent) -> _Said | None:
        """None: not significant."""
        match event:
            case Stored(site=RoutineSite(), size=8) if (entry := self._table_store(event)) is not None:
                return entry
            case Stored(va=va, old=old, value=value) if va == HUGETLB_OPTIMIZE_VMEMMAP_KEY:
                return _Said(f"hugetlb_optimize_vmemmap_key {old} -> {value}")
            case (
                Loaded(site=GuestSite(instruction=instruction))
                | Stored(site=GuestSite(instruction=instruction))
            ) if event.va >= VMEMMAP_START and self._name(event.va):
                return self._guest_access(event, instruction)
            case Copied(source_va=va, to_pa=to) if va == self._huge.folio:
                return _Said(f"copy_page: head page -> pfn {to >> PAGE_SHIFT:#x}")
            case Faulted(fault=fault):
                return _Said(f"#PF error code {int(fault.code)} at {fault.va:#x}")
            case IpiTaken():
                return _Said("takes an IPI", "ipi", "takes an IPI")
            case TickTaken():
                return _Said("a tick of its timer")
            case Invalidated(what=what):
                return _Said(_invalidation(what))
            case BroadcastSent(what=what):
                return _Said(_broadcast(what), "invlpgb", _broadcast(what))
            case BroadcastCompleted():
                return _Said("TLBSYNC: all CPUs have")
            case Started(cpu=cpu, name=name):
                self.actors.add(cpu)
                return _Said(f"[{name} starts]")
            case Finished(name=name, killed=killed):
                return _Said(f"[{name} {'is killed' if killed else 'ends'}]")
            case Annotated(payload=payload):
                return self._announcement(payload)
            case _:
                return None  # too small to be told: one of hundreds

    def _announcement(self, payload: object) -> _Said | None:
        match payload:
            case FlushBegun(function=function, start=start, end=end):
                pages = "" if end - start >= 1 << 63 else f", {(end - start) // PAGE_BYTES} pages"
                return _Said(f"{function} begins{pages}")
            case FlushesSettled(generation=generation):
                return _Said(f"flushes of generation {generation} and before are complete")
            case FlushCompleted():
                return _Said("the flush is complete")
            case GracePeriodBegun():
                return _Said("synchronize_rcu begins")
            case GracePeriodEnded():
                return _Said("the grace period is over")
            case OperationReturned(function=function, result=result):
                return _Said(f"{function} returns{'' if result is None else f' {result}'}")
            case PageFreed(pfn=pfn) if pfn in self._original:
                frees = f"frees pfn {pfn:#x}, {self._original[pfn]} until now"
                return _Said(frees, "free", f"pfn {pfn:#x}")
            case SpuriousFault():
                return _Said("the handler's walk permits it: spurious, retry")
            case Oops():
                return _Said("the handler's walk does not permit it: Oops", tone=Tone.ALARM)
            case _:
                return None  # no part of this story

    def _table_store(self, event: Stored) -> _Said | None:
        """None for a store to anything but an entry that leads to the vmemmap of a huge page."""
        entry = Pte(event.value)
        if pmd_leaf(Pte(event.old)) and not pmd_leaf(entry) and self._is_pmd(event.pa):
            return _Said(f"splits a PMD: page table in pfn {entry.pfn:#x}", "split", f"pfn {entry.pfn:#x}")
        page = self._page_of_pte(event)
        if page is None:
            return None
        rights = "rw" if entry.writable else "ro"
        text = f"{event.site}({self._name(page)}) = pfn {entry.pfn:#x} {rights}"
        if page == self._huge.folio:
            return _Said(text)
        # Tails made read-only belong together by their frame, those made writable by who does it.
        who = entry.pfn if rights == "ro" else _caller(event.site)
        return _Said(text, f"set_pte {rights} {who}", self._name(page))

    def _is_pmd(self, pa: PhysAddr) -> bool:
        """Whether the PMD of some huge page's vmemmap lies there."""
        found = (self._machine.cpus[0].mmu.peek(va) for va in self._pmds)
        return any(
            step.level == 2 and step.pa == pa for at in found if isinstance(at, Walk) for step in at.steps
        )

    def _guest_access(self, event: Loaded | Stored, instruction: str) -> _Said:
        where = f"{self._name(event.va)} + {event.va & (PAGE_BYTES - 1):#x}"
        verb = "reads" if isinstance(event, Loaded) else "writes"
        frame = event.entry.frame_of(event.va)
        through = "its TLB" if event.source is Source.HIT else "a walk"
        text = f"{instruction}: {verb} {event.value:#x} at {where}, pfn {frame:#x} by {through}"
        now = self._machine.cpus[event.cpu].mmu.peek(event.va)
        current = now.pa >> PAGE_SHIFT if isinstance(now, Walk) else None
        return _Said(text) if current == frame else _Said(f"{text} (STALE)", tone=Tone.ALARM)

    def _page_of_pte(self, event: Stored) -> VirtAddr | None:
        """The page of the huge page's vmemmap whose PTE this store wrote."""
        found = self._machine.cpus[0].mmu.peek(self._huge.folio)
        if not isinstance(found, Walk) or found.steps[-1].level != 1:
            return None
        index = (event.pa - found.steps[-1].pa) // 8
        first = (self._huge.folio >> PAGE_SHIFT) % PTRS_PER_PTE
        if not 0 <= first + index < PTRS_PER_PTE:
            return None
        page = VirtAddr(self._huge.folio + index * PAGE_BYTES)
        return page if self._name(page) else None

    def _name(self, va: VirtAddr) -> str:
        """The vmemmap page of the huge page that holds `va`; empty when none does."""
        index = (page_start(va) - self._huge.folio) // PAGE_BYTES
        if not 0 <= index < self._huge.hstate.pages_per_huge_page * 64 // PAGE_BYTES:
            return ""
        return "head page" if index == 0 else f"tail page {index}"

    def _frames(self) -> dict[int, str]:
        """The frames that back the huge page's vmemmap at the start, with the names of the pages."""
        frames = {}
        for index in range(self._huge.hstate.pages_per_huge_page * 64 // PAGE_BYTES):
            page = VirtAddr(self._huge.folio + index * PAGE_BYTES)
            found = self._machine.cpus[0].mmu.peek(page)
            if isinstance(found, Walk):
                frames[found.pa >> PAGE_SHIFT] = self._name(page)
        return frames


def _caller(site: Site) -> str:
    """The function that called the one that made the store."""
    return "".join(site.functions[-2:-1]) if isinstance(site, RoutineSite) else ""


def _broadcast(what: Broadcast) -> str:
    match what:
        case Invlpg(va=va, pages=pages):
            return f"INVLPGB {va:#x}" if pages == 1 else f"INVLPGB x {pages} from {va:#x}"
        case InvalidateAll():
            return "INVLPGB of everything"
        case _:
            assert_never(what)


def _invalidation(what: Invalidation) -> str:
    match what:
        case Invlpg(va=va, pages=pages):
            return f"INVLPG {va:#x}" if pages == 1 else f"INVLPG x {pages} from {va:#x}"
        case InvalidateAll():
            return "flushes its whole TLB"
        case FaultedAt(va=va):
            return f"drops its entries for {va:#x} (page fault)"
        case InvpcidAddress() | InvpcidContext() | InvalidateNonGlobal() | NewRoot():
            return str(what)
        case _:
            assert_never(what)
