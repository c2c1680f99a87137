"""One CPU's memory-management unit: TLB, walker and page-table memory, in the hardware's order.

Every access of a CPU passes here, whoever issues it. The MMU decides; it moves no data.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

from emu.addr import Pfn, PhysAddr, VirtAddr, is_canonical, page_start
from emu.choice import Answerer, VersionQuestion
from emu.events import Invalidated, Marked, MultiHitSeen, Source, TlbFilled
from emu.kept import Kept
from emu.memory import Moment, PhysicalMemory
from emu.paging.dead_end import DeadEnd, dead_end
from emu.paging.geometry import Geometry, GeometryTlb
from emu.paging.lazy import LazyTlb
from emu.paging.models import CpuModel, MultiHit, PermissionMiss
from emu.paging.psc import PagingStructureCache
from emu.paging.tlb import (
    Broadcast,
    FaultedAt,
    Invalidation,
    NewRoot,
    Port,
    Rule,
    Tlb,
    TlbEntry,
    Usable,
    entry_from,
)
from emu.paging.walk import (
    TOP_LEVEL,
    Access,
    BusError,
    Control,
    FaultCode,
    PageFault,
    Privilege,
    ReadWord,
    Walk,
    Walked,
    WalkStart,
    access_code,
    mark,
    permitted,
    walk,
)
from emu.trace import Trace

STACK_FAULT = 12
GENERAL_PROTECTION = 13


class Translation(NamedTuple):
    """The access may go to `pa`. `entry` is the translation used, `source` where it came from."""

    pa: PhysAddr
    entry: TlbEntry
    source: Source


@dataclass(frozen=True, slots=True)
class Denied:
    """A page fault, and the cached entry that denied the access (None when a walk did).

    `dead_end` is that walk where it began at a remembered directory entry and one from the root would not
    have met this fault.
    """

    fault: PageFault
    entry: TlbEntry | None
    dead_end: DeadEnd | None = None


@dataclass(frozen=True, slots=True)
class NonCanonical:
    """The address is not canonical: #GP(0), or #SS(0) where the stack segment led there (SDM 3A 6.15)."""

    va: int
    vector: int = GENERAL_PROTECTION


Translated: TypeAlias = Translation | Denied | BusError | NonCanonical


