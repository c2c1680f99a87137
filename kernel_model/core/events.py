"""What the kernel announces: the closed union of payloads it puts into the trace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from emu.addr import Pfn, VirtAddr
from emu.cpu.ops import Refers
from kernel_model.core.gfp import Gfp
from kernel_model.core.sites import FlushSite


@dataclass(frozen=True, slots=True)
class FlushBegun:
    """A flush request: [start, end) in bytes, on `cpus`. flush_tlb_all covers the whole address space.

    `generation`: of one that is settled with all before it (`FlushesSettled`); 0 where it is completed alone.
    """

    function: str
    start: int
    end: int
    cpus: frozenset[int]
    site: FlushSite = FlushSite.ELSEWHERE
    generation: int = 0


@dataclass(frozen=True, slots=True)
class FlushCompleted(Refers):
    """From here on the kernel relies on the request that began at event `begun`."""

    begun: int


@dataclass(frozen=True, slots=True)
class FlushesSettled:
    """From here on the kernel relies on every request of that generation or an earlier one."""

    generation: int


@dataclass(frozen=True, slots=True)
class PageAllocated:
    """`2**order` frames from `pfn` left the allocator; `generation` counts how often it was freed.

    `gfp` and the node `nid` are what the caller asked with.
    """

    pfn: Pfn
    order: int
    generation: int
    purpose: str
    gfp: Gfp
    nid: int


@dataclass(frozen=True, slots=True)
class PageFreed:
    """`2**order` frames from `pfn` are back in the allocator; `generation` is the new one."""

    pfn: Pfn
    order: int
    generation: int


@dataclass(frozen=True, slots=True)
class AllocationFailed:
    purpose: str
    order: int
    position: int
    gfp: Gfp
    nid: int


@dataclass(frozen=True, slots=True)
class GracePeriodBegun:
    """synchronize_rcu() was called."""


@dataclass(frozen=True, slots=True)
class GracePeriodEnded(Refers):
    """Every reader of event `begun` has left its section."""

    begun: int


@dataclass(frozen=True, slots=True)
class OperationBegun:
    """An exported function of the port was entered for these folios (head struct pages).

    Of a list none is named: which are on it is seen when it is walked.
    """

    function: str
    folios: tuple[VirtAddr, ...]


@dataclass(frozen=True, slots=True)
class OperationReturned(Refers):
    """It returned. What it still owed then is owed for good. `folios`: those it has taken up, in order."""

    function: str
    begun: int
    result: int | None
    folios: tuple[VirtAddr, ...]


@dataclass(frozen=True, slots=True)
class SpuriousFault:
    """The page-fault handler's walk permits the access: it is performed again."""

    va: VirtAddr
    code: int


@dataclass(frozen=True, slots=True)
class Oops:
    """The page-fault handler gave up. `lines` are what the kernel log would show."""

    va: int
    code: int
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KernelBug:
    """BUG_ON, or what CONFIG_DEBUG_LIST makes of a corrupted list: the context ends."""

    where: str
    message: str


@dataclass(frozen=True, slots=True)
class KernelWarning:
    """VM_WARN_ON_ONCE and the like: reported once a run, and the code goes on."""

    where: str
    message: str


@dataclass(frozen=True, slots=True)
class BadPage:
    """bad_page(): what was wrong with a page being freed or allocated. It leaves circulation."""

    pfn: Pfn
    reason: str


@dataclass(frozen=True, slots=True)
class MemoryFailed:
    """memory_failure() was told of an error in that frame: it must never be handed out again."""

    pfn: Pfn


@dataclass(frozen=True, slots=True)
class ActionResult:
    """action_result(): the kernel log's line on what memory_failure() did about a frame, in its words."""

    pfn: Pfn
    action: str
    result: str


KernelEvent: TypeAlias = (
    FlushBegun
    | FlushCompleted
    | FlushesSettled
    | PageAllocated
    | PageFreed
    | AllocationFailed
    | GracePeriodBegun
    | GracePeriodEnded
    | OperationBegun
    | OperationReturned
    | SpuriousFault
    | Oops
    | KernelBug
    | KernelWarning
    | BadPage
    | MemoryFailed
    | ActionResult
)
