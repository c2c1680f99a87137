"""Interrupts as a CPU takes them: the handler of the vector, in one step or as a context of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

from emu.cpu.apic import Apic, Ipi
from emu.cpu.cpu import Cpu, RoutineContext, RoutineRole
from emu.cpu.execute import Blocked, Executor
from emu.cpu.handles import CALLED_FOR
from emu.cpu.ops import Await
from emu.cpu.routine import ContextKilled, Root
from emu.cpu.software import Grain, InterruptHandler
from emu.cpu.threads import Threads
from emu.events import Finished, IpiTaken
from emu.trace import Trace


class Interrupts:
    """Hands each interrupt to the handler that software has for its vector."""

    def __init__(
        self,
        apic: Apic,
        threads: Threads,
        executor: Executor,
        trace: Trace,
        handlers: Mapping[int, InterruptHandler],
    ) -> None:
        self._apic = apic
        self._threads = threads
        self._executor = executor
        self._trace = trace
        self._handlers = handlers

    def take(self, cpu: Cpu) -> None:
        """The oldest that is pending. Raises LookupError for a vector without a handler."""
        ipi = self._apic.take(cpu.number)
        cpu.spinning = frozenset()  # an interrupt ends a PAUSE; the loop looks again
        handler = self._handlers.get(ipi.vector)
        if handler is None:
            raise LookupError(f"no handler for vector {ipi.vector:#x} on cpu{cpu.number}")
        self._trace.add(IpiTaken(cpu.number, ipi.request, ipi.vector))
        name = f"interrupt {ipi.vector:#x}"
        routine = self._threads.routines.begin(
            Root(cpu.number, name, ipi.payload), lambda: handler.routine(CALLED_FOR, ipi.payload)
        )
        context = RoutineContext(name, RoutineRole.INTERRUPT, routine, cpu.interrupts_enabled)
        context.numbers.append(ipi.request)
        match handler.grain:
            case Grain.STEPWISE:
                cpu.interrupts_enabled = False
                self._threads.enter(cpu, context)
            case Grain.ATOMIC:
                self._run_atomically(cpu, ipi, context)
            case _:
                assert_never(handler.grain)

    def _run_atomically(self, cpu: Cpu, ipi: Ipi, context: RoutineContext) -> None:
        cpu.in_interrupt, stack = ipi.vector, cpu.stack
        result: object = None
        try:
            while True:
                op = context.pending = context.send(result)
                if isinstance(op, Await):
                    raise Blocked(f"an atomic handler of vector {ipi.vector:#x} waits for {op.condition}")
                result = self._executor.execute(cpu, op)
        except StopIteration:
            pass
        except ContextKilled:
            self._trace.add(Finished(cpu.number, context.name, killed=True))
        finally:
            cpu.in_interrupt, cpu.stack = None, stack
