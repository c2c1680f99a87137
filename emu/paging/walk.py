"""The 4-level page walk as one pure function, and what may be done with its result (SDM 3A 4.5, 4.6, 4.8).

`walk` reads through the function it is given and writes nothing, so the hardware's walk, a monitor's
question and a walk over the past are the same code. `mark` sets accessed and dirty flags afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, IntFlag
from typing import TypeAlias

from emu.addr import PAGE_SHIFT, PageSize, Pfn, PhysAddr, VirtAddr, frame_start, page_start
from emu.memory import Moment, OutsideMemory, PhysicalMemory
from emu.paging.pte import Pte, PteBit

ReadWord: TypeAlias = Callable[[PhysAddr], int]

TOP_LEVEL = 4
_LEAF_SIZE = {1: PageSize.KIB4, 2: PageSize.MIB2, 3: PageSize.GIB1}


class Access(Enum):
    """What an access wants to do."""

    READ = "read"
    WRITE = "write"
    FETCH = "fetch"


class Privilege(Enum):
    SUPERVISOR = "supervisor"
    USER = "user"


class FaultCode(IntFlag):
    """Page-fault error code (SDM 3A 4.7, figure 4-12)."""

    PROTECTION = 1 << 0  # clear: some entry was not present
    WRITE = 1 << 1
    USER = 1 << 2
    RESERVED = 1 << 3
    FETCH = 1 << 4


@dataclass(frozen=True, slots=True)
class Control:
    """The control-register state that decides about an access (CR0.WP, EFER.NXE, CR4.SMEP/SMAP/PGE/PCIDE)."""

    write_protect: bool = True
    no_execute_enable: bool = True
    smep: bool = False
    smap: bool = False
    page_global_enable: bool = True
    pcid_enable: bool = False


@dataclass(frozen=True, slots=True)
class Rights:
    """Rights accumulated along a path: write and user are ANDed, no-execute is ORed (rule R6)."""

    write: bool
    user: bool
    execute: bool

    def and_entry(self, entry: Pte) -> Rights:
        return Rights(
            self.write and entry.writable,
            self.user and entry.user,
            self.execute and not entry.no_execute,
        )

    def __str__(self) -> str:
        return f"{'rw' if self.write else 'ro'}{' user' if self.user else ''}{'' if self.execute else ' nx'}"


ALL_RIGHTS = Rights(write=True, user=True, execute=True)


@dataclass(frozen=True, slots=True)
class WalkStep:
    """One entry as the walk read it: its level (4 = PML4E ... 1 = PTE), where it is, what it held."""

    level: int
    pa: PhysAddr
    entry: Pte


@dataclass(frozen=True, slots=True)
class Walk:
    """A present path to a leaf. Whether an access may use it is `permission_fault`'s question."""

    va: VirtAddr
    steps: tuple[WalkStep, ...]
    size: PageSize
    rights: Rights

    @property
    def leaf(self) -> Pte:
        return self.steps[-1].entry

    @property
    def page(self) -> VirtAddr:
        """First virtual address of the page, of whatever size."""
        return page_start(self.va, self.size)

    @property
    def pfn(self) -> Pfn:
        """First 4 KiB frame of the page."""
        return self.leaf.leaf_pfn(self.size)

    @property
    def pa(self) -> PhysAddr:
        """Where `va` itself is."""
        return PhysAddr((self.pfn << PAGE_SHIFT) + (self.va - self.page))


@dataclass(frozen=True, slots=True)
class PageFault:
    """#PF: the address CR2 gets, and the error code pushed."""

    va: VirtAddr
    code: FaultCode


class Lack(Enum):
    """Why a walk cannot go on from an entry."""

    NOT_PRESENT = "is not present"
    RESERVED = "has a reserved bit set"

    @property
    def code(self) -> FaultCode:
        """What it adds to the error code of the fault (SDM 3A 4.7)."""
        if self is Lack.RESERVED:
            return FaultCode.PROTECTION | FaultCode.RESERVED
        return FaultCode(0)


@dataclass(frozen=True, slots=True)
class Stop:
    """A path that leads to no leaf: the entries that led on, and the one that does not."""

    steps: tuple[WalkStep, ...]
    end: WalkStep
    lack: Lack


@dataclass(frozen=True, slots=True)
class BusError:
    """A walk or an access was led to a physical address where there is no memory."""

    va: VirtAddr
    pa: PhysAddr


Walked: TypeAlias = Walk | PageFault | BusError


