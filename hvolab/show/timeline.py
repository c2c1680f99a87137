"""The story of a run: its significant events, one line each, by CPU.

Kernel routines make hundreds of steps; what matters here is who changed which translation when, who flushed,
who read or wrote a struct page and through what, and what was freed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import assert_never

from emu.addr import PAGE_BYTES, PAGE_SHIFT, VirtAddr, page_start
from emu.events import (
    Annotated,
    Copied,
    Faulted,
    Finished,
    GuestSite,
    Invalidated,
    IpiTaken,
    Loaded,
    MachineEvent,
    RoutineSite,
    Source,
    Started,
    Stored,
)
from emu.machine import Machine
from emu.paging.pte import Pte
from emu.paging.tlb import (
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
    GracePeriodBegun,
    GracePeriodEnded,
    Oops,
    OperationReturned,
    PageFreed,
    SpuriousFault,
)
from kernel_model.layout import HUGETLB_OPTIMIZE_VMEMMAP_KEY, PTRS_PER_PTE, VMEMMAP_START
from kernel_model.mm.image import HugePage

_TABLE_STORES = frozenset({"set_pte_at", "pmd_populate_kernel"})


@dataclass(frozen=True, slots=True)
class Line:
    """One line: `count` events of one kind that followed each other on one CPU, first at event `number`."""

    number: int
    cpu: int
    kind: str
    text: str
    last: str
    count: int = 1

    def __str__(self) -> str:
        return self.text if self.count == 1 else f"{self.text} ... {self.last} ({self.count} times)"


class Timeline:
    """A listener that keeps the significant events of a run about one huge page."""

    def __init__(self, system: System) -> None:
        self.lines: list[Line] = []
        self._machine: Machine = system.machine
        self._huge: HugePage = system.config.huge_pages[0]
        self._original = self._frames()

    def __call__(self, number: int, event: MachineEvent) -> None:
        told = self._tell(event)
        if told is None:
            return
        kind, text = told
        if self.lines and kind and (self.lines[-1].cpu, self.lines[-1].kind) == (event.cpu, kind):
            self.lines[-1] = replace(self.lines[-1], last=_short(text), count=self.lines[-1].count + 1)
        else:
            self.lines.append(Line(number, event.cpu, kind, text, text))

    def _tell(self, event: MachineEvent) -> tuple[str, str] | None:
        """The kind (lines of one kind are merged; empty = never) and the text; None = not significant."""
        match event:
            case Stored(site=RoutineSite(functions=functions)) if functions[-1] in _TABLE_STORES:
                return self._table_store(event)
            case Stored(va=va, old=old, value=value) if va == HUGETLB_OPTIMIZE_VMEMMAP_KEY:
                return "", f"hugetlb_optimize_vmemmap_key {old} -> {value}"
            case (
                Loaded(site=GuestSite(instruction=instruction))
                | Stored(site=GuestSite(instruction=instruction))
            ) if event.va >= VMEMMAP_START and self._name(event.va):
                return "", self._guest_access(event, instruction)
            case Copied(source_va=va, to_pa=to) if va == self._huge.folio:
                return "", f"copy_page: head page -> pfn {to >> PAGE_SHIFT:#x}"
            case Faulted(fault=fault):
                return "", f"#PF error code {int(fault.code)} at {fault.va:#x}"
            case IpiTaken():
                return "ipi", "takes an IPI"
            case Invalidated(what=what):
                return "", _invalidation(what)
            case Started(name=name):
                return "", f"[{name} starts]"
            case Finished(name=name, killed=killed):
                return "", f"[{name} {'is killed' if killed else 'ends'}]"
            case Annotated(payload=payload):
                return self._announcement(payload)
            case _:
                return None  # too small to be told: one of hundreds

    def _announcement(self, payload: object) -> tuple[str, str] | None:
        match payload:
            case FlushBegun(function=function, start=start, end=end):
                pages = "" if end - start >= 1 << 63 else f", {(end - start) // PAGE_BYTES} pages"
                return "", f"{function} begins{pages}"
            case FlushCompleted():
                return "", "the flush is complete"
            case GracePeriodBegun():
                return "", "synchronize_rcu begins"
            case GracePeriodEnded():
                return "", "the grace period is over"
            case OperationReturned(function=function, result=result):
                return "", f"{function} returns{'' if result is None else f' {result}'}"
            case PageFreed(pfn=pfn) if pfn in self._original:
                return "free", f"frees pfn {pfn:#x}, {self._original[pfn]} until now"
            case SpuriousFault():
                return "", "the handler's walk permits it: spurious, retry"
            case Oops():
                return "", "the handler's walk does not permit it: Oops"
            case _:
                return None  # no part of this story

    def _table_store(self, event: Stored) -> tuple[str, str] | None:
        entry = Pte(event.value)
        functions = event.site.functions if isinstance(event.site, RoutineSite) else ()
        if functions[-1] == "pmd_populate_kernel":
            return "split", f"splits a PMD: page table in pfn {entry.pfn:#x}"
        page = self._page_of_pte(event)
        if page is None:
            return None
        rights = "rw" if entry.writable else "ro"
        kind = f"set_pte {rights} {entry.pfn if rights == 'ro' else functions[-2]}"
        if page == self._huge.folio:
            kind = ""
        return kind, f"set_pte_at({self._name(page)}) = pfn {entry.pfn:#x} {rights}"

    def _guest_access(self, event: Loaded | Stored, instruction: str) -> str:
        where = f"{self._name(event.va)} + {event.va & (PAGE_BYTES - 1):#x}"
        verb = "reads" if isinstance(event, Loaded) else "writes"
        frame = event.entry.frame_of(event.va)
        through = "its TLB" if event.source is Source.HIT else "a walk"
        frames = f"pfn {frame:#x} by {through}{self._stale(event)}"
        return f"{instruction}: {verb} {event.value:#x} at {where}, {frames}"

    def _stale(self, event: Loaded | Stored) -> str:
        now = self._machine.cpus[event.cpu].mmu.peek(event.va)
        current = now.pa >> PAGE_SHIFT if isinstance(now, Walk) else None
        return "" if current == event.entry.frame_of(event.va) else " (STALE)"

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


def _short(text: str) -> str:
    """What a merged line says of its last event: the part that differs."""
    return text.split(" = ")[0].split(",")[0].removeprefix("set_pte_at").removeprefix("frees ").strip("()")


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
