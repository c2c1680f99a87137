"""Dead ends: walks from a remembered directory entry that find nothing, whatever the page table says now.

A paging-structure cache may hold a directory entry that memory has lost, and a walk may start from it (SDM
3A 4.10.3). What that walk reads below is memory as it is now, and nobody keeps a table in order that is out
of use: an entry that is absent, or has reserved bits, is a page fault. Nothing of it is cached, and the
fault drops what led there (R12), but the page table shows no reason for it.
"""

from __future__ import annotations

from dataclasses import dataclass

from emu.addr import PAGE_SHIFT, Pfn, PhysAddr, VirtAddr, page_start
from emu.memory import Moment
from emu.paging.pte import Pte
from emu.paging.walk import Control, Lack, ReadWord, Stop, WalkStart, WalkStep, follow


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