class Mmu(Kept):
    """Translates for one CPU. `root` is the frame CR3 points to. With a lazy TLB it can be put back."""

    kept = ("root", "pcid")
    parts = ("_psc", "tlb")

    def __init__(
        self, cpu: int, memory: PhysicalMemory, model: CpuModel, control: Control, root: Pfn, trace: Trace
    ) -> None:
        self.cpu = cpu
        self.model = model
        self.control = control
        self.root = self._first_root = root
        self.pcid = 0
        self.answerer: Answerer | None = None
        self._memory = memory
        self._trace = trace
        self._psc = PagingStructureCache(model.psc, model.rules)
        self.tlb = self._build_tlb()

    def _build_tlb(self) -> Tlb:
        spec = self.model.tlb
        if isinstance(spec, Geometry):
            return GeometryTlb(spec, self.model.rules)
        tlb = LazyTlb(spec, self._memory, self.control, self.model.physical_bits, self.model.rules)
        tlb.run_on(self.root, self.pcid, -1)
        return tlb

    def translate(self, va: VirtAddr, access: Access, privilege: Privilege) -> Translated:
        """Where the access goes, or why it does not. Fills, marks and invalidates as hardware would."""
        if not is_canonical(va):
            return NonCanonical(va)
        port = Port.CODE if access is Access.FETCH else Port.DATA
        usable = self.tlb.usable(va, self.pcid, port)
        chosen = self._choose(va, usable)
        if isinstance(chosen, DeadEnd):
            return self._end_dead(va, access, privilege, chosen)
        entry = chosen or usable.fresh
        if entry is None:
            return self._walk(va, access, privilege, port)
        if not permitted(entry.rights, access, privilege, self.control):
            if self.model.permission_miss is PermissionMiss.WALK:
                self.tlb.evict(entry)
                return self._walk(va, access, privilege, port)
            code = access_code(access, privilege, self.control) | FaultCode.PROTECTION
            self._invalidate_on_fault(va)
            return Denied(PageFault(va, code), entry)
        # R7: only an entry cached with D=1 lets a write straight out.
        if access is Access.WRITE and not entry.dirty and Rule.DIRTY_NEEDS_WALK in self.model.rules:
            return self._walk(va, access, privilege, port)
        pa = entry.translate(va)
        if pa >= self._memory.size:
            return BusError(va, pa)
        self.tlb.used(entry, va, port)
        return Translation(pa, entry, Source.HIT)

    def has_one(self, va: VirtAddr) -> bool:
        """Whether an access there could use but one translation."""
        assert isinstance(self.tlb, LazyTlb)
        if self.tlb.only(page_start(va), self.pcid) is not None:
            return True
        usable = self.tlb.usable(va, self.pcid, Port.DATA)
        return not usable.entries and not usable.dead_ends

    def again(self, va: VirtAddr, access: Access) -> TlbEntry:
        """What a kernel's access uses for which there is one translation only, and a permitted one."""
        assert isinstance(self.tlb, LazyTlb)
        entry = self.tlb.only(page_start(va), self.pcid)
        if entry is None or (access is Access.WRITE and not entry.dirty):
            found = self.translate(va, access, Privilege.SUPERVISOR)
            assert isinstance(found, Translation)
            entry = found.entry
        return entry

    def peek(self, va: VirtAddr) -> Walked:
        """What a supervisor read's walk would find now, changing nothing: for monitors and reports."""
        return self._look(va, self._memory.read_word)

    def peek_at(self, va: VirtAddr, moment: Moment) -> Walked:
        """What it would have found at that moment."""
        return self._look(va, lambda pa: self._memory.word_at(pa, moment))

    def _look(self, va: VirtAddr, read_word: ReadWord) -> Walked:
        start = WalkStart(TOP_LEVEL, self.root)
        return walk(read_word, start, va, FaultCode(0), self.control, self.model.physical_bits)

    def invalidate(self, what: Invalidation) -> None:
        """Carry out an invalidation on this CPU's TLB and paging-structure caches."""
        self.tlb.invalidate(what, self._trace.next_number)
        self._psc.invalidate(what)
        if self._trace.listening:
            self._trace.add(Invalidated(self.cpu, what))
        else:
            self._trace.skip()

    def carry_out(self, what: Broadcast, place: int, event: int) -> None:
        """The broadcast that began at that place in the TLB's course; `event` is the number of its end."""
        self.tlb.carry_out(what, place, event)
        self._psc.invalidate(what)

    def load_root(self, root: Pfn, pcid: int) -> None:
        """MOV CR3 with bit 63 clear."""
        self.root, self.pcid = root, pcid
        if isinstance(self.tlb, LazyTlb):
            self.tlb.run_on(root, pcid, self._trace.next_number)
        self.invalidate(NewRoot(pcid))

    def reset(self) -> None:
        """Back to power-on, with the root it was built with. The journal must be at its moment 0."""
        self.root, self.pcid = self._first_root, 0
        self.tlb.clear()
        self._psc.clear()
        if isinstance(self.tlb, LazyTlb):
            self.tlb.run_on(self.root, self.pcid, -1)

    def _choose(self, va: VirtAddr, usable: Usable) -> TlbEntry | DeadEnd | None:
        """The cached entry to use, or the walk to make: None for one from the root."""
        if not usable.entries and not usable.dead_ends:
            return None
        if self.model.multi_hit is MultiHit.MACHINE_CHECK:
            self._note_multi_hit(va, usable)
        if not usable.walk and len(usable.entries) == 1:
            return usable.entries[0]
        question = VersionQuestion(self.cpu, va, usable.entries, usable.walk, usable.dead_ends)
        pick = question.default if self.answerer is None else self.answerer.answer(question)
        return question.option(pick)

    def _note_multi_hit(self, va: VirtAddr, usable: Usable) -> None:
        """R5: with a walk among what may be used, what it would find may be cached already."""
        sizes = {entry.size for entry in usable.entries}
        found = self.peek(va) if usable.walk else None
        if isinstance(found, Walk):
            sizes.add(found.size)
        if len(sizes) > 1:
            self._trace.add(MultiHitSeen(self.cpu, va, tuple(sorted(sizes)), tuple(usable.entries)))

    def _walk(self, va: VirtAddr, access: Access, privilege: Privilege, port: Port) -> Translated:
        code = access_code(access, privilege, self.control)
        start = self._psc.start(self.root, va, self.pcid)
        found = walk(self._memory.read_word, start, va, code, self.control, self.model.physical_bits)
        if isinstance(found, BusError):
            return found
        if isinstance(found, Walk) and not permitted(found.rights, access, privilege, self.control):
            found = PageFault(va, code | FaultCode.PROTECTION)
        if isinstance(found, PageFault):
            ended = self._dead_end(start, va)
            self._invalidate_on_fault(va)
            return Denied(found, None, ended)
        return self._fill(va, access, port, found, start)

    def _dead_end(self, start: WalkStart, va: VirtAddr) -> DeadEnd | None:
        root = WalkStart(TOP_LEVEL, self.root)
        return dead_end(self._memory.read_word, start, root, va, self.control, self.model.physical_bits)

    def _end_dead(self, va: VirtAddr, access: Access, privilege: Privilege, ended: DeadEnd) -> Denied:
        code = access_code(access, privilege, self.control) | ended.lack.code
        self._invalidate_on_fault(va)
        return Denied(PageFault(va, code), None, ended)

    def _fill(
        self, va: VirtAddr, access: Access, port: Port, found: Walk, start: WalkStart
    ) -> Translation | BusError:
        if found.pa >= self._memory.size:
            return BusError(va, found.pa)
        marked = mark(self._memory, found, access)
        if marked.steps != found.steps:
            self._tell_marks(va, found, marked)
        now = self._memory.journal.now
        event = self._trace.next_number
        entry = entry_from(marked, self.pcid, self.control, event, now, now, event)
        if self._trace.listening:
            self._trace.add(TlbFilled(self.cpu, va, access, entry))
        else:
            self._trace.skip()
        self._psc.fill(marked, self.pcid, start.moment if start.steps else self._memory.journal.now)
        self.tlb.fill(entry, va, port)
        return Translation(entry.translate(va), entry, Source.WALK)

    def _tell_marks(self, va: VirtAddr, found: Walk, marked: Walk) -> None:
        for before, after in zip(found.steps, marked.steps, strict=True):
            bits = after.entry & ~before.entry
            if bits:
                now = self._memory.read_word(after.pa)
                self._trace.add(Marked(self.cpu, va, after.pa, now & ~bits))

    def _invalidate_on_fault(self, va: VirtAddr) -> None:
        self.invalidate(FaultedAt(va, self.pcid))


def without_rule(model: CpuModel, rule: Rule) -> CpuModel:
    """The same CPU with one rule of invalidation taken away: for tests that show the rule matters."""
    return replace(model, rules=model.rules - {rule})
