"""What a CPU remembers of the page tables: entries, what removes them, and the one interface of all TLBs.

A TLB holds translations a CPU *may* use. Two families implement `Tlb`: `emu.paging.geometry` (sets and ways,
for cost and demonstration) and `emu.paging.lazy` (every version the architecture allows, for exploration).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple, Protocol, TypeAlias, assert_never

from emu.addr import PAGE_BYTES, PAGE_SHIFT, PageSize, Pfn, PhysAddr, VirtAddr, page_start
from emu.memory import Moment
from emu.paging.dead_end import DeadEnd
from emu.paging.walk import Control, Rights, Walk, WalkStep


@dataclass(frozen=True, slots=True)
class TlbEntry:
    """One cached translation and the page-table words that stand behind it.

    `size` is the size it is cached with; `page_size` that of the page it translates, which is larger when
    the TLB broke a large page up (rule R4). `filled_at` is the event that cached it, `moment` the number of
    stores made before that. Of what a lazy TLB offers, nobody has seen the walk: it was not made before the
    moment `since`, nor before the event `after`, an invalidation of its CPU (-1: none) that no store need
    precede. Of what was seen to be walked they are `moment` and `filled_at`.
    """

    page: VirtAddr
    size: PageSize
    pfn: Pfn
    rights: Rights
    is_global: bool
    dirty: bool
    pcid: int
    steps: tuple[WalkStep, ...]
    filled_at: int
    moment: Moment
    since: Moment
    after: int

    @property
    def page_size(self) -> PageSize:
        return {1: PageSize.KIB4, 2: PageSize.MIB2, 3: PageSize.GIB1}[self.steps[-1].level]

    def translate(self, va: VirtAddr) -> PhysAddr:
        return PhysAddr((self.pfn << PAGE_SHIFT) + (va - self.page))

    def frame_of(self, va: VirtAddr) -> Pfn:
        """The 4 KiB frame this entry gives for `va`."""
        return Pfn(self.pfn + ((va - self.page) >> PAGE_SHIFT))

    def holds(self, va: VirtAddr) -> bool:
        return 0 <= va - self.page < self.size

    def at(self, va: VirtAddr, size: PageSize) -> TlbEntry:
        """The part of this translation that a TLB caching it with a smaller `size` keeps for `va`."""
        if size >= self.size:
            return self
        return replace(self, page=page_start(va, size), size=size, pfn=self.frame_of(page_start(va, size)))

    def __str__(self) -> str:
        flags = f"{self.rights}{' G' if self.is_global else ''}{' D' if self.dirty else ''}"
        return f"{self.page:#x} {self.size} -> pfn {self.pfn:#x} {flags}"


def entry_from(
    found: Walk, pcid: int, control: Control, filled_at: int, moment: Moment, since: Moment, after: int
) -> TlbEntry:
    """What a TLB caches of a walk (R2: the caller has set A before)."""
    return TlbEntry(
        found.page,
        found.size,
        found.pfn,
        found.rights,
        found.leaf.is_global and control.page_global_enable,
        found.leaf.dirty,
        pcid,
        found.steps,
        filled_at,
        moment,
        since,
        after,
    )


@dataclass(frozen=True, slots=True)
class Invlpg:
    """INVLPG of each of `pages` consecutive 4 KiB pages from `va`, executed with `pcid` current (R8)."""

    va: VirtAddr
    pcid: int = 0
    pages: int = 1

    def holds(self, va: VirtAddr) -> bool:
        """Whether `va` lies in one of them."""
        return 0 <= va - page_start(self.va) < self.pages * PAGE_BYTES


@dataclass(frozen=True, slots=True)
class InvpcidAddress:
    """INVPCID type 0: one address, one PCID, no globals (R9)."""

    va: VirtAddr
    pcid: int


@dataclass(frozen=True, slots=True)
class InvpcidContext:
    """INVPCID type 1: one PCID, no globals (R9)."""

    pcid: int


@dataclass(frozen=True, slots=True)
class InvalidateAll:
    """INVPCID type 2, or a change of CR4.PGE: everything (R9, R11)."""


@dataclass(frozen=True, slots=True)
class InvalidateNonGlobal:
    """INVPCID type 3: everything but globals, in every PCID (R9)."""


@dataclass(frozen=True, slots=True)
class NewRoot:
    """MOV CR3 without bit 63: the non-global entries of the new PCID (R10)."""

    pcid: int


@dataclass(frozen=True, slots=True)
class FaultedAt:
    """A page fault at `va`: the entries that would be used for it (R12)."""

    va: VirtAddr
    pcid: int


Invalidation: TypeAlias = (
    Invlpg | InvpcidAddress | InvpcidContext | InvalidateAll | InvalidateNonGlobal | NewRoot | FaultedAt
)


Broadcast: TypeAlias = Invlpg | InvalidateAll
"""What INVLPGB is used for here: R8 and R9 on every CPU, globals included."""


class Rule(Enum):
    """The rules of invalidation, each of which a test can take away from a CPU model."""

    INVLPG_REMOVES_GLOBALS = "R8: INVLPG removes global entries of the address in every PCID"
    INVLPG_REMOVES_LARGE = "R4, R8: INVLPG removes the entries of every size for the address"
    INVLPG_EMPTIES_PSC = "R8: INVLPG empties the paging-structure caches of the current PCID"
    ALL_REMOVES_GLOBALS = "R9, R11: INVPCID type 2 and CR4.PGE remove globals"
    GLOBALS_SURVIVE_CR3 = "R10: global entries survive MOV CR3"
    DIRTY_NEEDS_WALK = "R7: the first write through an entry cached with D=0 walks again"
    FAULT_INVALIDATES = "R12: a page fault drops the entries for its address"


ALL_RULES = frozenset(Rule)
_INVLPG_RULES = frozenset({Rule.INVLPG_REMOVES_GLOBALS, Rule.INVLPG_REMOVES_LARGE, Rule.INVLPG_EMPTIES_PSC})


def _covers(entry: TlbEntry, va: VirtAddr, pages: int, rules: frozenset[Rule]) -> bool:
    size = entry.page_size
    if size is not PageSize.KIB4 and Rule.INVLPG_REMOVES_LARGE not in rules:
        return False
    first = page_start(va)
    start = page_start(entry.page, size)
    return first < start + size and start < first + pages * PAGE_BYTES


def removes(what: Invalidation, entry: TlbEntry, rules: frozenset[Rule]) -> bool:
    """Whether this invalidation removes this TLB entry."""
    same_context = entry.is_global or entry.pcid == getattr(what, "pcid", entry.pcid)
    match what:
        case Invlpg(va=va, pages=pages):
            if entry.is_global and Rule.INVLPG_REMOVES_GLOBALS not in rules:
                return False
            return same_context and _covers(entry, va, pages, rules)
        case InvpcidAddress(va=va):
            return not entry.is_global and same_context and _covers(entry, va, 1, rules)
        case InvpcidContext():
            return not entry.is_global and same_context
        case InvalidateAll():
            return not entry.is_global or Rule.ALL_REMOVES_GLOBALS in rules
        case InvalidateNonGlobal():
            return not entry.is_global
        case NewRoot():
            if entry.is_global:
                return Rule.GLOBALS_SURVIVE_CR3 not in rules
            return same_context
        case FaultedAt(va=va):
            return Rule.FAULT_INVALIDATES in rules and same_context and _covers(entry, va, 1, ALL_RULES)
        case _:
            assert_never(what)


def removes_all(what: Invalidation, page: VirtAddr, pcid: int, rules: frozenset[Rule]) -> bool:
    """Whether it leaves nothing that an access to that page under `pcid` could use.

    That is TLB entries of every size, global or not, and remembered directory entries.
    """
    match what:
        case InvalidateAll():
            return Rule.ALL_REMOVES_GLOBALS in rules
        case Invlpg(va=va, pages=pages):
            first = page_start(va)
            whole = what.pcid == pcid and first <= page < first + pages * PAGE_BYTES
            return whole and rules >= _INVLPG_RULES
        case FaultedAt(va=va):
            return what.pcid == pcid and page_start(va) == page and Rule.FAULT_INVALIDATES in rules
        case NewRoot():
            return what.pcid == pcid and Rule.GLOBALS_SURVIVE_CR3 not in rules
        case InvpcidAddress() | InvpcidContext() | InvalidateNonGlobal():
            return False  # globals stay
        case _:
            assert_never(what)


class Port(Enum):
    """Which side of a split TLB asks."""

    DATA = "data"
    CODE = "code"


class Usable(NamedTuple):
    """What a CPU may use for one access: any of the cached entries, or, if `walk`, a walk made now.

    `entries` and `dead_ends` are ordered oldest version first. All may be there at once: the architecture
    leaves the choice to the hardware, the machine to its `Choice`.
    """

    entries: Sequence[TlbEntry]
    walk: bool
    fresh: TlbEntry | None = None  # what the walk would find, where that is known without walking
    dead_ends: Sequence[DeadEnd] = ()


class Tlb(Protocol):
    """The translations one CPU may use."""

    def usable(self, va: VirtAddr, pcid: int, port: Port) -> Usable:
        """What may serve an access to `va` now. Never empty: with no entry, `walk` is True."""
        ...

    def used(self, entry: TlbEntry, va: VirtAddr, port: Port) -> None:
        """The access to `va` used this one of the usable entries."""
        ...

    def fill(self, entry: TlbEntry, va: VirtAddr, port: Port) -> None:
        """A walk for `va` found this translation."""
        ...

    def invalidate(self, what: Invalidation, event: int) -> None:
        """Carry it out; `event` is its number."""
        ...

    def expect(self, event: int) -> int:
        """An invalidation begins with that event that is carried out later. Returns its place."""
        ...

    def carry_out(self, what: Invalidation, place: int, event: int) -> None:
        """It ends with that event: nothing is left of what could not be cached any more when it began."""
        ...

    def evict(self, entry: TlbEntry) -> None:
        """Drop one entry, as hardware may at any time (R3). Does nothing when it is not held."""
        ...

    def entries(self) -> tuple[TlbEntry, ...]:
        """All that is held now, by page; for display and for monitors."""
        ...

    def clear(self) -> None:
        """Back to the state at power-on: nothing held, nothing remembered."""
        ...
