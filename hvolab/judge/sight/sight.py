"""Sight itself: what judges may know of a machine, and nothing else.

It answers from the machine, its journal, and what it has remembered of events. Everything asked is told to
the watcher in the step in which it is asked, as what the answer depends on; so a search that watches orders
the steps that verdicts can depend on, whoever judges.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

from emu.addr import PAGE_BYTES, PAGE_SHIFT, Pfn, PhysAddr, VirtAddr, frame_start, page_start
from emu.choice import Choice, Step
from emu.cpu.condition import Word, words_of
from emu.cpu.cpu import RoutineContext
from emu.cpu.ops import AddWords, Await
from emu.events import Copied, Filled, Site, Source, Stored
from emu.kept import Bookmark, Kept
from emu.machine import Machine
from emu.memory import Moment
from emu.paging.dead_end import DeadEnd
from emu.paging.tlb import Port, TlbEntry
from emu.paging.walk import Walk, WalkStep
from hvolab.judge.sight.cells import Bags, Cells, Remembering, Watching, itself
from hvolab.judge.sight.endings import Ending
from hvolab.judge.sight.facts import VersionFacts
from hvolab.judge.sight.frames import Lost
from hvolab.judge.sight.mappings import AddressRange
from hvolab.judge.sight.operations import Operation
from hvolab.judge.sight.remembered import Remembered, held_resource, operation_resource
from hvolab.judge.sight.requests import Request
from hvolab.judge.sight.resource import CellName, Kind, Resource
from hvolab.judge.sight.watcher import Nobody, Watcher
from kernel_model.layout import VMEMMAP_END, VMEMMAP_START
from kernel_model.mm.image import HugePage

V = TypeVar("V")

_TABLE_PAGES = 512  # 4 KiB pages that a page table translates
_DIRECTORY_PAGES = 512 * _TABLE_PAGES
_SAID = CellName("what judges say")
VMEMMAP = AddressRange(VMEMMAP_START, VMEMMAP_END)


class Sight(Kept):
    """Of one run, from time zero on. `ranges`: where stale uses are judged."""

    def __init__(
        self,
        machine: Machine,
        huge_pages: Sequence[HugePage] = (),
        ranges: Sequence[AddressRange] = (VMEMMAP,),
    ) -> None:
        self._machine = machine
        self._memory = machine.memory
        self._memories: list[Remembering] = []
        self._named: dict[str, Cells[Any] | Bags[Any]] = {}
        self._peek = machine.cpus[0].mmu.peek
        self._peek_at = machine.cpus[0].mmu.peek_at
        self._ranges = tuple(ranges)
        self._watching = Watching(Nobody())
        self._remembered = Remembered(machine, ranges, huge_pages, self._watching)
        self._looked_at: set[int] | None = None
        self._comparable = True
        self.cpus = range(len(machine.cpus))
        self.model = machine.cpus[0].mmu.model
        self.observe = self._remembered.observe  # to be told of every event before judges are

    def stored(self, number: int, event: Stored | Copied | Filled) -> None:
        """Told instead of `observe` where it is known that the store matters to nobody."""
        self._remembered.stored_somewhere(number, event)

    def watched_by(self, watcher: Watcher) -> None:
        """From now on tell this one what is asked."""
        self._watching.watcher = watcher

    def cells(self, kind: str, empty: V, counts: Callable[[V], Hashable] = itself) -> Cells[V]:
        """A judge's memory; the kind's name is the judge's own. `counts`: what a value is to verdicts."""
        cells = self._named[kind] = Cells(kind, empty, self._watching, counts)
        self._memories.append(cells)
        return cells

    def bags(self, kind: str) -> Bags[V]:
        bags: Bags[V] = Bags(kind, self._watching)
        self._named[kind] = bags
        self._memories.append(bags)
        return bags

    def numbers_are_told(self) -> None:
        """A judge is told numbers of events, and may remember them: then no two runs come to one state."""
        self._comparable = False

    @property
    def comparable(self) -> bool:
        """Whether `state` says all that judges can depend on."""
        return self._comparable

    def says(self) -> None:
        """A judge says something: that disturbs nobody, but is more than an access."""
        self._watching.watcher.marks(_SAID)

    def remembers(self, one: Remembering) -> None:
        """A part of the judges that is no cell: nothing asked in a step depends on it."""
        self._memories.append(one)

    def state(self) -> tuple[Hashable, ...]:
        """What judges remember. What Sight does follows from the events that were."""
        return tuple(memory.state() for memory in self._memories)

    def state_of(self, name: CellName) -> Hashable:
        """What judges remember in that cell, or bag."""
        return None if name == _SAID else self._named[name.judge].state_of(name)

    def mark(self) -> Bookmark:
        """What it has kept of the run, and what judges have."""
        return Bookmark((), (self._remembered.mark(), *(memory.mark() for memory in self._memories)))

    def back(self, mark: Bookmark) -> None:
        """To what it was then; of the same judges."""
        kept: tuple[Remembering | Remembered, ...] = (self._remembered, *self._memories)
        for part, was in zip(kept, mark.parts, strict=True):
            part.back(was)

    # -- memory and page tables now ------------------------------------------------------------------

    def is_judged(self, va: int) -> bool:
        """Whether stale uses of that address are judged."""
        for one in self._ranges:  # noqa: SIM110 (asked at every access)
            if one.start <= va < one.end:
                return True
        return False

    def judged_walks(self) -> Iterator[Walk]:
        """A walk through each page directory of what is judged, and through each table, at time zero."""
        for first in self._remembered.mappings.directories():
            pages = range(first, first + _DIRECTORY_PAGES, _TABLE_PAGES)
            found = (self._peek(VirtAddr(page << PAGE_SHIFT)) for page in pages)
            yield from islice((one for one in found if isinstance(one, Walk)), 1)
        tables = (self._peek(VirtAddr(page << PAGE_SHIFT)) for page in self._remembered.mappings.tables())
        yield from (one for one in tables if isinstance(one, Walk))

    def walk(self, va: VirtAddr) -> Walk | None:
        """What the page tables say of an address; None when nothing is mapped there."""
        self._watching.watcher.reads_translation(va >> PAGE_SHIFT)
        found = self._peek(va)
        if not isinstance(found, Walk):
            return None
        if self._looked_at is not None:
            self._looked_at.update(step.pa >> 3 for step in found.steps)
        return found

    def word(self, va: VirtAddr) -> int | None:
        """The aligned 8 bytes there, by the page table; None when nothing is mapped."""
        found = self.walk(va)
        return None if found is None else self.physical_word(found.pa)

    def physical_word(self, pa: PhysAddr) -> int:
        """The aligned 8 bytes at a physical address."""
        self._reads_memory(pa, 8)
        return self._memory.read_word(pa)

    def read(self, pa: PhysAddr, length: int) -> bytes:
        """Bytes at a physical address, within a frame."""
        self._reads_memory(pa, length)
        return self._memory.read(pa, length)

    def frame(self, pfn: Pfn) -> bytes:
        """A whole frame."""
        self._watching.watcher.reads(Resource(Kind.BULK_READ, pfn))
        return self._memory.read(frame_start(pfn), PAGE_BYTES)

    @property
    def memory_bytes(self) -> int:
        return self._memory.size

    def count(self, counter: str) -> int:
        """The sum of a per-CPU counter over all CPUs."""
        self._watching.watcher.reads(Word(counter))
        return self._machine.count(counter)

    def registers(self, cpu: int) -> dict[str, int] | None:
        """Of the guest program that the CPU runs, or ran last: its own steps change them."""
        core = self._machine.cpus[cpu].core
        return None if core is None else core.registers()

    def changes_of_words(self, choice: Choice) -> tuple[tuple[Word, int], ...]:
        """What a step about to be made adds to named words: its own CPU's op says so."""
        if not isinstance(choice, Step):
            return ()
        top = self._machine.cpus[choice.cpu].top
        if not isinstance(top, RoutineContext):
            return ()
        match top.pending:
            case Await(then=changes) | AddWords(changes=changes):
                return changes
            case _:
                return ()

    def functions(self, cpu: int) -> tuple[str, ...]:
        """The functions that the CPU's kernel routine is in, outermost first."""
        top = self._machine.cpus[cpu].top
        return top.functions() if isinstance(top, RoutineContext) else ()

    def waited_for(self, cpu: int) -> list[tuple[Word, int]]:
        """The named words that the CPU waits for, and their values. For the end of a run."""
        top = self._machine.cpus[cpu].top
        if not isinstance(top, RoutineContext) or not isinstance(top.pending, Await):
            return []
        return [(word, self._machine.words[word]) for word in words_of(top.pending.condition)]

    def site(self, cpu: int) -> Site:
        """Where that CPU is."""
        core = self._machine.cpus[cpu].core
        return self._machine.cpus[cpu].site() if core is None else core.site()

    @property
    def next_event(self) -> int:
        """The number of the event to come. It names a place in one run, and orders nothing."""
        return self._machine.trace.next_number

    # -- a translation that was used, or could be ----------------------------------------------------

    def removed(self, cpu: int, entry: TlbEntry, source: Source) -> int | None:
        """The event of an invalidation by that CPU that must have removed what it has used."""
        return self._remembered.requests.removed(cpu, entry) if source is Source.HIT else None

    def ending_of(self, va: VirtAddr, entry: TlbEntry) -> Ending | None:
        """The store that ended the version; None while it is what a walk gives."""
        self._watching.watcher.reads_translation(va >> PAGE_SHIFT)
        return self._remembered.endings.ending_of(entry)

    def ending_of_dead_end(self, ended: DeadEnd) -> Ending | None:
        """The store that ended the directory entry that a walk remembered."""
        self._watching.watcher.reads_translation(ended.page >> PAGE_SHIFT)
        endings = (
            self._remembered.endings.ending_of_step(step, ended.moment)
            for step in ended.steps[: ended.remembered]
        )
        return min((one for one in endings if one is not None), key=lambda one: one.moment, default=None)

    def lost(self, va: VirtAddr, entry: TlbEntry) -> Lost | None:
        """That the frame was lost by its holder while, or after, the page tables led from `va` to it."""
        pfn = entry.frame_of(va)
        self._watching.watcher.reads(Resource(Kind.LOST, pfn))
        lost = self._remembered.frames.last_lost(pfn)
        if lost is None or lost.moment < self._led_since(va, entry):
            return None
        return lost

    def _led_since(self, va: VirtAddr, entry: TlbEntry) -> Moment:
        """Since when the address has led to the frame that the version gives, whatever its rights."""
        endings, steps, known = self._remembered.endings, entry.steps, entry.moment
        while True:
            since = endings.installed_at(steps, known)
            before = self._peek_at(va, since - 1) if since else None
            if not isinstance(before, Walk) or before.pa >> PAGE_SHIFT != entry.frame_of(va):
                return since
            steps, known = before.steps, since - 1

    def lost_table(self, entry: TlbEntry) -> tuple[Pfn, Lost] | None:
        """A page-table page on the path that was read after it was lost.

        An older version was walked for at some time: it counts only where that can have been no earlier. The
        present one a lazy CPU may walk for again at any use, whatever it has cached.
        """
        walks_again = self.model.is_lazy and entry.filled_at >= 0
        for table, lost in self._lost_tables(entry.steps, entry.moment):
            if walks_again or lost.moment < entry.since or lost.event < entry.after:
                return table, lost
        return None

    def _lost_tables(self, steps: tuple[WalkStep, ...], moment: Moment) -> Iterator[tuple[Pfn, Lost]]:
        """The page-table pages on a path that were lost while, or after, the path led to them."""
        for number, step in enumerate(steps):
            if number == 0:
                continue  # the root is not handed out
            table = Pfn(step.pa >> PAGE_SHIFT)
            self._watching.watcher.reads(Resource(Kind.LOST, table))
            lost = self._remembered.frames.last_lost(table)
            if lost is not None and lost.moment >= self._remembered.endings.installed_at(
                steps[:number], moment
            ):
                yield table, lost

    def free_now(self, pfn: int) -> Lost | None:
        """When the frame was freed, if nobody has it now."""
        self._watching.watcher.reads(Resource(Kind.OWNER, pfn))
        return self._remembered.frames.freed_and_free(pfn)

    def last_store(self, pa: PhysAddr) -> tuple[int, Stored] | None:
        """The latest store to exactly that physical address, with its event."""
        self._reads_memory(pa, 8)
        return self._remembered.endings.last_to(pa)

    def facts_of(self, va: VirtAddr, used: TlbEntry | None) -> VersionFacts:
        """What tells a translation that an access may use from others; None: a walk made now."""
        if used is None:
            found = self.walk(va)
            if found is None:
                return VersionFacts(None)
            table = next(self._lost_tables(found.steps, self._memory.journal.now), None)
            return VersionFacts((found.pa >> PAGE_SHIFT, found.rights, found.leaf.dirty), table=table)
        frame = used.frame_of(va)
        ending = self.ending_of(va, used)
        return VersionFacts(
            (int(frame), used.rights, used.dirty),
            self.lost(va, used),
            self.lost_table(used),
            None if ending is None else ending.moment,
        )

    # -- flushes and operations ----------------------------------------------------------------------

    def translated_by(self, pa: PhysAddr) -> VirtAddr | None:
        """The first address that a table entry at `pa` translates, of what is judged; None: it is none."""
        page = self._remembered.mappings.page_of(pa)
        return None if page is None else VirtAddr(page << PAGE_SHIFT)

    def requests(self, va: VirtAddr) -> list[Request]:
        """The flush requests that have the page of `va` in their range."""
        self._watching.watcher.reads(Resource(Kind.OWED, va >> PAGE_SHIFT))
        return self._remembered.requests.of(va)

    def open_requests(self) -> list[Request]:
        """Flush requests that have not been completed. For a run's end: by then no order matters."""
        return self._remembered.requests.open()

    def covering(self, va: VirtAddr, ending: Ending | None) -> list[Request]:
        """Those of them that began after the store."""
        if ending is None or ending.event is None:
            return []
        return [request for request in self.requests(va) if request.begun > ending.event]

    def last_removal(self, cpu: int, entry: TlbEntry, before: int) -> int | None:
        """The last invalidation by that CPU, before that event, that removes such an entry."""
        return self._remembered.requests.last_removal(cpu, entry, before)

    def operation(self, begun: int) -> Operation:
        """The operation that began with that event, and whether it has returned."""
        operation = self._remembered.operations[begun]
        self._watching.watcher.reads(operation_resource(operation))
        return operation

    def changed_by(self, begun: int) -> set[int]:
        """The pages, by number, to which the operation that began with that event gave other translations."""
        self.operation(begun)
        return self._remembered.changed_by.get(begun, set())

    def holders(self, folio: VirtAddr) -> list[Operation]:
        """The operations under way that have announced the folio."""
        self._watching.watcher.reads(held_resource(folio))
        return [one for one in self._remembered.operations.under_way() if folio in one.folios]

    # -- at the end of a run -------------------------------------------------------------------------

    def is_at_rest(self) -> bool:
        """Whether an operation has returned, and none is under way. For the end of a run."""
        operations = self._remembered.operations
        return operations.any_returned and not operations.under_way()

    def may_use(self, cpu: int) -> Iterator[tuple[VirtAddr, TlbEntry]]:
        """What that CPU may still use of judged addresses, page by page, and holds. For the end of a run.

        A lazy TLB is asked about every page that has ever had another translation: whatever the CPU has
        run, it may have cached it.
        """
        mmu = self._machine.cpus[cpu].mmu
        if mmu.model.is_lazy:
            for number in sorted(self._remembered.mappings.changed):
                va = VirtAddr(number << PAGE_SHIFT)
                for entry in mmu.tlb.usable(va, mmu.pcid, Port.DATA).entries:
                    yield va, entry
            return
        for entry in mmu.tlb.entries():
            for page in range(entry.page, entry.page + entry.size, PAGE_BYTES):
                if self.is_judged(page):
                    yield VirtAddr(page), entry

    def held_by_tlbs(self, va: VirtAddr) -> Iterator[tuple[int, TlbEntry]]:
        """The translations of a page that some CPU holds: for display, which nothing depends on."""
        for cpu in self._machine.cpus:
            for entry in cpu.mmu.tlb.entries():
                if entry.holds(page_start(va)):
                    yield cpu.number, entry

    def displayed(self, va: VirtAddr) -> Walk | None:
        """What the page tables say of an address: for display, which nothing depends on."""
        found = self._peek(va)
        return found if isinstance(found, Walk) else None

    def ended(self, entry: TlbEntry) -> bool:
        """Whether the version is over: for display, which nothing depends on."""
        return self._remembered.endings.ending_of(entry) is not None

    @contextmanager
    def looking(self) -> Iterator[set[int]]:
        """While the block runs: the words (address / 8) that are looked at, those of page tables included."""
        self._looked_at = set()
        try:
            yield self._looked_at
        finally:
            self._looked_at = None

    def _reads_memory(self, pa: PhysAddr, length: int) -> None:
        watcher = self._watching.watcher
        words = range(pa >> 3, (pa + length + 7) >> 3)
        if self._looked_at is not None:
            self._looked_at.update(words)
        for word in words:
            watcher.reads(word)
        watcher.marks(Resource(Kind.BULK_WRITE, pa >> PAGE_SHIFT))
