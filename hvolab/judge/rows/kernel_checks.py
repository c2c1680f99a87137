"""What the kernel itself complains of, and deadlocks: row 8 of the table in docs/verdicts.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import assert_never

from emu.events import Annotated, MachineEvent, Site
from hvolab.judge.describe import place_of
from hvolab.judge.sight.remembered import announced
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


class KernelChecks:
    """BUGs, warnings and bad pages become findings as they are announced."""

    def __init__(self, sight: Sight, told: Told) -> None:
        self._sight = sight
        self._told = told

    def observe(self, number: int, event: MachineEvent) -> None:
        if not isinstance(event, Annotated):
            return
        match announced(event):
            case KernelBug(where=where, message=message):
                finding = _finding(number, event.cpu, event.site, f"BUG in {where}: {message}")
                self._told.finding(finding)
            case KernelWarning(where=where, message=message):
                self._told.warning(_finding(number, event.cpu, event.site, f"WARNING in {where}: {message}"))
            case BadPage(pfn=pfn, reason=reason):
                cause = f"bad page state of pfn {pfn:#x}: {reason}"
                self._told.finding(_finding(number, event.cpu, event.site, cause))
            case (
                FlushBegun()
                | FlushCompleted()
                | FlushesSettled()
                | PageAllocated()
                | PageFreed()
                | AllocationFailed()
                | ActionResult()
                | GracePeriodBegun()
                | GracePeriodEnded()
                | OperationBegun()
                | OperationReturned()
                | SpuriousFault()
                | Oops()
                | MemoryFailed()
            ):
                pass  # no complaint, or one that belongs to a fault
            case other:
                assert_never(other)

    def deadlocked(self, waits: Mapping[int, str], why: tuple[str, ...]) -> None:
        """Nothing is enabled and work is left. `why`: who has what is waited for."""
        cause = "deadlock: " + "; ".join(f"cpu{cpu} waits for {what}" for cpu, what in waits.items())
        finding = _finding(self._sight.next_event, min(waits, default=0), None, cause)
        self._told.finding(replace(finding, why=why))


def _finding(number: int, cpu: int, site: Site | None, cause: str) -> Finding:
    return Finding(Verdict.KERNEL, (), place_of(cpu, 0, site), number, cause, ())
