"""Policies that are wrong on purpose: what a missed flush looks like."""

from __future__ import annotations

from emu.cpu.ops import Acknowledge, Load
from emu.cpu.software import Grain
from kernel_model.core.history import History
from kernel_model.core.sites import FlushSite
from kernel_model.core.smp import RemoteCall, run_here
from kernel_model.flush.breaking import BBM_BY_INTERRUPT, BBM_UNLOCKED_LOOK
from kernel_model.flush.broadcast import INVLPGB_NO_TLBSYNC
from kernel_model.flush.lazy import LATR, LATR_SHORT
from kernel_model.flush.policy import NamedPolicy, Pages, PolicySetup, StaleRange, Ticket
from kernel_model.flush.switching import SKIP_SWITCHING_LATE
from kernel_model.flush.table import TableFlush, What, table
from kernel_model.flush.tracking import ABIS_KERNEL
from kernel_model.flush.upstream import UpstreamFlush
from kernel_model.layout import PerCpu

_WAITS = "every CPU that may hold a translation has to be told before anything is relied on"


class SkipsLastCpu(UpstreamFlush):
    """Interrupts every online CPU but the one with the highest number."""

    def __init__(self, setup: PolicySetup) -> None:
        super().__init__(setup)
        self._skipped = max(setup.online)

    def targets(self, initiator: int) -> frozenset[int]:
        return super().targets(initiator) - {self._skipped}


class LocalOnly(UpstreamFlush):
    """Flushes the CPU it runs on, and interrupts nobody."""

    def targets(self, initiator: int) -> frozenset[int]:
        del initiator
        return frozenset()


class SkipsIdleCpus(UpstreamFlush):
    """Does not interrupt CPUs that say they are idle, and nothing makes up for it when they wake."""

    async def _to_interrupt(self, initiator: int) -> frozenset[int]:
        others = sorted(self.targets(initiator))
        return frozenset([other for other in others if not await Load(PerCpu(other).idle)])


class FlushAllDoesNothing(TableFlush):
    """flush_tlb_all() where it was never implemented (s390 until 3d03b8c0f398); ranges are flushed."""

    def __init__(self, setup: PolicySetup) -> None:
        super().__init__(setup, {})

    def what(self, stale: StaleRange) -> What:
        return What.NOTHING if stale.everywhere else super().what(stale)


class DoesNotWait(UpstreamFlush):
    """Interrupts every CPU, and waits for none."""

    async def rely(self, ticket: Ticket) -> None:
        """At once."""


class ReleasesBeforeFlush(UpstreamFlush):
    """Frees the pages first, and flushes then."""

    async def dispatch(self, stale: StaleRange) -> Ticket:
        if stale.site in (FlushSite.REMAP, FlushSite.BATCH_REMAPPED, FlushSite.BATCH_SHORT):
            return Ticket(stale)
        return await super().dispatch(stale)

    async def release(self, ticket: Ticket | None, pages: Pages) -> None:
        del ticket
        await pages.free()
        await self.flush(StaleRange.everywhere_at(FlushSite.ELSEWHERE))


async def acknowledge_first(request: int, call: RemoteCall) -> None:
    """The answer before the deed."""
    await Acknowledge(request)
    await run_here(call)


SKIPS_LAST_CPU = NamedPolicy(
    "skips-last-cpu",
    "as upstream, but the CPU with the highest number is left out",
    SkipsLastCpu,
    source="a CPU mask that is off by one",
    obligation=_WAITS,
)
LOCAL_ONLY = NamedPolicy(
    "local-only",
    "flushes this CPU only",
    LocalOnly,
    source="local_flush_tlb_all() where flush_tlb_all() is meant",
    obligation=_WAITS,
)
SKIPS_IDLE = NamedPolicy(
    "skips-idle",
    "as upstream, but CPUs that say they are idle are left out",
    SkipsIdleCpus,
    source="lazy TLB mode, without the flush when a CPU wakes",
    obligation="a CPU that is left out has to flush before it uses anything again",
)
FLUSH_ALL_NO_OP = NamedPolicy(
    "flush-all-no-op",
    "flush_tlb_all() does nothing",
    FlushAllDoesNothing,
    history=History(
        "3d03b8c0f398",
        "s390: fix HugeTLB vmemmap optimization crash",
        "v6.18",
        "nr_hugepages to 1 and back to 0: list_del corruption in hugetlb_vmemmap_restore_folios(), a BUG",
    ),
    source="arch/s390 until v6.18",
    obligation=_WAITS,
)
NEVER = NamedPolicy(
    "never",
    "nothing is ever flushed",
    table(dict.fromkeys((site for site in FlushSite if not site.defers), What.NOTHING)),
    source="no flush at all",
    obligation=_WAITS,
)
NO_WAIT = NamedPolicy(
    "no-wait",
    "as upstream, but nobody waits for the CPUs that are interrupted",
    DoesNotWait,
    source="on_each_cpu() with wait = 0",
    obligation=_WAITS,
)
RELEASE_BEFORE_FLUSH = NamedPolicy(
    "release-before-flush",
    "pages are freed, and then everything is flushed",
    ReleasesBeforeFlush,
    source="the order that mmu_gather is there to prevent",
    obligation="a frame is free only when no CPU can use it any more",
)
EARLY_ACK = NamedPolicy(
    "early-ack",
    "CPUs acknowledge before they flush",
    UpstreamFlush,
    grain=Grain.STEPWISE,
    source="Amit, Tai, Wei: Don't shoot down TLB shootdowns!, EuroSys 2020, for user addresses",
    obligation="what runs between the two must use none of them: of the kernel's own anything may",
    receive=acknowledge_first,
)

BROKEN: tuple[NamedPolicy, ...] = (
    LOCAL_ONLY,
    SKIPS_IDLE,
    SKIPS_LAST_CPU,
    FLUSH_ALL_NO_OP,
    NEVER,
    NO_WAIT,
    RELEASE_BEFORE_FLUSH,
    EARLY_ACK,
    INVLPGB_NO_TLBSYNC,
    BBM_UNLOCKED_LOOK,
    BBM_BY_INTERRUPT,
    SKIP_SWITCHING_LATE,
    ABIS_KERNEL,
    LATR,
    LATR_SHORT,
)
