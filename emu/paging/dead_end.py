"""Dead ends: walks from a remembered directory entry that find nothing, whatever the page table says now.

A paging-structure cache may hold a directory entry that memory has lost, and a walk may start from it (SDM
3A 4.10.3). What that walk reads below is memory as it is now, and nobody keeps a table in order that is out
of use: an entry that is absent, or has reserved bits, is a page fault. Nothing of it is cached, and the
fault drops what led there (R12), but the page table shows no reason for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from emu.addr import PAGE_SHIFT, Pfn, PhysAddr, VirtAddr, page_start
from emu.memory import Moment, PhysicalMemory
from emu.paging.pte import Pte
from emu.paging.walk import (
    TOP_LEVEL,
    Control,
    Lack,
    ReadWord,
    Stop,
    WalkStart,
    WalkStep,
    entry_address,
    follow,
    reserved_bits,
)


@dataclass(frozen=True, slots=True)
class DeadEnd:
    """A walk for `page` made now took `steps`, of which it remembered the first `remembered`.

    It ended at `entry`, of that level, in memory at `pa`. `moment` is the number of stores made before the
    last moment at which it could have read all it remembered, or did.
    """

    page: VirtAddr
    steps: tuple[WalkStep, ...]
    remembered: int
    level: int
    pa: PhysAddr
    entry: Pte
    lack: Lack
    moment: Moment

    @property
    def table(self) -> Pfn:
        """The frame of the table in which it ended."""
        return Pfn(self.pa >> PAGE_SHIFT)

    @property
    def path(self) -> tuple[WalkStep, ...]:
        """All entries read, the last included."""
        return (*self.steps, WalkStep(self.level, self.pa, self.entry))

    def __str__(self) -> str:
        last = self.steps[self.remembered - 1]
        return (
            f"a walk from the remembered level {last.level} entry {int(last.entry):#x} of {last.pa:#x} ends "
            f"at {self.pa:#x}: the level {self.level} entry {self.lack.value}"
        )


def dead_end(
    read_word: ReadWord,
    start: WalkStart,
    fresh: WalkStart,
    va: VirtAddr,
    control: Control,
    physical_bits: int,
) -> DeadEnd | None:
    """Where a walk from the remembered `start` ends dead.

    None where it does not, and where one from the root, `fresh`, meets the same fault.
    """
    if not start.steps:
        return None
    found = follow(read_word, start, va, control, physical_bits)
    if not isinstance(found, Stop):
        return None
    anew = follow(read_word, fresh, va, control, physical_bits)
    if isinstance(anew, Stop) and anew.lack is found.lack:
        return None
    end = found.end
    return DeadEnd(
        page_start(va),
        found.steps,
        len(start.steps),
        end.level,
        end.pa,
        end.entry,
        found.lack,
        start.moment,
    )


def dead_ends(
    memory: PhysicalMemory, root: Pfn, va: VirtAddr, since: Moment, control: Control, physical_bits: int
) -> tuple[DeadEnd, ...]:
    """All dead ends of walks for `va` by what could be remembered since then, oldest first."""
    fresh = WalkStart(TOP_LEVEL, root, moment=memory.journal.now)
    newest: dict[tuple[WalkStep, ...], DeadEnd] = {}
    for start in _remembered(memory, va, fresh, since, control, physical_bits):
        found = dead_end(memory.read_word, start, fresh, va, control, physical_bits)
        if found is not None:
            newest[found.path] = found
    return tuple(sorted(newest.values(), key=lambda found: found.moment))


def _remembered(
    memory: PhysicalMemory,
    va: VirtAddr,
    above: WalkStart,
    since: Moment,
    control: Control,
    physical_bits: int,
) -> Iterator[WalkStart]:
    """Where walks below `above` can start that memory does not lead to any more."""
    pa = entry_address(above.table, va, above.level)
    if pa + 8 > memory.size:
        return
    read: Moment | None = since
    while read is not None:
        entry = Pte(memory.word_at(pa, read))
        change = memory.journal.next_change(pa, 8, read)
        large = entry.page_size and above.level < TOP_LEVEL
        if entry.present and not large and not reserved_bits(entry, above.level, physical_bits, control):
            steps = (*above.steps, WalkStep(above.level, pa, entry))
            moment = above.moment if change is None else min(above.moment, change)
            below = WalkStart(above.level - 1, entry.pfn, above.rights.and_entry(entry), steps, moment)
            # What is remembered of a path was read with A set in all of it (SDM 3A 4.10.3.1).
            if change is not None and all(step.entry.accessed for step in steps):
                yield below
            if below.level > 1:
                yield from _remembered(memory, va, below, read, control, physical_bits)
        read = None if change is None else change + 1
