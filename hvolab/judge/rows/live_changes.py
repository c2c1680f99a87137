"""Row 2, on CPUs that ask for break-before-make: an entry in use may not become another at one stroke.

It is in use while it is present and A is set: a walk sets A before anything is cached.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from emu.addr import PAGE_BYTES, VirtAddr
from emu.events import MachineEvent, Marked, Stored
from emu.paging.pte import Pte
from hvolab.judge.describe import place_of
from hvolab.judge.sight.sight import Sight
from hvolab.judge.told import Told
from hvolab.judge.verdict import Finding, Verdict


@dataclass(frozen=True, slots=True)
class _Broken:
    """An entry that has been made not present, or old, by that event, and what it was."""

    was: Pte
    event: int


_LARGE = 512  # pages of 4 KiB
_WHOLE: _Broken | None = None


def _what_it_was(broken: _Broken | None) -> Hashable:
    """Which requests are later than its break Sight knows."""
    return None if broken is None else broken.was


class LiveChanges:
    """Judges every store to a page table of what is judged."""

    def __init__(self, sight: Sight, told: Told) -> None:
        self._sight = sight
        self._told = told
        self._broken = sight.cells("what an entry was before it was broken", _WHOLE, _what_it_was)

    def observe(self, number: int, event: MachineEvent) -> None:
        match event:
            case Stored(size=8, pa=pa):
                va = self._sight.translated_by(pa)
                if va is not None:
                    self._changed(number, event, va)
            case Marked(pa=pa) if self._broken.get(pa >> 3) is not None:
                self._broken.set(None, pa >> 3)  # it is in use again
            case _:
                pass  # no change of an entry

    def _changed(self, number: int, event: Stored, va: VirtAddr) -> None:
        entry, old, new = event.pa >> 3, Pte(event.old), Pte(event.value)
        if _in_use(old):
            if not _in_use(new):
                self._broken.set(_Broken(old, number), entry)
            elif _differs(old, new):
                self._tell(number, event, va, f"{_words(old)} became {_words(new)} while it was in use")
            return
        broken = self._broken.get(entry)
        if broken is None or not new.present or (new == old and not _in_use(new)):
            return
        self._broken.set(None, entry)
        if _differs(broken.was, new) and not self._flushed(va, broken):
            how = "old" if old.present else "not present"
            gap = f"{_words(broken.was)} was made {how} at event {broken.event}"
            self._tell(
                number, event, va, f"{gap} and became {_words(new)} before a flush of that was complete"
            )

    def _flushed(self, va: VirtAddr, broken: _Broken) -> bool:
        """Whether a later request of it is complete: of any page of a large one, of the first of a table."""
        pages = range(_LARGE if broken.was.page_size else 1)
        asked = (self._sight.requests(VirtAddr(va + page * PAGE_BYTES)) for page in pages)
        return any(one.begun > broken.event and one.completed is not None for some in asked for one in some)

    def _tell(self, number: int, event: Stored, va: VirtAddr, why: str) -> None:
        where = place_of(event.cpu, va, event.site)
        cause = "a translation in use was given another frame or size without a gap, which this CPU forbids"
        self._told.finding(Finding(Verdict.LIVE_CHANGE, (), where, number, cause, (why,)))


def _in_use(entry: Pte) -> bool:
    return entry.present and entry.accessed


def _differs(old: Pte, new: Pte) -> bool:
    return old.pfn != new.pfn or old.page_size != new.page_size


def _words(entry: Pte) -> str:
    return f"pfn {entry.pfn:#x} {entry.flags()}"
