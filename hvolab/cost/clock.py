"""A clock for each CPU: what a run would have taken, by a cost table.

CPUs work side by side. They wait for each other where an interrupt is taken, which is not before it was sent,
and where a CPU waits for answers, which is until the last. A routine that only polls waits for nothing here.
A tick comes anyway: what its handler does counts, not the interrupt itself, nor how long it takes to come.
"""

from __future__ import annotations

from dataclasses import dataclass

from emu.cpu.apic import LOCAL_TIMER_VECTOR
from emu.cpu.condition import Acknowledged
from emu.cpu.cpu import RoutineContext
from emu.cpu.ops import Await
from emu.events import (
    Annotated,
    BroadcastCompleted,
    BroadcastSent,
    Copied,
    Executed,
    Filled,
    Invalidated,
    IpiAcknowledged,
    IpiSent,
    IpiTaken,
    Loaded,
    LoadedBytes,
    MachineEvent,
    Stored,
    TickNeeded,
    TlbFilled,
)
from emu.machine import Machine
from emu.mmu import Mmu
from emu.paging.tlb import FaultedAt, InvalidateAll, Invalidation, Invlpg, TlbEntry, removes
from emu.paging.walk import Walk
from hvolab.subject.costs import CostTable
from kernel_model.core.events import FlushBegun, FlushCompleted, OperationBegun
from kernel_model.core.smp import StandStill, SyncCore

_LINE = 64  # bytes that one access moves


def _still_right(entry: TlbEntry, mmu: Mmu) -> bool:
    """Whether a walk finds the same."""
    found = mmu.peek(entry.page)
    return isinstance(found, Walk) and (found.pfn, found.rights) == (entry.pfn, entry.rights)


@dataclass(frozen=True, slots=True)
class Reckoned:
    """Cycles, but for the last three: counts.

    `flushing`: of the CPUs that flush, from the begin of each request until it is relied on, or from where
    they stop the others until these go on. `interrupted`:
    of all others, in handlers of flushes. `refilling`: of all, in walks since an operation began. `elapsed`:
    on the CPU that had most to do. `interrupts`: those of flushes. `invalidated`: entries that TLBs lost, of
    these `needlessly` those that still were what the page tables say.
    """

    flushing: int
    interrupted: int
    refilling: int
    elapsed: int
    interrupts: int
    invalidated: int
    needlessly: int

    @property
    def total(self) -> int:
        """Of all CPUs, for the sake of flushes."""
        return self.flushing + self.interrupted + self.refilling


