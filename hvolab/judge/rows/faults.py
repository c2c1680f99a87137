"""Page faults and traps, row 6: from the moment a CPU takes one until the kernel has said what it is.

The kernel's handler decides, by its own walk: between fault and decision the tables may change. What it says
then is the verdict (`spurious`, `write-protect`, or an Oops of another kind); the fault says where and why.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TypeAlias, assert_never

from emu.addr import PAGE_SHIFT, VirtAddr
from emu.events import Annotated, BusErrorSeen, Faulted, GuestSite, MachineEvent, Site, Trapped
from emu.paging.dead_end import DeadEnd
from emu.paging.tlb import TlbEntry
from emu.paging.walk import FaultCode
from hvolab.judge.describe import describe_ending, describe_entry, describe_site, place_of
from hvolab.judge.sight.remembered import announced
from hvolab.judge.sight.sight import Sight
from hvolab.judge.tlb_rows import tlb_rows
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
from kernel_model.layout import PMD_SIZE, START_KERNEL_MAP, PerCpu

_READ_ONLY = "a write met a cached read-only entry; the page table allows it now: the retry succeeds"
_ABSENT = "the page was not present; the page table has it now: the retry succeeds"
DOES_NOT_HEAL = "I7: a second spurious fault of this CPU for one change of the page: it did not heal"


@dataclass(frozen=True, slots=True)
class _TookTrap:
    """A trap other than a page fault."""

    number: int
    site: Site


@dataclass(frozen=True, slots=True)
class _TookFault:
    number: int
    event: Faulted


_Taken: TypeAlias = _TookFault | _TookTrap | None
_NONE: _Taken = None
_NEVER: int | None = None


def _had_one(event: int | None) -> Hashable:
    """When it was the invalidation says that came with it: of those Sight knows the order."""
    return event is not None


def _decides(taken: _Taken) -> Hashable:
    """What the handler's decision is told by; which moment the translation is from is told in words."""
    match taken:
        case _TookFault(event=event):
            used = None if event.entry is None else event.entry.steps
            ended = None if event.dead_end is None else event.dead_end.path
            return (event.site, event.fault, used, ended)
        case _TookTrap(site=site):
            return site
        case None:
            return None
        case _:
            assert_never(taken)


