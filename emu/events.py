"""What the machine did, as values. Every event names its CPU; its number is its place in the trace.

Those that come with every access are named tuples, which are quicker to make than frozen dataclasses.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, TypeAlias

from emu.addr import PageSize, PhysAddr, VirtAddr
from emu.paging.dead_end import DeadEnd
from emu.paging.tlb import Broadcast, Invalidation, TlbEntry
from emu.paging.walk import Access, PageFault


class Source(Enum):
    """Where a translation came from."""

    HIT = "tlb"
    WALK = "walk"


class RoutineSite(NamedTuple):
    """Where in kernel code: the functions on the stack, outermost first."""

    functions: tuple[str, ...]

    def __str__(self) -> str:
        return self.functions[-1] if self.functions else "?"


@dataclass(frozen=True, slots=True)
class GuestSite:
    """Where in a guest program: its instruction, as text."""

    program: str
    rip: VirtAddr
    instruction: str

    def __str__(self) -> str:
        return f"{self.program} {self.rip:#x}: {self.instruction}"


@dataclass(frozen=True, slots=True)
class InterruptSite:
    """In an interrupt handler that runs as one step."""

    vector: int

    def __str__(self) -> str:
        return f"interrupt {self.vector:#x}"


Site: TypeAlias = RoutineSite | GuestSite | InterruptSite


class Loaded(NamedTuple):
    """A read of `size` bytes. `entry` is the translation used, `source` whether it was cached."""

    cpu: int
    site: Site
    va: VirtAddr
    pa: PhysAddr
    size: int
    value: int
    entry: TlbEntry
    source: Source


class Stored(NamedTuple):
    """A write of `size` bytes over `old`. A locked read-modify-write is one of these."""

    cpu: int
    site: Site
    va: VirtAddr
    pa: PhysAddr
    size: int
    old: int
    value: int
    entry: TlbEntry
    source: Source


@dataclass(frozen=True, slots=True)
class Copied:
    """A bulk copy of `length` bytes, each side translated once."""

    cpu: int
    site: Site
    to: VirtAddr
    to_pa: PhysAddr
    to_entry: TlbEntry
    source_va: VirtAddr
    source_pa: PhysAddr
    source_entry: TlbEntry
    length: int


@dataclass(frozen=True, slots=True)
class LoadedBytes:
    """A bulk read of `length` bytes."""

    cpu: int
    site: Site
    va: VirtAddr
    pa: PhysAddr
    length: int
    entry: TlbEntry


@dataclass(frozen=True, slots=True)
class Filled:
    """A bulk write of `length` bytes."""

    cpu: int
    site: Site
    va: VirtAddr
    pa: PhysAddr
    length: int
    entry: TlbEntry


class TlbFilled(NamedTuple):
    """A walk for `va` found `entry`, which the TLB may now hold."""

    cpu: int
    va: VirtAddr
    access: Access
    entry: TlbEntry


@dataclass(frozen=True, slots=True)
class MultiHitSeen:
    """Translations of two sizes were usable for one access on a CPU that forbids it (R5)."""

    cpu: int
    va: VirtAddr
    sizes: tuple[PageSize, ...]
    entries: tuple[TlbEntry, ...]


@dataclass(frozen=True, slots=True)
class Invalidated:
    """This CPU's TLB carried out an invalidation."""

    cpu: int
    what: Invalidation


@dataclass(frozen=True, slots=True)
class BroadcastSent:
    """INVLPGB: this is to be invalidated on all CPUs, as of now, when that CPU's TLBSYNC has ended."""

    cpu: int
    site: Site
    what: Broadcast


@dataclass(frozen=True, slots=True)
class BroadcastCompleted:
    """TLBSYNC: all CPUs have carried out `what`, each as of its event in `begun`."""

    cpu: int
    site: Site
    begun: tuple[int, ...]
    what: tuple[Broadcast, ...]


@dataclass(frozen=True, slots=True)
class Faulted:
    """#PF. `entry` is the cached translation that denied the access, None when a walk did.

    `dead_end` is that walk where it began at a remembered directory entry and one from the root would not
    have met this fault.
    """

    cpu: int
    site: Site
    fault: PageFault
    entry: TlbEntry | None
    dead_end: DeadEnd | None = None


@dataclass(frozen=True, slots=True)
class BusErrorSeen:
    """An access was led to a physical address where there is no memory."""

    cpu: int
    site: Site
    va: VirtAddr
    pa: PhysAddr


@dataclass(frozen=True, slots=True)
class Trapped:
    """A guest instruction raised an exception other than #PF."""

    cpu: int
    site: Site
    vector: int


@dataclass(frozen=True, slots=True)
class IpiSent:
    cpu: int
    site: Site
    request: int
    targets: tuple[int, ...]
    vector: int
    payload: object


@dataclass(frozen=True, slots=True)
class IpiTaken:
    cpu: int
    request: int
    vector: int


@dataclass(frozen=True, slots=True)
class IpiAcknowledged:
    cpu: int
    request: int


@dataclass(frozen=True, slots=True)
class Marked:
    """A walk has set A, or D, in an entry of a page table at `pa`: 8 bytes, which held `old` before."""

    cpu: int
    va: VirtAddr
    pa: PhysAddr
    old: int


@dataclass(frozen=True, slots=True)
class TickNeeded:
    """There is something to do at the next tick of each of these CPUs."""

    cpu: int
    site: Site
    cpus: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TickTaken:
    """The local timer has interrupted that CPU."""

    cpu: int


@dataclass(frozen=True, slots=True)
class Executed:
    """A guest instruction finished."""

    cpu: int
    site: GuestSite


@dataclass(frozen=True, slots=True)
class Started:
    cpu: int
    name: str


@dataclass(frozen=True, slots=True)
class Finished:
    """A context came to its end. `killed` when a trap handler ended it."""

    cpu: int
    name: str
    killed: bool


class Annotated(NamedTuple):
    """Software put this into the trace."""

    cpu: int
    site: Site
    payload: object


MachineEvent: TypeAlias = (
    Loaded
    | Stored
    | Copied
    | LoadedBytes
    | Filled
    | TlbFilled
    | Marked
    | MultiHitSeen
    | Invalidated
    | BroadcastSent
    | BroadcastCompleted
    | Faulted
    | BusErrorSeen
    | Trapped
    | IpiSent
    | IpiTaken
    | IpiAcknowledged
    | TickNeeded
    | TickTaken
    | Executed
    | Started
    | Finished
    | Annotated
)