class Clock:
    """Listens to one run of a machine."""

    def __init__(self, machine: Machine, table: CostTable) -> None:
        self._machine = machine
        self._table = table
        self._at = [0] * len(machine.cpus)
        self._operating = False  # the kernel has begun to change page tables
        self._begun: dict[int, int] = {}  # by request of the kernel: when
        self._issued: dict[int, int] = {}  # by CPU: since when it issues what is done at ticks
        self._ticking = f"interrupt {LOCAL_TIMER_VECTOR:#x}"
        self._sent: dict[int, IpiSent] = {}
        self._sent_at: dict[int, int] = {}
        self._silent: dict[int, int] = {}  # by request of interrupts: how many have not answered
        self._stopping: dict[int, tuple[int, int]] = {}  # by CPU that stops others: its request, since when
        self._taken = [0] * len(machine.cpus)
        self._held: list[dict[TlbEntry, None]] = [{} for _ in machine.cpus]
        self._flushing = self._interrupted = self._refilling = 0
        self._interrupts = self._invalidated = self._needlessly = 0

    @property
    def reckoned(self) -> Reckoned:
        """So far."""
        return Reckoned(
            self._flushing,
            self._interrupted,
            self._refilling,
            max(self._at),
            self._interrupts,
            self._invalidated,
            self._needlessly,
        )

    def observe(self, number: int, event: MachineEvent) -> None:
        before = self._at[event.cpu]
        self._reckon(number, event)
        if self._ticking in self._contexts_of(event.cpu) and not isinstance(event, TlbFilled):
            self._interrupted += self._at[event.cpu] - before

    def _contexts_of(self, cpu: int) -> list[str]:
        return [context.name for context in self._machine.cpus[cpu].contexts]

    def _reckon(self, number: int, event: MachineEvent) -> None:
        table, cpu = self._table, event.cpu
        match event:
            case Loaded() | Stored() | Executed():
                self._at[cpu] += table.access
            case Copied(length=length) | LoadedBytes(length=length) | Filled(length=length):
                self._at[cpu] += table.access * -(-length // _LINE)
            case TlbFilled(entry=entry):
                self._at[cpu] += table.walk
                self._refilling += table.walk if self._operating else 0
                self._held[cpu][entry] = None
            case Invalidated(what=what):
                self._at[cpu] += self._price(what)
                self._removed(cpu, what)
            case BroadcastSent():
                self._at[cpu] += table.broadcast
            case BroadcastCompleted(what=several):
                self._at[cpu] += table.tlbsync
                for one in several:
                    for other in range(len(self._at)):
                        self._removed(other, one)
            case IpiSent(request=request, targets=targets):
                if isinstance(event.payload, StandStill):
                    self._stopping[cpu] = (request, self._at[cpu])
                self._at[cpu] += table.ipi_target * len(targets)
                self._sent[request], self._sent_at[request] = event, self._at[cpu]
                self._silent[request] = len(targets)
            case IpiTaken(request=request):
                self._taken[cpu] = max(self._at[cpu], self._sent_at[request] + table.ipi_delivery)
                self._at[cpu] = self._taken[cpu] + table.interrupt
                self._waits_for_a_standstill(self._sent[request], cpu)
            case IpiAcknowledged(request=request):
                self._answered(cpu, self._sent[request])
            case TickNeeded() if cpu in self._issued:
                self._flushing += self._at[cpu] - self._issued.pop(cpu)
            case Annotated(payload=FlushBegun(generation=generation)) if generation:
                self._issued[cpu] = self._at[cpu]
            case Annotated(payload=OperationBegun()):
                self._operating = True
            case Annotated(payload=FlushBegun()) if cpu not in self._stopping:
                self._begun[number] = self._at[cpu]
            case Annotated(payload=FlushCompleted(begun=begun)) if begun in self._begun:
                self._flushing += self._at[cpu] - self._begun[begun]
            case _:
                pass  # takes no time of a CPU

    def _price(self, what: Invalidation) -> int:
        match what:
            case Invlpg(pages=pages):
                return self._table.invlpg * pages
            case FaultedAt():
                return 0  # the fault drops them by itself
            case _:
                return self._table.full_flush

    def _waits_for_a_standstill(self, sent: IpiSent, cpu: int) -> None:
        """Who stops the others goes on when all stand still."""
        if isinstance(sent.payload, StandStill):
            self._at[sent.cpu] = max(self._at[sent.cpu], self._at[cpu])

    def _answered(self, cpu: int, sent: IpiSent) -> None:
        """Who waits for it cannot go on before."""
        if isinstance(sent.payload, StandStill):
            self._at[cpu] = max(self._at[cpu], self._at[sent.cpu])
        if not isinstance(sent.payload, SyncCore):
            self._interrupts += 1
            self._interrupted += self._at[cpu] - self._taken[cpu]
        top = self._machine.cpus[sent.cpu].top
        if isinstance(top, RoutineContext) and top.pending == Await(Acknowledged(sent.request)):
            self._at[sent.cpu] = max(self._at[sent.cpu], self._at[cpu])
        self._silent[sent.request] -= 1
        stopping, since = self._stopping.get(sent.cpu, (None, 0))
        if stopping == sent.request and not self._silent[sent.request]:
            del self._stopping[sent.cpu]
            self._flushing += self._at[sent.cpu] - since

    def _removed(self, cpu: int, what: Invalidation) -> None:
        if isinstance(what, FaultedAt):
            return
        mmu, held = self._machine.cpus[cpu].mmu, self._held[cpu]
        everything = isinstance(what, InvalidateAll)
        lost = [entry for entry in held if everything or removes(what, entry, mmu.model.rules)]
        for entry in lost:
            del held[entry]
            self._invalidated += 1
            self._needlessly += _still_right(entry, mmu)
