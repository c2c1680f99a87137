"""Lazy coherence: nobody is interrupted, each CPU flushes at its next tick, and pages are held until all did.

Until then CPUs use what is stale. That harms nobody where it shows what the page held has to say, and it does
where a head page was replaced or rights were taken away: these no frame that is held makes up for.
"""

from __future__ import annotations

from emu.cpu.ops import FetchAdd, FlushTlb, Load, NeedTick, SetInterrupts, Store, ThisCpu
from kernel_model.core.smp import run_here
from kernel_model.flush.policy import (
    Deed,
    FlushPolicy,
    NamedPolicy,
    Pages,
    StaleRange,
    Ticket,
    announce,
    settle,
)
from kernel_model.flush.upstream import call_for
from kernel_model.layout import TLB_GEN, PerCpu


class LazyFlush(FlushPolicy):
    """Each flush is a generation; a CPU catches up with the latest, and the slowest says what is settled."""

    async def dispatch(self, stale: StaleRange) -> Ticket:
        generation = await FetchAdd(TLB_GEN, 1) + 1
        begun = await announce(stale, self._setup.online, generation)
        await run_here(call_for(stale, self._setup.ceiling))
        await NeedTick(self._setup.online)
        return Ticket(stale, begun)

    async def flush(self, stale: StaleRange) -> None:
        """Nobody waits for it, and nothing rests on it yet."""
        await self.dispatch(stale)

    async def release(self, ticket: Ticket | None, pages: Pages) -> None:
        del ticket
        cpu = await ThisCpu()
        # A tick between the two would free these by the generation of what was held before.
        were = await SetInterrupts(enabled=False)
        await pages.hold()
        await Store(PerCpu(cpu).held_until, await Load(TLB_GEN))
        await SetInterrupts(were)
        await NeedTick(frozenset({cpu}))

    async def tick(self, free_held: Deed) -> None:
        own = PerCpu(await ThisCpu())
        generation = await Load(TLB_GEN)
        if await Load(own.tlb_gen) != generation:
            await FlushTlb()
            await Store(own.tlb_gen, generation)
        settled = await self.settled(own)
        if settled:
            await settle(settled)
        for cpu in sorted(self._setup.online - {own.cpu}):
            if 0 < await Load(PerCpu(cpu).held_until) <= settled:
                await NeedTick(frozenset({cpu}))
        if 0 < await Load(own.held_until) <= settled:
            await Store(own.held_until, 0)
            await free_held()

    async def settled(self, own: PerCpu) -> int:
        """The generation that every CPU has caught up with."""
        del own
        return min([await Load(PerCpu(cpu).tlb_gen) for cpu in sorted(self._setup.online)])


class LazyFlushTooShort(LazyFlush):
    """What this CPU has caught up with the others will have as well by now."""

    async def settled(self, own: PerCpu) -> int:
        return await Load(own.tlb_gen)


_SOURCE = "Kumar et al., LATR: Lazy Translation Coherence, ASPLOS 2018, for user addresses"
_OBLIGATION = "a page is held until every CPU has caught up; what it shows until then is right, and read only"
LATR = NamedPolicy(
    "latr",
    "CPUs flush at their next tick, and pages are held until all have",
    LazyFlush,
    source=_SOURCE,
    obligation=_OBLIGATION,
)
LATR_SHORT = NamedPolicy(
    "latr-short",
    "as latr, but pages are held only until the next tick of the CPU that holds them",
    LazyFlushTooShort,
    source=f"{_SOURCE}, with ticks that do not come everywhere in that time",
    obligation=_OBLIGATION,
)
