"""Patterns over events: what a script waits for.

A pattern is a question to one event and, where the event alone does not say it, to the page tables as they
are at that moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, assert_never

from emu.addr import VirtAddr
from emu.events import Annotated, Copied, Finished, IpiSent, Loaded, MachineEvent, Stored
from emu.machine import Machine
from emu.paging.walk import Walk
from kernel_model.core.events import FlushBegun, PageFreed


@dataclass(frozen=True, slots=True)
class Loads:
    """A guest program or routine reads from that address."""

    va: VirtAddr

    def __str__(self) -> str:
        return f"Load({self.va:#x})"


@dataclass(frozen=True, slots=True)
class Stores:
    """Something is written to that address."""

    va: VirtAddr

    def __str__(self) -> str:
        return f"Store({self.va:#x})"


@dataclass(frozen=True, slots=True)
class SetsPte:
    """The 4 KiB leaf that maps that address is written."""

    va: VirtAddr

    def __str__(self) -> str:
        return f"set_pte_at({self.va:#x})"


@dataclass(frozen=True, slots=True)
class CopiesFrom:
    """A bulk copy reads from that address."""

    va: VirtAddr

    def __str__(self) -> str:
        return f"copy_page(from {self.va:#x})"


@dataclass(frozen=True, slots=True)
class BeginsFlush:
    """A flush request begins."""

    def __str__(self) -> str:
        return "a flush begins"


@dataclass(frozen=True, slots=True)
class SendsIpi:
    """An interrupt is sent to other CPUs."""

    def __str__(self) -> str:
        return "an IPI is sent"


@dataclass(frozen=True, slots=True)
class Frees:
    """That frame goes back to the page allocator."""

    pfn: int

    def __str__(self) -> str:
        return f"free(pfn {self.pfn:#x})"


@dataclass(frozen=True, slots=True)
class Finishes:
    """The thread of that name ends."""

    thread: str

    def __str__(self) -> str:
        return f"the end of {self.thread}"


Pattern: TypeAlias = Loads | Stores | SetsPte | CopiesFrom | BeginsFlush | SendsIpi | Frees | Finishes


def matches(pattern: Pattern, event: MachineEvent, machine: Machine) -> bool:
    """Whether this event is what the pattern describes. `machine` is as it is right after the event."""
    match pattern:
        case Loads(va=va):
            return isinstance(event, Loaded) and event.va == va
        case Stores(va=va):
            return isinstance(event, Stored) and event.va == va
        case SetsPte(va=va):
            return isinstance(event, Stored) and _is_pte_of(event, va, machine)
        case CopiesFrom(va=va):
            return isinstance(event, Copied) and event.source_va == va
        case BeginsFlush():
            return isinstance(event, Annotated) and isinstance(event.payload, FlushBegun)
        case SendsIpi():
            return isinstance(event, IpiSent)
        case Frees(pfn=pfn):
            return (
                isinstance(event, Annotated)
                and isinstance(event.payload, PageFreed)
                and event.payload.pfn == pfn
            )
        case Finishes(thread=thread):
            return isinstance(event, Finished) and event.name == thread
        case _:
            assert_never(pattern)


def _is_pte_of(event: Stored, va: VirtAddr, machine: Machine) -> bool:
    found = machine.cpus[event.cpu].mmu.peek(va)
    return isinstance(found, Walk) and found.steps[-1].level == 1 and found.steps[-1].pa == event.pa
