"""The monitor: folds the events of a run into uses and findings.

It is told every event as it happens and looks at memory, page tables and TLBs through the machine's read-only
questions; it changes nothing, so a run with a monitor is the same run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from emu.addr import PAGE_SHIFT, VirtAddr
from emu.events import (
    Annotated,
    BusErrorSeen,
    Copied,
    Faulted,
    Filled,
    Finished,
    Invalidated,
    Loaded,
    LoadedBytes,
    MachineEvent,
    MultiHitSeen,
    Site,
    Source,
    Started,
    Stored,
    TlbFilled,
    Trapped,
)
from emu.machine import Machine
from emu.paging.tlb import TlbEntry
from emu.paging.walk import Access, Walk
from hvolab.judge.answers import Answers, Wrong
from hvolab.judge.describe import describe_ending, describe_entry, place_of
from hvolab.judge.faults import DOES_NOT_HEAL, Faults
from hvolab.judge.history import Ending, Flushes, Frames, Operations, Stores
from hvolab.judge.question import Asks
from hvolab.judge.tlb_rows import tlb_rows
from hvolab.judge.updates import Candidate, Updates
from hvolab.judge.verdict import Finding, Use, Verdict
from kernel_model.core.events import (
    BadPage,
    FlushBegun,
    FlushCompleted,
    KernelBug,
    KernelWarning,
    Oops,
    OperationBegun,
    OperationReturned,
    PageFreed,
    SpuriousFault,
)
from kernel_model.layout import VMEMMAP_END, VMEMMAP_START

NO_QUESTIONS: Mapping[tuple[int, str], Asks] = MappingProxyType({})


class Monitor:
    """Listens to one machine. Ask for `uses` and `findings` after `finish`."""

    def __init__(self, machine: Machine, questions: Mapping[tuple[int, str], Asks] = NO_QUESTIONS) -> None:
        self._questions = questions
        self._answers = Answers(machine.memory, machine.cpus[0].mmu.peek)
        self.uses: list[Use] = []
        self.findings: list[Finding] = []
        self._machine = machine
        self._stores = Stores(machine.memory)
        self._flushes = Flushes(machine.cpus[0].mmu.model.promised)
        self._frames = Frames()
        self._operations = Operations()
        self._updates = Updates(machine.memory, machine.cpus[0].mmu.peek)
        self._faults = Faults(machine, self._stores)
        self._warned: set[tuple[str, str]] = set()
        machine.trace.listen(self.observe)

    def observe(self, number: int, event: MachineEvent) -> None:
        """Take note of one event."""
        if self._questions:
            self._follow_questions(number, event)
        match event:
            case Loaded(va=va, entry=entry) | LoadedBytes(va=va, entry=entry):
                if VMEMMAP_START <= va < VMEMMAP_END:
                    source = event.source if isinstance(event, Loaded) else Source.HIT
                    self._use(number, event, va, entry, source, Access.READ)
            case Stored(va=va, entry=entry, source=source):
                if VMEMMAP_START <= va < VMEMMAP_END:
                    self._use(number, event, va, entry, source, Access.WRITE)
                    self._updates.stored(number, event, self._backing_frame(va, entry))
                self._stores.observe(number, event, self._operations.current(event))
            case Copied(source_va=va, source_entry=entry, to=to, to_pa=to_pa, to_entry=to_entry):
                self._stores.bulk(to_pa)
                if VMEMMAP_START <= to < VMEMMAP_END:
                    self._use(number, event, to, to_entry, Source.HIT, Access.WRITE)
                    self._updates.overwritten(to, event.length)
                if VMEMMAP_START <= va < VMEMMAP_END:
                    self._use(number, event, va, entry, Source.HIT, Access.READ)
                    self._updates.copied(number, event)
            case Filled(va=va, pa=pa, entry=entry):
                self._stores.bulk(pa)
                if VMEMMAP_START <= va < VMEMMAP_END:
                    self._use(number, event, va, entry, Source.HIT, Access.WRITE)
                    self._updates.overwritten(va, event.length)
            case Invalidated():
                self._flushes.invalidated(number, self._machine.memory.journal.now, event)
            case Annotated(payload=payload):
                self._announced(number, event, payload)
            case Faulted():
                self._faults.faulted(number, event)
            case MultiHitSeen(va=va, sizes=seen):
                sizes = " and ".join(str(size) for size in seen)
                self._find(
                    number, event.cpu, None, va, Verdict.TLB_MULTIHIT, f"{sizes} entries for one address"
                )
            case BusErrorSeen(site=site) | Trapped(site=site):
                self._faults.trapped(number, event.cpu, site)
            case TlbFilled(va=va, entry=entry):
                if VMEMMAP_START <= va < VMEMMAP_END:
                    self._stores.filled(entry)
            case _:
                pass

    def finish(self) -> None:
        """The run is over: settle what was left open."""
        self._settle_updates("at the end of the run")

    def deadlocked(self, waits: dict[int, str]) -> None:
        """Nothing is enabled and work is left."""
        cause = "deadlock: " + "; ".join(f"cpu{cpu} waits for {what}" for cpu, what in waits.items())
        first = min(waits, default=0)
        self._find(self._machine.trace.next_number, first, None, 0, Verdict.KERNEL, cause)

    # -- what software announces ---------------------------------------------------------------------

    def _announced(self, number: int, event: Annotated, payload: object) -> None:
        match payload:
            case FlushBegun():
                self._flushes.begun(number, event.cpu, payload)
            case FlushCompleted():
                self._flushes.completed(number, payload)
            case PageFreed():
                self._frames.freed(number, self._machine.memory.journal.now, payload)
            case OperationBegun():
                self._operations.begun(number, event.cpu, payload)
            case OperationReturned(function=function):
                self._operations.ended(number, event.cpu, payload)
                self._settle_updates(f"when {function} returned")
            case SpuriousFault() | Oops():
                finding = self._faults.decided(event.cpu, payload)
                if not any(finding.cause == one.cause == DOES_NOT_HEAL for one in self.findings):
                    self.findings.append(finding)
            case KernelBug(where=where, message=message):
                self._find(number, event.cpu, event.site, 0, Verdict.KERNEL, f"BUG in {where}: {message}")
            case KernelWarning(where=where, message=message):
                if (where, message) not in self._warned:
                    self._warned.add((where, message))
                    self._find(
                        number, event.cpu, event.site, 0, Verdict.KERNEL, f"WARNING in {where}: {message}"
                    )
            case BadPage(pfn=pfn, reason=reason):
                cause = f"bad page state of pfn {pfn:#x}: {reason}"
                self._find(number, event.cpu, event.site, 0, Verdict.KERNEL, cause)
            case _:
                pass

    # -- answers -------------------------------------------------------------------------------------

    def _follow_questions(self, number: int, event: MachineEvent) -> None:
        match event:
            case Started(cpu=cpu, name=name):
                if (cpu, name) in self._questions:
                    self._answers.ask(cpu, self._questions[cpu, name])
            case Finished(cpu=cpu, name=name, killed=killed):
                asks = self._questions.get((cpu, name))
                core = self._machine.cpus[cpu].core
                if asks is not None and core is not None and not killed:
                    wrong = self._answers.answer(cpu, core.registers()[asks.register])
                    if wrong is not None:
                        self._answered_wrong(number, cpu, core.site(), wrong)
            case Loaded(cpu=cpu, va=va):
                if VMEMMAP_START <= va < VMEMMAP_END:
                    self._answers.accessed(cpu)
            case Stored() | Copied() | Filled():
                self._answers.changed()
            case _:
                pass

    def _answered_wrong(self, number: int, cpu: int, site: Site, wrong: Wrong) -> None:
        true = ", ".join("nothing" if one is None else f"{one:#x}" for one in wrong.true)
        why = (f"true while it looked: {true}",)
        place = place_of(cpu, wrong.asks.page, site)
        self.findings.append(
            Finding(
                Verdict.WRONG_METADATA,
                (),
                place,
                number,
                str(wrong),
                why,
                tlbs=tlb_rows(self._machine, self._stores, wrong.asks.page),
            )
        )

    # -- uses ----------------------------------------------------------------------------------------

    def _use(
        self,
        number: int,
        event: Loaded | LoadedBytes | Stored | Copied | Filled,
        va: VirtAddr,
        entry: TlbEntry,
        source: Source,
        access: Access,
    ) -> None:
        removed = self._flushes.removed(event.cpu, entry) if source is Source.HIT else None
        ending = self._stores.ending_of(entry)
        frame = entry.frame_of(va)
        freed = self._freed_while_mapped(frame, entry)
        if removed is None and ending is None and freed is None:
            return
        held: list[Verdict] = []
        why: list[str] = [f"cpu{event.cpu} used {describe_entry(entry)}"]
        if removed is not None:
            held.append(Verdict.MODEL_ERROR)
            why.append(f"the invalidation at event {removed} should have removed it")
        current = self._machine.cpus[event.cpu].mmu.peek(va)
        current_frame = current.pa >> 12 if isinstance(current, Walk) else None
        same = isinstance(current, Walk) and current_frame == frame and current.rights == entry.rights
        if ending is not None:
            why.append(describe_ending(ending))
            if not (same and freed is None):
                self._judge_flushes(va, ending, held, why)
        if freed is not None:
            held.append(Verdict.USE_AFTER_FREE)
            why.append(f"pfn {frame:#x} was freed at event {freed}, before this use")
        if not held:
            held.append(Verdict.EQUIVALENT if same else Verdict.LEGAL)
        where = place_of(event.cpu, va, event.site)
        use = Use(held[0], tuple(held[1:]), where, number, access.value, frame, current_frame, tuple(why))
        self._note_use(use, va)

    def _freed_while_mapped(self, frame: int, entry: TlbEntry) -> int | None:
        """The event that freed the frame after this translation to it was put into the page table."""
        freed = self._frames.last_freed(frame)
        if freed is None or freed[0] < self._stores.installed_at(entry):
            return None
        return freed[1]

    def _judge_flushes(self, va: VirtAddr, ending: Ending, held: list[Verdict], why: list[str]) -> None:
        """Rows 3 and 9 of the table: was a flush owed, and has the kernel come to rely on one?"""
        covering = self._flushes.covering(va, ending)
        done = [request for request in covering if request.completed is not None]
        if done:
            held.append(Verdict.MISSED_FLUSH)
            why.append(f"covered by {done[0]}: the entry should be gone")
            model = self._machine.cpus[0].mmu.model
            why.extend(
                f"an erratum of {model.name}: it does not keep rule {rule.value}" for rule in model.errata
            )
        elif ending.operation is not None and ending.operation in self._operations.returned:
            held.append(Verdict.MISSED_FLUSH)
            name, returned = (
                self._operations.names[ending.operation],
                self._operations.returned[ending.operation],
            )
            why.append(f"{name} returned at event {returned} and no flush since that store covers the page")
        else:
            for request in self._flushes.requests.values():
                if request.begun < (ending.event or 0) < (request.completed or request.begun):
                    why.append(f"not covered by {request}: it began before the store")
            why.append(
                "no flush that covers the page has completed yet"
                if not covering
                else f"pending: {covering[0]}"
            )

    def _note_use(self, use: Use, va: VirtAddr) -> None:
        """Count it with others like it; the first violation of its kind becomes a finding."""
        for index, known in enumerate(self.uses):
            if _alike(known, use):
                self.uses[index] = replace(known, times=known.times + 1)
                return
        self.uses.append(use)
        if use.verdict.is_violation or use.verdict is Verdict.MODEL_ERROR:
            cause = _CAUSES[use.verdict]
            self.findings.append(
                Finding(
                    use.verdict,
                    use.also,
                    use.where,
                    use.event,
                    cause,
                    use.why,
                    use.pfn,
                    tlbs=tlb_rows(self._machine, self._stores, va),
                )
            )

    def _backing_frame(self, va: VirtAddr, entry: TlbEntry) -> int | None:
        """The frame that backs the address now, without a walk where the entry used is current."""
        if self._stores.ending_of(entry) is None:
            return entry.frame_of(va)
        found = self._machine.cpus[0].mmu.peek(va)
        return found.pa >> PAGE_SHIFT if isinstance(found, Walk) else None

    # -- updates -------------------------------------------------------------------------------------

    def _settle_updates(self, when: str) -> None:
        for candidate in self._updates.lost():
            self._lost(candidate, when)
        if self._operations.idle:
            self._updates.forget()

    def _lost(self, candidate: Candidate, when: str) -> None:
        store = candidate.store
        frame = store.entry.frame_of(store.va)
        why = [f"cpu{store.cpu} stored {store.value:#x} over {store.old:#x} in pfn {frame:#x}"]
        if candidate.copied_at is not None:
            why.append(f"the page had been copied at event {candidate.copied_at}, before the store")
        found = self._machine.cpus[store.cpu].mmu.peek(store.va)
        if isinstance(found, Walk):
            now = int.from_bytes(self._machine.memory.read(found.pa, store.size), "little")
            why.append(f"{when} the address leads to pfn {found.pa >> 12:#x}, which holds {now:#x}")
        where = place_of(store.cpu, store.va, store.site)
        self.findings.append(
            Finding(
                Verdict.LOST_UPDATE,
                (),
                where,
                candidate.event,
                "the store went to a frame that no longer backs the address",
                tuple(why),
                frame,
                tlbs=tlb_rows(self._machine, self._stores, store.va),
            )
        )

    # -- display -------------------------------------------------------------------------------------

    def _find(self, number: int, cpu: int, site: Site | None, va: int, verdict: Verdict, cause: str) -> None:
        self.findings.append(Finding(verdict, (), place_of(cpu, va, site), number, cause, ()))


_CAUSES = {
    Verdict.MODEL_ERROR: "the TLB returned an entry that an invalidation should have removed",
    Verdict.MISSED_FLUSH: "a stale entry was used although the flush it needed is over",
    Verdict.USE_AFTER_FREE: "a stale entry led to a frame that had been freed",
}


def _alike(a: Use, b: Use) -> bool:
    return (a.verdict, a.also, a.where, a.access, a.pfn, a.current_pfn) == (
        b.verdict,
        b.also,
        b.where,
        b.access,
        b.pfn,
        b.current_pfn,
    )
