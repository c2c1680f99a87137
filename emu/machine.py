"""The machine: CPUs over one memory, stepped one choice at a time.

`enabled()` lists what can happen next, in a fixed order; `perform(choice, answerer)` makes it happen. A
step is one guest instruction, one op of a kernel routine, or one interrupt handled as a whole. Everything
else that is free in hardware is asked of the answerer inside the step. The same choices and answers from
the same start give the same events, always.

What software must supply comes as data: `TrapHandler` for exceptions, `InterruptHandler` for each vector.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias, assert_never

from emu.addr import Pfn
from emu.choice import Answerer, Choice, Step, TakeInterrupt
from emu.cpu.apic import Apic, Ipi
from emu.cpu.condition import Word
from emu.cpu.cpu import Cpu, GuestContext, GuestThread, KernelThread, Role, Routine, RoutineContext, Thread
from emu.cpu.execute import Blocked, Executor, OpRefused
from emu.cpu.ops import Await, Count, Op, ThisCpu
from emu.cpu.spin import note_read, pause, wake_spinners
from emu.cpu.waiting import Waiting
from emu.events import BusErrorSeen, Faulted, Finished, IpiTaken, Site, Started, Trapped
from emu.guest.guest_core import GuestCore, GuestTrap, Halted, Refused, Retired
from emu.memory import PhysicalMemory
from emu.mmu import Denied, Mmu, NonCanonical
from emu.paging.models import CpuModel
from emu.paging.walk import BusError, Control
from emu.trace import Trace

MOST_CPUS = 256


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


TrapHandler: TypeAlias = Callable[[Trap], Routine]


class Grain(Enum):
    """How an interrupt handler is scheduled."""

    ATOMIC = "taking the interrupt and the whole handler are one step"
    STEPWISE = "the handler is a context of its own, each op a step"


@dataclass(frozen=True, slots=True)
class InterruptHandler:
    """The routine for a vector. It is given the request's number and payload, and must acknowledge."""

    routine: Callable[[int, object], Routine]
    grain: Grain


class ContextKilled(Exception):
    """Raised by kernel code to end its own context (after a BUG, say). The machine records it as killed."""


@dataclass(frozen=True, slots=True)
class Software:
    """What runs on the machine besides threads."""

    trap: TrapHandler
    interrupts: Mapping[int, InterruptHandler] = field(default_factory=dict)


