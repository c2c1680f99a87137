"""Interrupts as a CPU takes them: the handler of the vector, in one step or as a context of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

from emu.choice import About, Answerer, DecideQuestion
from emu.cpu.apic import LOCAL_TIMER_VECTOR, Apic
from emu.cpu.cpu import Cpu, RoutineContext, RoutineRole
from emu.cpu.execute import Blocked, Executor
from emu.cpu.handles import CALLED_FOR
from emu.cpu.ops import Await
from emu.cpu.routine import ContextKilled, Root
from emu.cpu.software import Grain, InterruptHandler
from emu.cpu.threads import Threads
from emu.events import Finished, IpiTaken, TickTaken
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

    def take(self, cpu: Cpu, answerer: Answerer) -> None:
        """The oldest of other CPUs, or a tick. Raises LookupError for a vector without a handler."""
        cpu.spinning = frozenset()  # an interrupt ends a PAUSE; the loop looks again
        others, ticks = self._apic.pending(cpu.number)
        if not others or (ticks and answerer.answer(_tick_first(cpu.number))):
            self._apic.tick(cpu.number)
            self._trace.add(TickTaken(cpu.number))
            self._handle(cpu, LOCAL_TIMER_VECTOR, None, ())
        else:
            ipi = self._apic.take(cpu.number)
            self._trace.add(IpiTaken(cpu.number, ipi.request, ipi.vector))
            self._handle(cpu, ipi.vector, ipi.payload, (ipi.request,))

    def _handle(self, cpu: Cpu, vector: int, payload: object, requests: tuple[int, ...]) -> None:
        handler = self._handlers.get(vector)
        if handler is None:
            raise LookupError(f"no handler for vector {vector:#x} on cpu{cpu.number}")
        name = f"interrupt {vector:#x}"
        routine = self._threads.routines.begin(
            Root(cpu.number, name, payload), lambda: handler.routine(CALLED_FOR, payload)
        )
        context = RoutineContext(name, RoutineRole.INTERRUPT, routine, cpu.interrupts_enabled)
        context.numbers.extend(requests)
        match handler.grain:
            case Grain.STEPWISE:
                cpu.interrupts_enabled = False
                self._threads.enter(cpu, context)
            case Grain.ATOMIC:
                self._run_atomically(cpu, vector, context)
            case _:
                assert_never(handler.grain)

    def _run_atomically(self, cpu: Cpu, vector: int, context: RoutineContext) -> None:
        cpu.in_interrupt, stack = vector, cpu.stack
        result: object = None
        try:
            while True:
                op = context.pending = context.send(result)
                if isinstance(op, Await):
                    raise Blocked(f"an atomic handler of vector {vector:#x} waits for {op.condition}")
                result = self._executor.execute(cpu, op)
        except StopIteration:
            pass
        except ContextKilled:
            self._trace.add(Finished(cpu.number, context.name, killed=True))
        finally:
            cpu.in_interrupt, cpu.stack = None, stack


def _tick_first(cpu: int) -> DecideQuestion:
    """Both are pending: either may come first."""
    return DecideQuestion(cpu, "a tick comes first", 2, about=About.ARRIVAL)
