"""Exceptions: what the trace is told of one, and the handler's beginning above the context that raised it."""

from __future__ import annotations

from typing import assert_never

from emu.cpu.cpu import Cpu, RoutineContext, RoutineRole
from emu.cpu.routine import Root
from emu.cpu.software import Trap, TrapHandler
from emu.cpu.threads import Threads
from emu.events import BusErrorSeen, Faulted, Trapped
from emu.guest.guest_core import GuestTrap
from emu.mmu import Denied, NonCanonical
from emu.paging.walk import BusError
from emu.trace import Trace

_MOST_NESTED = 16  # a real stack of 16 KiB has no room for as many


class TrapsWithoutEnd(RuntimeError):
    """The handlers of a CPU raise exceptions themselves, one within the other: its stack has overflown."""


class Traps:
    """Hands each exception to the one handler that software has for them."""

    def __init__(self, threads: Threads, trace: Trace, handler: TrapHandler) -> None:
        self._threads = threads
        self._trace = trace
        self._handler = handler

    def take(self, cpu: Cpu, why: Denied | BusError | NonCanonical | GuestTrap) -> None:
        """The top context of the CPU has raised it. Raises TrapsWithoutEnd."""
        site = cpu.site()
        roles = [context.role for context in cpu.contexts if isinstance(context, RoutineContext)]
        if roles.count(RoutineRole.TRAP) == _MOST_NESTED:
            raise TrapsWithoutEnd(f"cpu{cpu.number} traps within traps, {_MOST_NESTED} deep, in {site}")
        match why:
            case Denied(fault=fault, entry=entry, dead_end=dead_end):
                self._trace.add(Faulted(cpu.number, site, fault, entry, dead_end))
            case BusError(va=va, pa=pa):
                self._trace.add(BusErrorSeen(cpu.number, site, va, pa))
            case NonCanonical(vector=vector) | GuestTrap(vector=vector):
                self._trace.add(Trapped(cpu.number, site, vector))
            case _:
                assert_never(why)
        # No handler reads a TLB: which translation was refused is for the trace.
        told = Denied(why.fault, None) if isinstance(why, Denied) else why
        trap = Trap(cpu.number, site, cpu.contexts[-1].name, told)
        routine = self._threads.routines.begin(Root(cpu.number, "trap", trap), lambda: self._handler(trap))
        handler = RoutineContext("trap", RoutineRole.TRAP, routine, cpu.interrupts_enabled)
        cpu.interrupts_enabled = False  # an interrupt gate
        self._threads.enter(cpu, handler)
