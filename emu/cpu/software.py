"""What software supplies to the machine, as data: handlers for exceptions and for each interrupt vector."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from emu.cpu.routine import Code
from emu.events import Site
from emu.guest.guest_core import GuestTrap
from emu.mmu import Denied, NonCanonical
from emu.paging.walk import BusError


class TrapOutcome(Enum):
    """What a trap handler returns."""

    RETRY = "the refused access is performed again"
    KILL = "the context ends here"


@dataclass(frozen=True, slots=True)
class Trap:
    """What a trap handler is told: who, where, and why."""

    cpu: int
    site: Site
    context: str
    why: Denied | BusError | NonCanonical | GuestTrap


TrapHandler: TypeAlias = Callable[[Trap], Code]


class Grain(Enum):
    """How an interrupt handler is scheduled."""

    ATOMIC = "taking the interrupt and the whole handler are one step"
    STEPWISE = "the handler is a context of its own, each op a step"


@dataclass(frozen=True, slots=True)
class InterruptHandler:
    """The routine for a vector. It is given a handle of the request and the payload, and must acknowledge.

    That of LOCAL_TIMER_VECTOR has nothing to acknowledge: its handle stands for nothing, the payload is None.
    """

    routine: Callable[[int, object], Code]
    grain: Grain


@dataclass(frozen=True, slots=True)
class Software:
    """What runs on the machine besides threads."""

    trap: TrapHandler
    interrupts: Mapping[int, InterruptHandler] = field(default_factory=dict)
