"""Waits for the moments at which nothing is under way, and then asks for the invariants.

After each operation of HVO the folios it took up are looked at, but for those that are hugetlb no more and
those that another operation names as its own; at the end of a run, everything. A run in which an operation
was cut short (a BUG, an Oops) ends with nothing at rest, and is not asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import assert_never

from emu.addr import Pfn
from emu.events import Annotated, MachineEvent
from hvolab.judge.describe import describe_ending, describe_entry, describe_storer, place_of
from hvolab.judge.rows.invariants import Breach, Invariants
from hvolab.judge.sight.cells import Bags
from hvolab.judge.sight.remembered import announced
from hvolab.judge.sight.requests import Request
from hvolab.judge.sight.sight import Sight
from hvolab.judge.told import Told
from hvolab.judge.verdict import Finding, Verdict
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
    KernelWarning,
    MemoryFailed,
    Oops,
    OperationBegun,
    OperationReturned,
    PageAllocated,
    PageFreed,
    SpuriousFault,
)
from kernel_model.mm.hstate import HSTATE_2M, HSTATES, Hstate
from kernel_model.mm.image import HugePage


class AtRest:
    """Where no operation has returned there is nothing to ask."""

    def __init__(self, sight: Sight, told: Told, huge_pages: Sequence[HugePage]) -> None:
        self._sight = sight
        self._told = told
        self._huge_pages = tuple(huge_pages)
        self._invariants = Invariants(sight)
        self._failed: Bags[Pfn] = sight.bags("frames with memory errors")
        self._killed: Bags[int] = sight.bags("CPUs on which a context was killed")
        self._blocks: Bags[HugePage] = sight.bags("blocks that were allocated")

    def observe(self, number: int, event: MachineEvent) -> None:
        del number
        if not isinstance(event, Annotated):
            return
        match announced(event):
            case OperationReturned(folios=folios):
                free = [folio for folio in folios if not self._sight.holders(folio)]
                for breach in self._invariants.of(free):
                    self._told.once(self._finding(event.cpu, breach))
            case PageAllocated(pfn=pfn, order=order):
                if order >= HSTATE_2M.order:
                    known = {h.order: h for h in HSTATES}
                    self._blocks.add(HugePage(pfn, known.get(order, Hstate("", order))))
            case MemoryFailed(pfn=pfn):
                self._failed.add(pfn)
            case Oops() | KernelBug():
                self._killed.add(event.cpu)
            case (
                FlushBegun()
                | FlushCompleted()
                | FlushesSettled()
                | PageFreed()
                | AllocationFailed()
                | ActionResult()
                | GracePeriodBegun()
                | GracePeriodEnded()
                | OperationBegun()
                | SpuriousFault()
                | KernelWarning()
                | BadPage()
            ):
                pass  # ends nothing, and changes no folio
            case other:
                assert_never(other)

    def finish(self) -> None:
        """The run has come to its end. What has been told of a CPU and page is not told again."""
        if self._sight.is_at_rest():
            huge_pages = dict.fromkeys((*self._huge_pages, *self._blocks.all()))
            breaches = self._invariants.at_rest(tuple(huge_pages), self._failed.all())
            self._told.unless_known(self._findings(breaches))
        if not self._killed.all():
            for request in self._sight.open_requests():
                self._told.once(self._never_completed(request))

    def _never_completed(self, request: Request) -> Finding:
        where = place_of(request.cpu, request.what.start, None)
        cause = "a flush was begun that is never completed: what waits for it waits for ever"
        return Finding(Verdict.KERNEL, (), where, request.begun, cause, (str(request),))

    def _findings(self, breaches: Iterable[Breach]) -> Iterator[Finding]:
        return (self._finding(breach.cpu, breach) for breach in breaches)

    def _finding(self, cpu: int, breach: Breach) -> Finding:
        where, number = place_of(cpu, breach.va, None), self._sight.next_event
        entry = breach.entry
        if entry is None:
            return Finding(Verdict.KERNEL, (), where, number, breach.cause, ())
        ending = self._sight.ending_of(breach.va, entry)
        why = [f"cpu{cpu} may use {describe_entry(entry)}"]
        guilty = ""
        if ending is not None:
            why.append(describe_ending(ending))
            guilty = "" if ending.store is None else describe_storer(ending.store)
        return Finding(Verdict.KERNEL, (), where, number, breach.cause, tuple(why), used=entry, guilty=guilty)