class Machine:
    """`cpus` CPUs (1 to 256) of one model, all with CR3 at `root`."""

    def __init__(
        self,
        memory: PhysicalMemory,
        cpus: int,
        model: CpuModel,
        root: Pfn,
        software: Software,
        control: Control | None = None,
    ) -> None:
        if not 1 <= cpus <= MOST_CPUS:
            raise ValueError(f"{cpus} CPUs: want 1 to {MOST_CPUS}")
        self.memory = memory
        self.trace = Trace()
        self.apic = Apic(cpus)
        self.words: Counter[Word] = Counter()
        self.counters: Counter[tuple[str, int]] = Counter()
        self.cpus = tuple(
            Cpu(number, Mmu(number, memory, model, control or Control(), root, self.trace))
            for number in range(cpus)
        )
        self.steps = 0
        self._software = software
        self._busy: set[int] = set()
        self._counters_at_zero: Counter[tuple[str, int]] = Counter()
        self._executor = Executor(memory, self.trace, self.apic, self.words)
        self._waiting = Waiting(
            self.words, memory, self.apic, lambda number: self.cpus[number].interrupts_enabled
        )

    def mark_time_zero(self) -> None:
        """What memory and the counters hold now is what `reset` comes back to. Nothing is under way."""
        self.memory.journal.forget()
        for cpu in self.cpus:
            cpu.mmu.reset()  # its moments are those of the journal
        self.trace.reset()
        self.steps = 0
        self._counters_at_zero = self.counters.copy()

    def reset(self) -> None:
        """Back to time zero, by undoing what was stored. Listeners are gone; engines stay."""
        for cpu in self.cpus:
            cpu.reset()
        self.memory.undo(0)
        self.memory.journal.forget()
        for cpu in self.cpus:
            cpu.mmu.reset()
        self.apic.reset()
        self.words.clear()
        self.counters.clear()
        self.counters.update(self._counters_at_zero)
        self.trace.reset()
        self.steps = 0
        self._busy.clear()

    # -- starting things -----------------------------------------------------------------------------

    def start(self, cpu: int, thread: Thread) -> None:
        """Let `thread` run on that CPU, after those it was given before."""
        self.cpus[cpu].queue.append(thread)
        if not self.cpus[cpu].contexts:
            self._next_thread(self.cpus[cpu])

    def count(self, counter: str) -> int:
        """The sum of a per-CPU counter over all CPUs."""
        return sum(value for (name, _), value in self.counters.items() if name == counter)

    # -- what can happen -----------------------------------------------------------------------------

    def enabled(self) -> list[Choice]:
        """What can happen next, by CPU, a step before an interrupt. Empty: all is done, or deadlock."""
        choices: list[Choice] = []
        for number in sorted(self._busy | self.apic.interrupted):
            cpu = self.cpus[number]
            if self._can_step(cpu):
                choices.append(Step(number))
            if number in self.apic.interrupted and cpu.interrupts_enabled:
                choices.append(TakeInterrupt(number))
        return choices

    def is_enabled(self, choice: Choice) -> bool:
        """Whether that one can happen next."""
        if not 0 <= choice.cpu < len(self.cpus):
            return False
        cpu = self.cpus[choice.cpu]
        if isinstance(choice, TakeInterrupt):
            return choice.cpu in self.apic.interrupted and cpu.interrupts_enabled
        return self._can_step(cpu)

    def blocked(self) -> dict[int, str]:
        """For each CPU with work that cannot step: what it waits for."""
        return {
            number: self._waits_for(self.cpus[number])
            for number in sorted(self._busy)
            if not self._can_step(self.cpus[number])
        }

    @property
    def busy(self) -> bool:
        """Whether any CPU has a context that has not ended."""
        return bool(self._busy)

    def _can_step(self, cpu: Cpu) -> bool:
        top = cpu.top
        match top:
            case None:
                return False
            case GuestContext():
                return not cpu.spinning
            case RoutineContext(pending=Await(condition=condition)):
                return self._waiting.holds(condition, top)
            case RoutineContext():
                return True
            case _:
                assert_never(top)

    def _waits_for(self, cpu: Cpu) -> str:
        match cpu.top:
            case RoutineContext(pending=Await(condition=condition)):
                return str(condition)
            case _:
                return "a word it spins on"

    # -- making it happen ----------------------------------------------------------------------------

    def perform(self, choice: Choice, answerer: Answerer) -> None:
        """Make one of the enabled choices happen.

        Raises ValueError for one that is not enabled, and lets through what guest or kernel code did wrong
        (UnsupportedInstruction, EngineError, an exception of a routine).
        """
        if not self.is_enabled(choice):
            raise ValueError(f"{choice} is not enabled; enabled: {self.enabled()}")
        self.steps += 1
        before = self.memory.journal.now
        cpu = self.cpus[choice.cpu]
        cpu.mmu.answerer = answerer
        self._executor.answerer = answerer
        match choice:
            case TakeInterrupt():
                self._take_interrupt(cpu)
            case Step():
                self._step(cpu)
            case _:
                assert_never(choice)
        wake_spinners(self.cpus, self.memory.journal, before)
        self._note_once()

    def _step(self, cpu: Cpu) -> None:
        top = cpu.top
        match top:
            case GuestContext():
                self._step_guest(cpu, top)
            case RoutineContext():
                self._step_routine(cpu, top)
            case None:
                raise AssertionError(f"cpu{cpu.number} has nothing to step")
            case _:
                assert_never(top)

    def _step_guest(self, cpu: Cpu, context: GuestContext) -> None:
        result = context.core.step()
        match result:
            case Retired(interrupts=interrupts, spin_hint=spin_hint):
                cpu.interrupts_enabled = interrupts
                if spin_hint:
                    pause(cpu, self.memory.journal)
                else:
                    note_read(cpu, context.core, self.memory.journal)
            case Halted():
                self._finish(cpu, killed=False)
            case GuestTrap() as trap:
                self.trace.add(Trapped(cpu.number, context.site(), trap.vector))
                self._enter_trap(cpu, trap)
            case Refused(why=why):
                self._refused(cpu, why)
            case _:
                assert_never(result)

    def _step_routine(self, cpu: Cpu, context: RoutineContext) -> None:
        assert context.pending is not None
        try:
            result = self._executor.execute(cpu, context.pending)
        except OpRefused as refused:
            self._refused(cpu, refused.why)
            return
        self._resume(cpu, context, result)

    def _resume(self, cpu: Cpu, context: RoutineContext, result: object) -> None:
        """Give the routine its result and fetch its next op; ops that are no scheduling point run at once."""
        context.pending, context.once = None, 0
        try:
            op: Op = context.routine.send(result)
            while isinstance(op, ThisCpu | Count):
                op = context.routine.send(self._aside(cpu, op))
            context.pending = op
            self._waiting.note_once(context)
        except StopIteration as stop:
            self._end_routine(cpu, context, stop.value)
        except ContextKilled:
            self._finish(cpu, killed=True)

    def _aside(self, cpu: Cpu, op: ThisCpu | Count) -> int | None:
        match op:
            case ThisCpu():
                return cpu.number
            case Count(counter=counter, delta=delta):
                self.counters[counter, cpu.number] += delta
                return None
            case _:
                assert_never(op)

    def _end_routine(self, cpu: Cpu, context: RoutineContext, value: object) -> None:
        match context.role:
            case Role.THREAD:
                self._finish(cpu, killed=False)
            case Role.INTERRUPT:
                self._leave(cpu, context)
            case Role.TRAP:
                self._leave(cpu, context)
                if value is TrapOutcome.KILL:
                    self._finish(cpu, killed=True)
                elif value is not TrapOutcome.RETRY:
                    raise TypeError(f"trap handler {context.name} returned {value!r}")
            case _:
                assert_never(context.role)

    def _leave(self, cpu: Cpu, context: RoutineContext) -> None:
        cpu.contexts.pop()
        cpu.interrupts_enabled = context.interrupts_before
        if not cpu.contexts:
            self._next_thread(cpu)

    def _finish(self, cpu: Cpu, *, killed: bool) -> None:
        """The top context ends; a killed one takes the handlers above the thread with it only by itself."""
        context = cpu.contexts.pop()
        if isinstance(context, RoutineContext):
            context.routine.close()
            cpu.interrupts_enabled = context.interrupts_before
        self.trace.add(Finished(cpu.number, context.name, killed))
        if not cpu.contexts:
            cpu.interrupts_enabled = True
            self._next_thread(cpu)

    def _next_thread(self, cpu: Cpu) -> None:
        self._busy.discard(cpu.number)
        cpu.spinning = frozenset()
        cpu.read_since_pause = {}
        if not cpu.queue:
            return
        thread = cpu.queue.popleft()
        self._busy.add(cpu.number)
        self.trace.add(Started(cpu.number, thread.name))
        match thread:
            case GuestThread(name=name, rip=rip, registers=registers):
                if cpu.core is None:
                    cpu.core = GuestCore(cpu.number, self.memory, cpu.mmu, self.trace)
                cpu.core.load(name, rip, registers)
                cpu.contexts.append(GuestContext(name, cpu.core))
            case KernelThread(name=name, routine=routine):
                self._push(cpu, RoutineContext(name, Role.THREAD, routine(), cpu.interrupts_enabled))
            case _:
                assert_never(thread)

    def _push(self, cpu: Cpu, context: RoutineContext) -> None:
        cpu.contexts.append(context)
        self._busy.add(cpu.number)
        self._resume(cpu, context, None)

    # -- traps and interrupts ------------------------------------------------------------------------

    def _refused(self, cpu: Cpu, why: Denied | BusError | NonCanonical) -> None:
        match why:
            case Denied(fault=fault, entry=entry, dead_end=dead_end):
                self.trace.add(Faulted(cpu.number, cpu.site(), fault, entry, dead_end))
            case BusError(va=va, pa=pa):
                self.trace.add(BusErrorSeen(cpu.number, cpu.site(), va, pa))
            case NonCanonical(vector=vector):
                self.trace.add(Trapped(cpu.number, cpu.site(), vector))
            case _:
                assert_never(why)
        self._enter_trap(cpu, why)

    def _enter_trap(self, cpu: Cpu, why: Denied | BusError | NonCanonical | GuestTrap) -> None:
        context = cpu.contexts[-1]
        routine = self._software.trap(Trap(cpu.number, cpu.site(), context.name, why))
        handler = RoutineContext("trap", Role.TRAP, routine, cpu.interrupts_enabled)
        cpu.interrupts_enabled = False  # an interrupt gate
        self._push(cpu, handler)

    def _take_interrupt(self, cpu: Cpu) -> None:
        ipi = self.apic.take(cpu.number)
        cpu.spinning = frozenset()  # an interrupt ends a PAUSE; the loop looks again
        handler = self._software.interrupts.get(ipi.vector)
        if handler is None:
            raise LookupError(f"no handler for vector {ipi.vector:#x} on cpu{cpu.number}")
        self.trace.add(IpiTaken(cpu.number, ipi.request, ipi.vector))
        routine = handler.routine(ipi.request, ipi.payload)
        if handler.grain is Grain.STEPWISE:
            context = RoutineContext(
                f"interrupt {ipi.vector:#x}", Role.INTERRUPT, routine, cpu.interrupts_enabled
            )
            cpu.interrupts_enabled = False
            self._push(cpu, context)
            return
        self._run_atomically(cpu, ipi, routine)

    def _run_atomically(self, cpu: Cpu, ipi: Ipi, routine: Routine) -> None:
        cpu.in_interrupt = ipi.vector
        result: object = None
        try:
            while True:
                op: Op = routine.send(result)
                if isinstance(op, Await):
                    raise Blocked(f"an atomic handler of vector {ipi.vector:#x} waits for {op.condition}")
                if isinstance(op, ThisCpu | Count):
                    result = self._aside(cpu, op)
                else:
                    result = self._executor.execute(cpu, op)
        except StopIteration:
            pass
        except ContextKilled:
            self.trace.add(Finished(cpu.number, f"interrupt {ipi.vector:#x}", killed=True))
        finally:
            cpu.in_interrupt = None

    # -- waiting -------------------------------------------------------------------------------------

    def _note_once(self) -> None:
        for number in self._busy:
            for context in self.cpus[number].contexts:
                if isinstance(context, RoutineContext):
                    self._waiting.note_once(context)
