"""Contexts of CPUs, from their beginning to their end: threads, and the routines that come and go above them.

When the last context of a CPU ends, its next thread begins in the same step.
"""

from __future__ import annotations

from typing import assert_never

from emu.cpu.cpu import (
    Cpu,
    GuestContext,
    GuestThread,
    KernelThread,
    RoutineContext,
    RoutineRole,
    Thread,
)
from emu.cpu.execute import Executor
from emu.cpu.ops import Awaitable, Count, StackRoom, ThisCpu, Transact
from emu.cpu.routine import Anew, ContextKilled, Root, Routines
from emu.cpu.software import TrapOutcome
from emu.cpu.waiting import Waiting
from emu.events import Finished, Started
from emu.guest.guest_core import GuestCore
from emu.kept import Kept
from emu.memory import PhysicalMemory
from emu.trace import Trace


class NotAnOp(TypeError):
    """A routine has awaited what the machine does not know."""


class Threads(Kept):
    """`busy` are the numbers of the CPUs that have a context. `routines`: how those are begun."""

    kept = ("busy",)

    def __init__(self, memory: PhysicalMemory, trace: Trace, executor: Executor, waiting: Waiting) -> None:
        self.routines: Routines = Anew()
        self.busy: set[int] = set()
        self._memory = memory
        self._trace = trace
        self._executor = executor
        self._waiting = waiting

    def start(self, cpu: Cpu, thread: Thread) -> None:
        """Let `thread` run on that CPU, after those it was given before."""
        cpu.queue.append(thread)
        self._go_on(cpu)

    def enter(self, cpu: Cpu, context: RoutineContext) -> None:
        """A routine begins above what runs on the CPU."""
        self._push(cpu, context)
        self._go_on(cpu)

    def resume(self, cpu: Cpu, context: RoutineContext, result: object) -> None:
        """Give the top routine the result of its op and fetch its next one."""
        self._resume(cpu, context, result)
        self._go_on(cpu)

    def finish(self, cpu: Cpu, *, killed: bool) -> None:
        """The top context ends."""
        self._finish(cpu, killed=killed)
        self._go_on(cpu)

    def _go_on(self, cpu: Cpu) -> None:
        """The next thread begins where nothing runs, and the one after it where that does nothing."""
        while not cpu.contexts:
            self.busy.discard(cpu.number)
            cpu.spinning = frozenset()
            cpu.read_since_pause = {}
            if not cpu.queue:
                return
            self._begin(cpu, cpu.queue.popleft())

    def _begin(self, cpu: Cpu, thread: Thread) -> None:
        self._trace.add(Started(cpu.number, thread.name))
        cpu.begun += 1
        match thread:
            case GuestThread(name=name, rip=rip, registers=registers):
                if cpu.core is None:
                    cpu.core = GuestCore(cpu.number, self._memory, cpu.mmu, self._trace)
                cpu.core.load(name, rip, registers)
                cpu.contexts.append(GuestContext(name, cpu.core))
                self.busy.add(cpu.number)
            case KernelThread(name=name, routine=routine):
                begun = self.routines.begin(Root(cpu.number, name, cpu.begun), routine)
                self._push(cpu, RoutineContext(name, RoutineRole.THREAD, begun, cpu.interrupts_enabled))
            case _:
                assert_never(thread)

    def _push(self, cpu: Cpu, context: RoutineContext) -> None:
        context.stack_before = cpu.stack
        cpu.contexts.append(context)
        self.busy.add(cpu.number)
        self._resume(cpu, context, None)

    def _resume(self, cpu: Cpu, context: RoutineContext, result: object) -> None:
        """Ops that are no scheduling point are carried out at once."""
        context.once = 0
        try:
            op = context.send(result)
            while isinstance(op, ThisCpu | Count | StackRoom | Transact):
                op = context.send(self._executor.execute(cpu, op))
            if not isinstance(op, Awaitable):
                raise NotAnOp(f"{' > '.join(context.functions())} awaited {op!r}, which is no op")
            context.pending = op
            self._waiting.note_once(context)
        except StopIteration as stop:
            self._end(cpu, context, stop.value)
        except ContextKilled:
            self._finish(cpu, killed=True)

    def _end(self, cpu: Cpu, context: RoutineContext, value: object) -> None:
        match context.role:
            case RoutineRole.THREAD:
                self._finish(cpu, killed=False)
            case RoutineRole.INTERRUPT:
                self._leave(cpu, context)
            case RoutineRole.TRAP:
                self._leave(cpu, context)
                if value is TrapOutcome.KILL:
                    self._finish(cpu, killed=True)
                elif value is not TrapOutcome.RETRY:
                    raise TypeError(f"trap handler {context.name} returned {value!r}")
            case _:
                assert_never(context.role)

    def _leave(self, cpu: Cpu, context: RoutineContext) -> None:
        cpu.contexts.pop()
        cpu.interrupts_enabled, cpu.stack = context.interrupts_before, context.stack_before

    def _finish(self, cpu: Cpu, *, killed: bool) -> None:
        """A killed context takes the handlers above the thread with it only by itself."""
        context = cpu.contexts.pop()
        if isinstance(context, RoutineContext):
            context.routine.close()
            cpu.interrupts_enabled, cpu.stack = context.interrupts_before, context.stack_before
        self._trace.add(Finished(cpu.number, context.name, killed))
        if not cpu.contexts:
            cpu.interrupts_enabled = True
