"""Page faults and traps, from the moment a CPU takes one until the kernel has said what it is.

The kernel's handler decides, by its own walk: between fault and decision the tables may change. What it says
then is the verdict (`spurious`, `write-protect`, or an Oops of another kind); the fault says where and why.
"""

from __future__ import annotations

from emu.addr import PAGE_SHIFT, VirtAddr
from emu.events import Faulted, Site
from emu.machine import Machine
from emu.paging.tlb import TlbEntry
from emu.paging.walk import FaultCode, Walk
from hvolab.judge.describe import describe_ending, describe_entry, describe_site, place_of
from hvolab.judge.history import Stores
from hvolab.judge.tlb_rows import tlb_rows
from hvolab.judge.verdict import Finding, Verdict
from kernel_model.core.events import Oops, SpuriousFault
from kernel_model.layout import VMEMMAP_END, VMEMMAP_START

DOES_NOT_HEAL = "I7: a second spurious fault of this CPU for one change of the page: it did not heal"


class Faults:
    """The fault or trap that each CPU's handler is busy with."""

    def __init__(self, machine: Machine, stores: Stores) -> None:
        self._machine = machine
        self._stores = stores
        self._fault: dict[int, tuple[int, Faulted]] = {}
        self._trapped: dict[int, tuple[int, Site]] = {}
        self._spurious: dict[tuple[int, int], int] = {}  # (CPU, page) -> the last one's event

    def faulted(self, number: int, event: Faulted) -> None:
        self._fault[event.cpu] = (number, event)

    def trapped(self, number: int, cpu: int, site: Site) -> None:
        self._trapped[cpu] = (number, site)

    def decided(self, cpu: int, decision: SpuriousFault | Oops) -> Finding:
        """The handler of `cpu` has decided between spurious and an Oops."""
        if cpu in self._fault:
            return self._of_fault(cpu, decision, *self._fault.pop(cpu))
        assert isinstance(decision, Oops)
        number, site = self._trapped.pop(cpu, (self._machine.trace.next_number, None))
        place = place_of(cpu, decision.va, site)
        return Finding(Verdict.KERNEL, (), place, number, decision.lines[0], (), lines=decision.lines)

    def _of_fault(self, cpu: int, decision: SpuriousFault | Oops, number: int, event: Faulted) -> Finding:
        va, code = event.fault.va, event.fault.code
        is_tail_write = VMEMMAP_START <= va < VMEMMAP_END and code == FaultCode.WRITE | FaultCode.PROTECTION
        if isinstance(decision, SpuriousFault) and self._again(number, event):
            verdict = Verdict.KERNEL
            cause = DOES_NOT_HEAL
        elif isinstance(decision, SpuriousFault):
            verdict = Verdict.SPURIOUS
            cause = "a write met a cached read-only entry; the page table allows it now: the retry succeeds"
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
            self._why(event),
            self._pfn_of(va, event.entry),
            int(va),
            int(code),
            decision.lines if isinstance(decision, Oops) else (),
            tlb_rows(self._machine, self._stores, va),
        )

    def _again(self, number: int, event: Faulted) -> bool:
        """Whether the CPU had one for that page before, and its entry has not been stored to since (R12)."""
        key = (event.cpu, event.fault.va >> PAGE_SHIFT)
        before = self._spurious.get(key)
        self._spurious[key] = number
        found = self._machine.cpus[event.cpu].mmu.peek(event.fault.va)
        if before is None or not isinstance(found, Walk):
            return False
        last = [self._stores.last_to(step.pa) for step in found.steps]
        return all(one is None or one[0] < before for one in last)

    def _why(self, event: Faulted) -> tuple[str, ...]:
        va = event.fault.va
        found = self._machine.cpus[event.cpu].mmu.peek(va)
        why = []
        if event.entry is not None:
            why.append(f"cpu{event.cpu} had {describe_entry(event.entry)}")
            ending = self._stores.ending_of(event.entry)
            if ending is not None:
                why.append(describe_ending(ending))
        if isinstance(found, Walk):
            leaf = found.steps[-1]
            why.append(f"the page table now says pfn {found.pa >> 12:#x}, {leaf.entry.flags()}")
            last = self._stores.last_to(leaf.pa)
            if last is not None:
                number, store = last
                why.append(
                    f"that entry was last stored by {describe_site(store.cpu, store.site)}, event {number}"
                )
        return tuple(why)

    def _pfn_of(self, va: VirtAddr, entry: TlbEntry | None) -> int | None:
        if entry is not None:
            return entry.frame_of(va)
        found = self._machine.cpus[0].mmu.peek(va)
        return found.pa >> 12 if isinstance(found, Walk) else None
