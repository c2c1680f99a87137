"""Linux from v6.15 on AMD CPUs with INVLPGB (arch/x86/mm/tlb.c): hardware tells the others.

Rule L7 of docs/hardware-rules.md. As no interrupt is sent, none waits for a section with interrupts off.
"""

from __future__ import annotations

from emu.addr import PAGE_SHIFT, VirtAddr
from emu.cpu.ops import Invlpgb, InvlpgbAll, TlbSync
from emu.paging.models import with_invlpgb
from kernel_model.flush.policy import FlushPolicy, NamedPolicy, StaleRange, Ticket, announce


class BroadcastFlush(FlushPolicy):
    """Sends an INVLPGB for each so many pages, and relies on the TLBSYNC after them."""

    async def dispatch(self, stale: StaleRange) -> Ticket:
        """invlpgb_flush_all(), or invlpgb_kernel_range_flush()."""
        begun = await announce(stale, self._setup.online)
        if stale.pages > self._setup.ceiling:
            await InvlpgbAll()
        else:
            most = self._setup.invlpgb_count_max
            for done in range(0, stale.pages, most):
                await Invlpgb(VirtAddr(stale.start + (done << PAGE_SHIFT)), min(most, stale.pages - done))
        return Ticket(stale, begun)

    async def rely(self, ticket: Ticket) -> None:
        del ticket
        await TlbSync()


class DoesNotSync(BroadcastFlush):
    """Sends as many, and goes on."""

    async def rely(self, ticket: Ticket) -> None:
        """At once."""


INVLPGB = NamedPolicy(
    "invlpgb",
    "INVLPGB tells all CPUs, TLBSYNC waits: nobody is interrupted",
    BroadcastFlush,
    source="arch/x86/mm/tlb.c, v6.15",
    obligation="TLBSYNC, on the CPU that sent it, before anything is relied on",
    hardware=with_invlpgb,
)
INVLPGB_NO_TLBSYNC = NamedPolicy(
    "invlpgb-no-tlbsync",
    "INVLPGB tells all CPUs, and nobody waits",
    DoesNotSync,
    source="APM 3, INVLPGB: complete only after TLBSYNC",
    obligation="TLBSYNC, on the CPU that sent it, before anything is relied on",
    hardware=with_invlpgb,
)
