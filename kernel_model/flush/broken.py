"""Policies that are wrong on purpose: what a missed flush looks like."""

from __future__ import annotations

from emu.addr import VirtAddr
from emu.cpu.ops import Annotate, Load
from kernel_model.core.events import FlushBegun, FlushCompleted
from kernel_model.core.history import History
from kernel_model.flush.policy import FlushSite, NamedPolicy
from kernel_model.flush.upstream import WHOLE_ADDRESS_SPACE, UpstreamFlush
from kernel_model.layout import PerCpu


class SkipsLastCpu(UpstreamFlush):
    """Interrupts every online CPU but the one with the highest number."""

    def __init__(self, site: FlushSite) -> None:
        super().__init__(site)
        self._skipped = max(site.online)

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


class FlushAllDoesNothing(UpstreamFlush):
    """flush_tlb_all() where it was never implemented (s390 until 3d03b8c0f398); ranges are flushed."""

    async def flush_tlb_all(self) -> None:
        begun = await Annotate(FlushBegun("flush_tlb_all", *WHOLE_ADDRESS_SPACE, frozenset()))
        await Annotate(FlushCompleted(begun))


class NoFlush:
    """No flush at all: both routines return at once."""

    def __init__(self, site: FlushSite) -> None:
        del site

    async def flush_tlb_all(self) -> None:
        await self._pretend("flush_tlb_all", *WHOLE_ADDRESS_SPACE)

    async def flush_tlb_kernel_range(self, start: VirtAddr, end: VirtAddr) -> None:
        await self._pretend("flush_tlb_kernel_range", start, end)

    async def _pretend(self, function: str, start: int, end: int) -> None:
        begun = await Annotate(FlushBegun(function, start, end, frozenset()))
        await Annotate(FlushCompleted(begun))


SKIPS_LAST_CPU = NamedPolicy(
    "skips-last-cpu", "as upstream, but the CPU with the highest number is left out", SkipsLastCpu
)
LOCAL_ONLY = NamedPolicy("local-only", "flushes this CPU only", LocalOnly)
SKIPS_IDLE = NamedPolicy(
    "skips-idle", "as upstream, but CPUs that say they are idle are left out", SkipsIdleCpus
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
)
NEVER = NamedPolicy("never", "both routines return at once, flushing nothing", NoFlush)

BROKEN: tuple[NamedPolicy, ...] = (LOCAL_ONLY, SKIPS_IDLE, SKIPS_LAST_CPU, FLUSH_ALL_NO_OP, NEVER)
