"""Uses of translations and frames: rows 1 to 4 and 9 of the table in docs/verdicts.md."""

from __future__ import annotations

from typing import assert_never

from emu.addr import PAGE_SHIFT, Pfn, VirtAddr
from emu.events import (
    Copied,
    Filled,
    Loaded,
    LoadedBytes,
    MachineEvent,
    MultiHitSeen,
    Source,
    Stored,
)
from emu.paging.tlb import TlbEntry
from emu.paging.walk import Access
from hvolab.judge.describe import describe_ending, describe_entry, describe_storer, place_of
from hvolab.judge.sight.endings import Ending
from hvolab.judge.sight.frames import Loss, Lost
from hvolab.judge.sight.sight import Sight
from hvolab.judge.tlb_rows import tlb_rows
from hvolab.judge.told import Told
from hvolab.judge.verdict import Finding, Use, Verdict

_Accessed = Loaded | LoadedBytes | Stored | Copied | Filled


class Uses:
    """Judges every access: the translation where that is judged, the frame everywhere."""

    def __init__(self, sight: Sight, told: Told) -> None:
        self._sight = sight
        self._told = told

    def observe(self, number: int, event: MachineEvent) -> None:
        match event:
            case Loaded(va=va, entry=entry, source=source):
                self._access(number, event, va, entry, source, Access.READ)
            case LoadedBytes(va=va, entry=entry):
                self._access(number, event, va, entry, Source.HIT, Access.READ)
            case Stored(va=va, entry=entry, source=source):
                self._access(number, event, va, entry, source, Access.WRITE)
            case Copied(source_va=va, source_entry=entry, to=to, to_entry=to_entry):
                self._access(number, event, to, to_entry, Source.HIT, Access.WRITE)
                self._access(number, event, va, entry, Source.HIT, Access.READ)
            case Filled(va=va, entry=entry):
                self._access(number, event, va, entry, Source.HIT, Access.WRITE)
            case MultiHitSeen(va=va, sizes=sizes):
                seen = " and ".join(str(size) for size in sizes)
                where = place_of(event.cpu, va, None)
                cause = f"{seen} entries for one address"
                self._told.finding(Finding(Verdict.TLB_MULTIHIT, (), where, number, cause, ()))
            case _:
                pass  # no access

    def _access(
        self, number: int, event: _Accessed, va: VirtAddr, entry: TlbEntry, source: Source, access: Access
    ) -> None:
        if self._sight.is_judged(va):
            self._use(number, event, va, entry, source, access)
        else:
            self._frame(number, event, va, entry, access)

    def _frame(self, number: int, event: _Accessed, va: VirtAddr, entry: TlbEntry, access: Access) -> None:
        """An address whose translation is not judged: only whether anybody has the frame."""
        pfn = entry.frame_of(va)
        freed = self._sight.free_now(pfn)
        if freed is None:
            return
        why = (
            f"cpu{event.cpu} used {describe_entry(entry)}",
            f"pfn {pfn:#x} was freed at event {freed.event}, and nobody has allocated it since",
        )
        where = place_of(event.cpu, va, event.site)
        use = Use(Verdict.USE_AFTER_FREE, (), where, number, access.value, pfn, pfn, why)
        self._note(use, va, "a frame was used that had been freed")

    def _use(
        self, number: int, event: _Accessed, va: VirtAddr, entry: TlbEntry, source: Source, access: Access
    ) -> None:
        sight = self._sight
        removed = sight.removed(event.cpu, entry, source)
        ending = sight.ending_of(va, entry)
        frame = entry.frame_of(va)
        lost, table = sight.lost(va, entry), sight.lost_table(entry)
        if removed is None and ending is None and lost is None and table is None:
            return
        held: list[Verdict] = []
        why: list[str] = [f"cpu{event.cpu} used {describe_entry(entry)}"]
        if removed is not None:
            held.append(Verdict.MODEL_ERROR)
            why.append(f"the invalidation at event {removed} should have removed it")
        current = sight.walk(va)
        current_frame = None if current is None else current.pa >> PAGE_SHIFT
        same = current is not None and current_frame == frame and current.rights == entry.rights
        if ending is not None:
            why.append(describe_ending(ending))
            if not (same and lost is None and table is None):
                self._judge_flushes(va, ending, held, why)
        if table is not None:
            held.append(Verdict.USE_AFTER_FREE)
            why.append(
                f"the page table in pfn {table[0]:#x} {table[1].how.value} at event {table[1].event}, before "
                "it was read for this"
            )
        if lost is not None:
            held += [Verdict.USE_AFTER_FREE] if table is None else []
            why.append(f"pfn {frame:#x} {lost.how.value} at event {lost.event}, before this use")
        if not held:
            held.append(Verdict.EQUIVALENT if same else Verdict.LEGAL)
        where = place_of(event.cpu, va, event.site)
        reasons = tuple(why)
        use = Use(
            held[0], tuple(held[1:]), where, number, access.value, frame, current_frame, reasons, used=entry
        )
        guilty = "" if ending is None or ending.store is None else describe_storer(ending.store)
        self._note(use, va, _cause(use.verdict, lost, table), entry, guilty)

    def _judge_flushes(self, va: VirtAddr, ending: Ending, held: list[Verdict], why: list[str]) -> None:
        """Rows 3 and 9 of the table: was a flush owed, and has the kernel come to rely on one?"""
        sight = self._sight
        covering = sight.covering(va, ending)
        done = [request for request in covering if request.completed is not None]
        operation = None if ending.operation is None else sight.operation(ending.operation)
        if done:
            held.append(Verdict.MISSED_FLUSH)
            why.append(f"covered by {done[0]}: the entry should be gone")
            model = sight.model
            why.extend(
                f"an erratum of {model.name}: it does not keep rule {rule.value}" for rule in model.errata
            )
        elif not covering and operation is not None and operation.returned is not None:
            held.append(Verdict.MISSED_FLUSH)
            returned = f"{operation.function} returned at event {operation.returned}"
            why.append(f"{returned} and no flush since that store covers the page")
        else:
            for request in sight.requests(va):
                if request.begun < (ending.event or 0) < (request.completed or request.begun):
                    why.append(f"not covered by {request}: it began before the store")
            why.append(
                f"pending: {covering[0]}" if covering else "no flush that covers the page has completed yet"
            )

    def _note(
        self, use: Use, va: VirtAddr, cause: str, entry: TlbEntry | None = None, guilty: str = ""
    ) -> None:
        """The first violation of its kind becomes a finding."""
        first = self._told.use(use)
        if first and (use.verdict.is_violation or use.verdict is Verdict.MODEL_ERROR):
            rows = tlb_rows(self._sight, va)
            self._told.finding(
                Finding(
                    use.verdict,
                    use.also,
                    use.where,
                    use.event,
                    cause,
                    use.why,
                    use.pfn,
                    tlbs=rows,
                    used=entry,
                    guilty=guilty,
                )
            )


def _cause(verdict: Verdict, lost: Lost | None, table: tuple[Pfn, Lost] | None) -> str:
    """One sentence for a use that is a finding."""
    if verdict is Verdict.MODEL_ERROR:
        return "the TLB returned an entry that an invalidation should have removed"
    if verdict is Verdict.MISSED_FLUSH:
        return "a stale entry was used although the flush it needed is over"
    if table is not None:
        return f"a walk went through a page table whose frame {_had(table[1])}"
    return "" if lost is None else f"a stale entry led to a frame that {_had(lost)}"


def _had(lost: Lost) -> str:
    match lost.how:
        case Loss.FREED:
            return "had been freed"
        case Loss.REUSED:
            return "had been put to another use"
        case _:
            assert_never(lost.how)