@dataclass(frozen=True, slots=True)
class WalkStart:
    """Where a walk begins: at the root, or at a table that a paging-structure cache remembered.

    `steps` are the remembered entries, `moment` the number of stores made before the oldest was read.
    """

    level: int
    table: Pfn
    rights: Rights = ALL_RIGHTS
    steps: tuple[WalkStep, ...] = ()
    moment: Moment = 0


def entry_address(table: Pfn, va: VirtAddr, level: int) -> PhysAddr:
    """Where the entry for `va` lies in a table of that level (SDM 3A 4.5.4)."""
    index = (va >> (PAGE_SHIFT + 9 * (level - 1))) & 511
    return PhysAddr(frame_start(table) + 8 * index)


def access_code(access: Access, privilege: Privilege, control: Control) -> FaultCode:
    """The part of the error code that tells what was tried."""
    code = FaultCode(0)
    if access is Access.WRITE:
        code |= FaultCode.WRITE
    if privilege is Privilege.USER:
        code |= FaultCode.USER
    # SDM 3A 4.7: the I/D flag is set only where execute-disable or SMEP is on.
    if access is Access.FETCH and (control.no_execute_enable or control.smep):
        code |= FaultCode.FETCH
    return code


def reserved_bits(entry: Pte, level: int, physical_bits: int, control: Control) -> bool:
    """Whether a present entry of that level has a reserved bit set (SDM 3A 4.5.4, tables 4-15 to 4-20)."""
    mask = ((1 << 52) - 1) & ~((1 << physical_bits) - 1)
    if not control.no_execute_enable:
        mask |= PteBit.NO_EXECUTE
    if level == TOP_LEVEL:
        mask |= PteBit.PAGE_SIZE
    elif level > 1 and entry.page_size:
        # Bit 12 is PAT in a large leaf; the address bits above it, below the page size, are reserved.
        mask |= (_LEAF_SIZE[level] - 1) & ~((1 << (PAGE_SHIFT + 1)) - 1)
    return bool(entry & mask)


def follow(
    read_word: ReadWord, start: WalkStart, va: VirtAddr, control: Control, physical_bits: int
) -> Walk | Stop | BusError:
    """Follow the tables from `start` to the leaf for `va`, or as far as they lead."""
    table, rights, steps = start.table, start.rights, start.steps
    for level in range(start.level, 0, -1):
        pa = entry_address(table, va, level)
        try:
            entry = Pte(read_word(pa))
        except OutsideMemory:
            return BusError(va, pa)
        if not entry.present:
            return Stop(steps, WalkStep(level, pa, entry), Lack.NOT_PRESENT)
        if reserved_bits(entry, level, physical_bits, control):
            return Stop(steps, WalkStep(level, pa, entry), Lack.RESERVED)
        steps = (*steps, WalkStep(level, pa, entry))
        rights = rights.and_entry(entry)
        if level == 1 or (level < TOP_LEVEL and entry.page_size):
            return Walk(va, steps, _LEAF_SIZE[level], rights)
        table = entry.pfn
    raise AssertionError(f"walk for {va:#x} passed level 1")


def walk(
    read_word: ReadWord,
    start: WalkStart,
    va: VirtAddr,
    code: FaultCode,
    control: Control,
    physical_bits: int,
) -> Walked:
    """Walk from `start` for `va`. `code` is what a fault would report of the access."""
    found = follow(read_word, start, va, control, physical_bits)
    return PageFault(va, code | found.lack.code) if isinstance(found, Stop) else found


def permitted(rights: Rights, access: Access, privilege: Privilege, control: Control) -> bool:
    """Whether cached or walked rights allow the access (SDM 3A 4.6.1). AC is taken as 0 under SMAP."""
    user = privilege is Privilege.USER
    if user and not rights.user:
        return False
    if access is Access.FETCH:
        return rights.execute and not (not user and rights.user and control.smep)
    if not user and rights.user and control.smap:
        return False
    return access is not Access.WRITE or rights.write or (not user and not control.write_protect)


def mark(memory: PhysicalMemory, found: Walk, access: Access) -> Walk:
    """Set A in every entry of the path and, for a write, D in the leaf, in memory (SDM 3A 4.8).

    Returns the walk with the entries as they are now.
    """
    steps = []
    for step in found.steps:
        bits = PteBit.ACCESSED
        if access is Access.WRITE and step is found.steps[-1]:
            bits |= PteBit.DIRTY
        if step.entry & bits == bits:
            steps.append(step)
            continue
        # The locked update acts on what memory holds now: with a paging-structure cache that may differ.
        current = Pte(memory.read_word(step.pa))
        memory.write_word(step.pa, current.with_bits(bits))
        steps.append(WalkStep(step.level, step.pa, step.entry.with_bits(bits)))
    return Walk(found.va, tuple(steps), found.size, found.rights)
