"""Listens for the moments at which nothing is under way, and then asks for the invariants.

After each operation of HVO on folios it names, those are looked at; at the end of a run, everything. A run in
which an operation was cut short (a BUG, an Oops) ends with nothing at rest, and is not asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from emu.addr import PAGE_MASK, Pfn, VirtAddr
from emu.events import Annotated, MachineEvent
from emu.machine import Machine
from hvolab.judge.describe import place_of
from hvolab.judge.invariants import Breach, Invariants
from hvolab.judge.verdict import Finding, Verdict
from kernel_model.core.events import MemoryFailed, OperationBegun, OperationReturned, PageAllocated
from kernel_model.mm.hstate import HSTATES, Hstate
from kernel_model.mm.image import HugePage


class AtRest:
    """A listener on one machine, and its findings. Where no operation has returned there are none."""

    def __init__(self, machine: Machine, huge_pages: Sequence[HugePage]) -> None:
        self.findings: list[Finding] = []
        self._machine = machine
        self._invariants = Invariants(machine, huge_pages)
        self._begun: dict[int, tuple[VirtAddr, ...]] = {}
        self._returned = 0
        self._failed: list[Pfn] = []
        machine.trace.listen(self.observe)

    def observe(self, number: int, event: MachineEvent) -> None:
        """Take note of one event."""
        if not isinstance(event, Annotated):
            return
        match event.payload:
            case OperationBegun(folios=folios):
                self._begun[number] = folios
            case OperationReturned(begun=begun):
                folios = self._begun.pop(begun)
                self._returned += 1
                self._find(event.cpu, self._invariants.of(folios))
            case PageAllocated(pfn=pfn, order=order, purpose="huge page"):
                known = {h.order: h for h in HSTATES}
                self._invariants.huge_pages.append(HugePage(pfn, known.get(order, Hstate("", order))))
            case MemoryFailed(pfn=pfn):
                self._failed.append(pfn)
            case _:
                pass

    def finish(self, told: Iterable[Finding]) -> None:
        """The run has come to its end. What has been `told` of a CPU and page is not told again."""
        if self._returned and not self._begun:
            known = {(one.where.cpu, one.where.va & ~PAGE_MASK) for one in told}
            breaches = self._invariants.at_rest(self._failed)
            self._find(None, (one for one in breaches if (one.cpu, one.va) not in known))

    def _find(self, cpu: int | None, breaches: Iterable[Breach]) -> None:
        for breach in breaches:
            if any((one.where.va, one.cause) == (breach.va, breach.cause) for one in self.findings):
                continue
            where = place_of(breach.cpu if cpu is None else cpu, breach.va, None)
            event = self._machine.trace.next_number
            self.findings.append(Finding(Verdict.KERNEL, (), where, event, breach.cause, ()))