class Faults:
    """The fault or trap that each CPU's handler is busy with."""

    def __init__(self, sight: Sight, told: Told) -> None:
        self._sight = sight
        self._told = told
        self._taken = sight.cells("the trap a CPU has taken", _NONE, _decides)  # by CPU
        # By CPU and page number: its event.
        self._spurious = sight.cells("the last spurious fault", _NEVER, _had_one)

    def observe(self, number: int, event: MachineEvent) -> None:
        match event:
            case Faulted():
                self._taken.set(_TookFault(number, event), event.cpu)
            case BusErrorSeen(site=site) | Trapped(site=site):
                self._taken.set(_TookTrap(number, site), event.cpu)
            case Annotated():
                self._announced(event)
            case _:
                pass  # no trap

    def _announced(self, event: Annotated) -> None:
        match announced(event):
            case SpuriousFault() | Oops() as decision:
                finding = self._decided(event.cpu, decision)
                tell = self._told.warning if finding.cause == DOES_NOT_HEAL else self._told.finding
                tell(finding)
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
                | KernelBug()
                | KernelWarning()
                | BadPage()
                | MemoryFailed()
            ):
                pass  # no word of the fault handler
            case other:
                assert_never(other)

    def _decided(self, cpu: int, decision: SpuriousFault | Oops) -> Finding:
        """The handler of `cpu` has decided between spurious and an Oops."""
        taken = self._taken.get(cpu)
        self._taken.set(None, cpu)
        if isinstance(taken, _TookFault):
            return self._of_fault(cpu, decision, taken.number, taken.event)
        assert isinstance(decision, Oops)
        number, site = (self._sight.next_event, None) if taken is None else (taken.number, taken.site)
        place = place_of(cpu, decision.va, site)
        return Finding(Verdict.KERNEL, (), place, number, decision.lines[0], (), lines=decision.lines)

    def _of_fault(self, cpu: int, decision: SpuriousFault | Oops, number: int, event: Faulted) -> Finding:
        va, code = event.fault.va, event.fault.code
        is_tail_write = self._sight.is_judged(va) and code == FaultCode.WRITE | FaultCode.PROTECTION
        if isinstance(decision, SpuriousFault) and self._again(number, cpu, va):
            verdict = Verdict.KERNEL
            cause = DOES_NOT_HEAL
        elif isinstance(decision, SpuriousFault):
            verdict = Verdict.SPURIOUS
            cause = _ABSENT if FaultCode.PROTECTION not in code else _READ_ONLY
        elif _is_own_text(event):
            verdict = Verdict.OWN_TEXT
            cause = (
                "a guest program stored to kernel text, where programs are and nothing can be written: "
                f"its data page is at r15, {PerCpu(cpu).buffer:#x}"
            )
        elif is_tail_write:
            verdict = Verdict.WRITE_PROTECT
            cause = "a write to a vmemmap page that the kernel maps read-only"
        else:
            verdict = Verdict.KERNEL
            cause = decision.lines[0]
        return Finding(
            verdict,
            (),
            place_of(cpu, va, event.site),
            number,
            cause,
            (*self._dead_end(va, event.dead_end), *self._why(cpu, va, event.entry)),
            self._pfn_of(va, event.entry),
            int(va),
            int(code),
            decision.lines if isinstance(decision, Oops) else (),
            tlb_rows(self._sight, va),
            event.entry,
        )

    def _again(self, number: int, cpu: int, va: VirtAddr) -> bool:
        """Whether the CPU had one for that page before, and its entry has not been stored to since (R12)."""
        before = self._spurious.get(cpu, va >> PAGE_SHIFT)
        self._spurious.set(number, cpu, va >> PAGE_SHIFT)
        found = self._sight.walk(va)
        if before is None or found is None:
            return False
        last = [self._sight.last_store(step.pa) for step in found.steps]
        return all(one is None or one[0] < before for one in last)

    def _why(self, cpu: int, va: VirtAddr, entry: TlbEntry | None) -> tuple[str, ...]:
        found = self._sight.displayed(va)
        why = []
        if entry is not None:
            why.append(f"cpu{cpu} had {describe_entry(entry)}")
            ending = self._sight.ending_of(va, entry)
            if ending is not None:
                why.append(describe_ending(ending))
        if found is not None:
            leaf = found.steps[-1]
            why.append(f"the page table now says pfn {found.pa >> 12:#x}, {leaf.entry.flags()}")
            last = self._sight.last_store(leaf.pa)
            if last is not None:
                number, store = last
                why.append(
                    f"that entry was last stored by {describe_site(store.cpu, store.site)}, event {number}"
                )
        return tuple(why)

    def _dead_end(self, va: VirtAddr, ended: DeadEnd | None) -> tuple[str, ...]:
        """The directory entry that the walk remembered, the store that ended it, and what covers that."""
        if ended is None:
            return ()
        why = [str(ended)]
        ending = self._sight.ending_of_dead_end(ended)
        if ending is None:
            return tuple(why)
        why.append(describe_ending(ending))
        covering = self._sight.covering(va, ending)
        done = [request for request in covering if request.completed is not None]
        if done:
            why.append(f"covered by {done[0]}: the directory entry should be gone")
        elif covering:
            why.append(f"pending: {covering[0]}")
        else:
            why.append("no flush that covers the page has begun since that store")
        return tuple(why)

    def _pfn_of(self, va: VirtAddr, entry: TlbEntry | None) -> int | None:
        if entry is not None:
            return entry.frame_of(va)
        found = self._sight.displayed(va)
        return None if found is None else found.pa >> PAGE_SHIFT


def _is_own_text(event: Faulted) -> bool:
    """Whether a guest program was refused a store to the 2 MiB that programs are linked into."""
    in_text = 0 <= event.fault.va - START_KERNEL_MAP < PMD_SIZE
    return isinstance(event.site, GuestSite) and in_text and FaultCode.WRITE in event.fault.code
