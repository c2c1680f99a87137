"""What Sight keeps of a run's events: endings, requests, frames, mappings, operations.

Told every event before judges are. What an event changes here is told to the watcher: an allocation writes
the owner of a frame, a flush request is begun for pages, an operation returns.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from emu.addr import PAGE_SHIFT, PhysAddr, VirtAddr
from emu.events import (
    Annotated,
    BroadcastCompleted,
    BroadcastSent,
    Copied,
    Filled,
    Invalidated,
    MachineEvent,
    Stored,
    TlbFilled,
)
from emu.kept import Kept
from emu.machine import Machine
from hvolab.judge.sight.cells import Watching
from hvolab.judge.sight.endings import Endings
from hvolab.judge.sight.frames import Frames
from hvolab.judge.sight.mappings import AddressRange, Mappings
from hvolab.judge.sight.operations import Operation, Operations
from hvolab.judge.sight.requests import Requests
from hvolab.judge.sight.resource import Kind, Resource
from kernel_model.core.events import (
    ActionResult,
    AllocationFailed,
    BadPage,
    FlushBegun,
    FlushCompleted,
    FlushesSettled,
    GracePeriodBegun,
    GracePeriodEnded,
    KernelBug,
    KernelEvent,
    KernelWarning,
    MemoryFailed,
    Oops,
    OperationBegun,
    OperationReturned,
    PageAllocated,
    PageFreed,
    SpuriousFault,
)
from kernel_model.layout import STRUCT_PAGE_SIZE, pfn_to_page
from kernel_model.mm.hstate import HSTATE_2M, Hstate, hugetlb_vmemmap_size
from kernel_model.mm.image import HugePage


def announced(event: Annotated) -> KernelEvent:
    """What the kernel put into the trace. Raises TypeError for what is no event of its."""
    if not isinstance(event.payload, KernelEvent):
        raise TypeError(f"the kernel announced {event.payload!r}, which is no event of its")
    return event.payload


class Remembered(Kept):
    """Of one run on a machine at time zero."""

    kept = ("changed_by",)
    parts = ("endings", "requests", "frames", "operations", "mappings")

    def __init__(
        self,
        machine: Machine,
        ranges: Iterable[AddressRange],
        huge_pages: Iterable[HugePage],
        watching: Watching,
    ) -> None:
        mmu = machine.cpus[0].mmu
        self.endings = Endings(machine.memory)
        self.requests = Requests(mmu.model.promised)
        self.frames = Frames()
        self.operations = Operations()
        holders = [_struct_pages(huge) for huge in huge_pages]
        self.mappings = Mappings(machine.memory, mmu.root, ranges, holders)
        self.changed_by: dict[int, set[int]] = {}  # operation, by its begin -> pages it has remapped
        self._journal = machine.memory.journal
        self._cpus = len(machine.cpus)
        self._watching = watching

    def observe(self, number: int, event: MachineEvent) -> None:
        match event:
            case Stored(pa=pa) | Copied(to_pa=pa) | Filled(pa=pa):
                self.stored_somewhere(number, event)
                self._remapped(number, event.cpu, pa)
            case Invalidated():
                self.requests.invalidated(number, self._journal.now, event)
            case BroadcastSent():
                self.requests.broadcast(number, self._journal.now)
            case BroadcastCompleted():
                self.requests.carried_out(number, event, self._cpus)
            case TlbFilled(entry=entry):
                self.endings.filled(entry)
            case Annotated():
                self._announced(number, event.cpu, announced(event))
            case _:
                pass  # of what else a machine does nothing needs to be remembered

    def stored_somewhere(self, number: int, event: Stored | Copied | Filled) -> None:
        """Told alone of a store that is known not to be one to a page table."""
        match event:
            case Stored():
                self.endings.stored(number, event, self.operations.current(event.cpu))
            case Copied(to_pa=pa) | Filled(pa=pa):
                self.endings.bulk(pa)
            case _:
                assert_never(event)

    def _remapped(self, number: int, cpu: int, pa: PhysAddr) -> None:
        """The latest store may have been one to a page table."""
        before = next(self._journal.since(self._journal.now - 1))
        watcher = self._watching.watcher
        for one in self.mappings.stored(pa, before.old):
            watcher.writes(Resource(Kind.MAPPED, one.pfn))
            if one.changed_hands:
                self.frames.reused(one.pfn, self._journal.now, number)
                watcher.writes(Resource(Kind.LOST, one.pfn))
                watcher.lost(one.pfn)
        operation = self.operations.current(cpu)
        if self.mappings.latest and operation is not None:
            self.changed_by.setdefault(operation, set()).update(self.mappings.latest)

    def _announced(self, number: int, cpu: int, payload: KernelEvent) -> None:
        watcher = self._watching.watcher
        match payload:
            case PageAllocated(pfn=pfn, order=order):
                frames = range(pfn, pfn + (1 << order))
                self.frames.allocated(frames)
                self._owner(frames)
                if order >= HSTATE_2M.order:
                    self.mappings.add_holder(*_struct_pages(HugePage(pfn, Hstate("", order))))
            case PageFreed(pfn=pfn, order=order):
                frames = range(pfn, pfn + (1 << order))
                self.frames.freed(frames, self._journal.now, number)
                self._owner(frames)
                for frame in frames:
                    watcher.writes(Resource(Kind.LOST, frame))
                    watcher.lost(frame)
                for frame in frames if order == 0 else ():
                    self.mappings.freed(frame)
            case FlushBegun(start=start, end=end):
                self.requests.begun(number, cpu, payload)
                watcher.flush_begun(start, end)
            case FlushCompleted():
                request = self.requests.completed(number, payload)
                watcher.flush_completed(request.what.start, request.what.end)
            case FlushesSettled(generation=generation):
                for request in self.requests.settled(number, generation):
                    watcher.flush_completed(request.what.start, request.what.end)
            case OperationBegun(folios=folios):
                self.operations.begun(number, cpu, payload)
                for folio in folios:
                    watcher.writes(held_resource(folio))
            case OperationReturned():
                operation = self.operations.returned(number, payload)
                watcher.writes(operation_resource(operation))
                for folio in operation.folios:
                    watcher.writes(held_resource(folio))
            case (
                AllocationFailed()
                | ActionResult()
                | GracePeriodBegun()
                | GracePeriodEnded()
                | SpuriousFault()
                | Oops()
                | KernelBug()
                | KernelWarning()
                | BadPage()
                | MemoryFailed()
            ):
                pass  # told to judges; nothing asked later depends on it
            case _:
                assert_never(payload)

    def _owner(self, frames: range) -> None:
        watcher = self._watching.watcher
        for frame in frames:
            watcher.writes(Resource(Kind.OWNER, frame))


def operation_resource(operation: Operation) -> Resource:
    """Whether that operation has returned."""
    return Resource(Kind.OPERATION, operation.cpu, operation.nth)


def held_resource(folio: VirtAddr) -> Resource:
    """Which operations hold that folio, a head struct page."""
    return Resource(Kind.HELD, folio // STRUCT_PAGE_SIZE)


def _struct_pages(huge: HugePage) -> tuple[int, int]:
    """(first page, end) of its struct pages in vmemmap, by number."""
    first = pfn_to_page(huge.pfn)
    return first >> PAGE_SHIFT, (first + hugetlb_vmemmap_size(huge.hstate) + 4095) >> PAGE_SHIFT
