"""Break-before-make: an entry in use is made not present, and flushed, before it becomes another.

What the architecture of arm64 demands where the output address or the size changes, and what was proposed for
HVO there. Whoever meets the gap faults, and waits in the handler with interrupts off: so the flush must not
need an interrupt. The handler looks at the page tables under the lock: by the time it has waited for one gap
the next may be there, and that would be an Oops.
"""

from __future__ import annotations

from emu.cpu.condition import Word, WordIs
from emu.cpu.ops import AddWords, Await
from emu.paging.models import with_invlpgb
from kernel_model.flush.at_change import FlushesAtTheChange, elsewhere
from kernel_model.flush.broadcast import BroadcastFlush
from kernel_model.flush.policy import Deed, EntryChange, NamedPolicy, StaleRange
from kernel_model.flush.upstream import UpstreamFlush

BROKEN = Word("an entry of vmemmap is broken")


class Breaks(FlushesAtTheChange):
    """One entry at a time."""

    async def change(self, stale: StaleRange, entry: EntryChange) -> None:
        await Await(WordIs(BROKEN, 0), then=((BROKEN, 1),))
        await entry.clear()
        await self.flush(elsewhere(stale))
        await entry.make()
        await AddWords(((BROKEN, -1),))


class BreaksBroadcasting(Breaks, BroadcastFlush):
    """Hardware tells the others, as TLBI does on arm64."""


class BreaksInterrupting(Breaks, UpstreamFlush):
    """Who waits in the page-fault handler cannot answer."""


async def look_when_whole(look: Deed) -> None:
    """What the page-fault handler does: as long as it looks, nothing is broken."""
    await Await(WordIs(BROKEN, 0), then=((BROKEN, 1),))
    await look()
    await AddWords(((BROKEN, -1),))


async def look_when_made(look: Deed) -> None:
    """It waits, and then it looks: another entry may be broken by then."""
    await Await(WordIs(BROKEN, 0))
    await look()


_OBLIGATION = "who meets a gap waits for its end, sees no other, and the flush waits for nobody who does"
BBM = NamedPolicy(
    "bbm",
    "an entry is made not present and flushed before it becomes another; who faults waits",
    BreaksBroadcasting,
    source="break-before-make, as arm64 demands it and series for HVO there do it",
    obligation=_OBLIGATION,
    hardware=with_invlpgb,
    absent=look_when_whole,
)
BBM_UNLOCKED_LOOK = NamedPolicy(
    "bbm-unlocked-look",
    "as bbm, but who faults looks again when it has waited, without the lock",
    BreaksBroadcasting,
    source="a page-fault handler that only waits",
    obligation=_OBLIGATION,
    hardware=with_invlpgb,
    absent=look_when_made,
)
BBM_BY_INTERRUPT = NamedPolicy(
    "bbm-by-interrupt",
    "as bbm, but CPUs are interrupted to flush, as upstream does",
    BreaksInterrupting,
    source="break-before-make on CPUs without broadcasts",
    obligation=_OBLIGATION,
    absent=look_when_whole,
)
