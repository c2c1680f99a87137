"""What page tables say of who has cached an entry: a walk sets A before it caches it (SDM 3A 4.8).

An entry in which no walk has set A is in no TLB, and need not be flushed. The kernel's own have A set
beforehand: that says nothing until it has been cleared, and clearing it says nothing of who has it already.
"""

from __future__ import annotations

from emu.cpu.ops import Load, Store, ThisCpu
from emu.paging.pte import Pte, PteBit
from kernel_model.core.sites import FlushSite
from kernel_model.flush.at_change import FlushesAtTheChange, elsewhere
from kernel_model.flush.policy import EntryChange, NamedPolicy, StaleRange, Ticket
from kernel_model.flush.upstream import UpstreamFlush
from kernel_model.layout import PerCpu


class SkipsUnaccessed(UpstreamFlush):
    """New entries are made old; one that still is when it changes is not flushed."""

    async def change(self, stale: StaleRange, entry: EntryChange) -> None:
        del stale
        before = await entry.exchange(Pte(entry.value & ~PteBit.ACCESSED))
        if before.accessed:
            await Store(PerCpu(await ThisCpu()).flush_owed, 1)

    async def dispatch(self, stale: StaleRange) -> Ticket:
        if stale.site is not FlushSite.ELSEWHERE:
            owed = PerCpu(await ThisCpu()).flush_owed
            if not await Load(owed):
                return Ticket(stale)
            await Store(owed, 0)
        return await super().dispatch(stale)


class SkipsAged(SkipsUnaccessed):
    """A is cleared first, to see whether the entry is in use: whoever has it cached does not set it again."""

    async def change(self, stale: StaleRange, entry: EntryChange) -> None:
        await entry.age()
        await super().change(stale, entry)


class ChangesOldEntries(FlushesAtTheChange, UpstreamFlush):
    """An entry is made old and flushed, and becomes another if it still is old; if not, all over again."""

    async def change(self, stale: StaleRange, entry: EntryChange) -> None:
        while True:
            await entry.age()
            await self.flush(elsewhere(stale))
            if await entry.make_if_old():
                return


_OBLIGATION = "A is clear from the first, or since a flush; the change itself looks at it"
_SOURCE = "Amit: Optimizing the TLB Shootdown Algorithm with Page Access Tracking, USENIX ATC 2017"
ABIS = NamedPolicy(
    "abis",
    "an entry that no walk has marked as accessed since it was made is not flushed",
    SkipsUnaccessed,
    source=_SOURCE,
    obligation=_OBLIGATION,
)
ABIS_KERNEL = NamedPolicy(
    "abis-kernel",
    "as abis, but A, which the kernel sets beforehand, is cleared first, without a flush",
    SkipsAged,
    source=f"{_SOURCE}, for entries with A preset",
    obligation=_OBLIGATION,
)
AF_BBM = NamedPolicy(
    "af-bbm",
    "A is cleared and the entry flushed, and it changes if no walk has set A again; who uses it never faults",
    ChangesOldEntries,
    source="series for HVO on arm64, 2026, which gives up after 16 times",
    obligation="after the flush nobody caches the entry without setting A, which the exchange sees",
)
