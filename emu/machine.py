"""The machine: CPUs over one memory, stepped one choice at a time.

`enabled()` lists what can happen next, in a fixed order; `perform(choice, answerer)` makes it happen. A
step is one guest instruction, one op of a kernel routine, or one interrupt handled as a whole. Everything
else that is free in hardware is asked of the answerer inside the step. The same choices and answers from
the same start give the same events, always.

What software must supply comes as data (`emu.cpu.software`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from typing import assert_never

from emu.addr import Pfn, VirtAddr, page_start
from emu.broadcast import Broadcasts
from emu.choice import Answerer, Choice, Step, TakeInterrupt
from emu.cpu.apic import Apic
from emu.cpu.condition import Word
from emu.cpu.cpu import Cpu, GuestContext, RoutineContext, Thread
from emu.cpu.execute import Executor, OpRefused
from emu.cpu.handles import Names
from emu.cpu.interrupts import Interrupts
from emu.cpu.ops import Await
from emu.cpu.recall import Recalled
from emu.cpu.repeat import Put, Repeated, StoreEvent, Through
from emu.cpu.routine import Routines
from emu.cpu.software import Software
from emu.cpu.spin import note_read, pause, wake_spinners
from emu.cpu.threads import Threads
from emu.cpu.traps import Traps
from emu.cpu.waiting import Waiting
from emu.events import Stored
from emu.guest.guest_core import GuestTrap, Halted, Refused, Retired
from emu.kept import Bookmark, Kept
from emu.ledger import Ledger
from emu.memory import PhysicalMemory
from emu.mmu import Mmu
from emu.paging.models import CpuModel
from emu.paging.tlb import TlbEntry
from emu.paging.walk import Control
from emu.trace import Trace

MOST_CPUS = 256


class NotEnabled(ValueError):
    """A choice was to be made that cannot be made now."""


class Machine(Kept):
    """`cpus` CPUs (1 to 256) of one model, all with CR3 at `root`. `ledger`: what software knows already."""

    kept = ("words", "counters", "steps", "guest_steps")
    parts = ("trace", "apic", "_broadcasts", "_threads")

    def __init__(
        self,
        memory: PhysicalMemory,
        cpus: int,
        model: CpuModel,
        root: Pfn,
        software: Software,
        control: Control | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        if not 1 <= cpus <= MOST_CPUS:
            raise ValueError(f"{cpus} CPUs: want 1 to {MOST_CPUS}")
        self.memory = memory
        self.ledger = Ledger() if ledger is None else ledger
        self.trace = Trace()
        self.apic = Apic(cpus)
        self.words: Counter[Word] = Counter()
        self.counters: Counter[tuple[str, int]] = Counter()
        self.cpus = tuple(
            Cpu(number, Mmu(number, memory, model, control or Control(), root, self.trace))
            for number in range(cpus)
        )
        self.steps = self.guest_steps = 0
        self._counters_at_zero: Counter[tuple[str, int]] = Counter()
        self._broadcasts = Broadcasts(tuple(cpu.mmu for cpu in self.cpus), self.trace)
        self._executor = Executor(
            memory, self.trace, self.apic, self._broadcasts, self.words, self.counters, self.ledger
        )
        self._waiting = Waiting(
            self.words, memory, self.apic, lambda number: self.cpus[number].interrupts_enabled
        )
        self._threads = Threads(memory, self.trace, self._executor, self._waiting)
        self._traps = Traps(self._threads, self.trace, software.trap)
        self._interrupts = Interrupts(
            self.apic, self._threads, self._executor, self.trace, software.interrupts
        )

    @property
    def routines(self) -> Routines:
        """How kernel routines are begun."""
        return self._threads.routines

    @routines.setter
    def routines(self, routines: Routines) -> None:
        self._threads.routines = routines

    def mark_time_zero(self) -> None:
        """What memory, ledger and counters hold now is what `reset` comes back to. Nothing is under way."""
        self.memory.journal.forget()
        self.ledger.forget()
        for cpu in self.cpus:
            cpu.mmu.reset()  # its moments are those of the journal
        self.apic.reset()
        self._broadcasts.reset()
        self.trace.reset()
        self.steps = self.guest_steps = 0
        self._counters_at_zero = self.counters.copy()

    def reset(self) -> None:
        """Back to time zero, by undoing what was stored. Listeners are gone; engines stay."""
        for cpu in self.cpus:
            cpu.reset()
        self.memory.undo(0)
        self.memory.journal.forget()
        self.ledger.undo(0)
        for cpu in self.cpus:
            cpu.mmu.reset()
        self.apic.reset()
        self._broadcasts.reset()
        self.words.clear()
        self.counters.clear()
        self.counters.update(self._counters_at_zero)
        self.trace.reset()
        self.steps = self.guest_steps = 0
        self._threads.busy.clear()

    def mark(self) -> Bookmark:
        """What it is now, between two steps, to come back to within this run.

        Raises CannotGoBack where a routine is not recalled. The CPUs must have lazy TLBs.
        """
        own = super().mark()
        moments = (self.memory.journal.now, self.ledger.now)
        return Bookmark((*own.values, *moments), (*own.parts, *(cpu.mark() for cpu in self.cpus)))

    @property
    def progress(self) -> int:
        """How far the routines under way have come: another number after most steps."""
        depth = 0
        for cpu in self.cpus:
            for context in cpu.contexts:
                depth += context.depth
        return depth

    def state(self, names: Names) -> tuple[Hashable, ...]:
        """What its further course depends on, but for memory and what TLBs remember. Raises CannotGoBack."""
        words = frozenset((word, value) for word, value in self.words.items() if value)
        counters = frozenset((key, value) for key, value in self.counters.items() if value)
        cpus = (cpu.state(names, self.memory.journal) for cpu in self.cpus)
        fabric = (self.apic.state(names), self._broadcasts.state())
        return (words, counters, self.ledger.state(), *fabric, *cpus)

    def back(self, mark: Bookmark) -> None:
        """To what it was then. Who listens still does."""
        *own, stores, entered = mark.values
        assert isinstance(stores, int)
        assert isinstance(entered, int)
        self.memory.undo(stores)
        self.memory.journal.cut(stores)
        self.ledger.undo(entered)
        count = len(self.parts)
        super().back(Bookmark(tuple(own), mark.parts[:count]))
        for cpu, part in zip(self.cpus, mark.parts[count:], strict=True):
            cpu.back(part)

    # -- starting things -----------------------------------------------------------------------------

    def start(self, cpu: int, thread: Thread) -> None:
        """Let `thread` run on that CPU, after those it was given before."""
        self._threads.start(self.cpus[cpu], thread)

    def count(self, counter: str) -> int:
        """The sum of a per-CPU counter over all CPUs."""
        return sum(value for (name, _), value in self.counters.items() if name == counter)

    # -- what can happen -----------------------------------------------------------------------------

    def enabled(self) -> list[Choice]:
        """What can happen next, by CPU, a step before an interrupt. Empty: all is done, or deadlock."""
        choices: list[Choice] = []
        for number in sorted(self._threads.busy | self.apic.interrupted):
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
            for number in sorted(self._threads.busy)
            if not self._can_step(self.cpus[number])
        }

    @property
    def busy(self) -> bool:
        """Whether any CPU has a context that has not ended."""
        return bool(self._threads.busy)

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
        top = cpu.top
        match top:
            case RoutineContext(pending=Await(condition=condition)):
                return str(condition)
            case GuestContext() | RoutineContext() | None:
                return "a word it spins on"
            case _:
                assert_never(top)

    # -- making it happen ----------------------------------------------------------------------------

    def perform(self, choice: Choice, answerer: Answerer) -> None:
        """Make one of the enabled choices happen.

        Raises NotEnabled, and lets through what guest or kernel code did wrong
        (UnsupportedInstruction, EngineError, an exception of a routine).
        """
        if not self.is_enabled(choice):
            raise NotEnabled(f"{choice} is not enabled; enabled: {self.enabled()}")
        self.steps += 1
        before = self.memory.journal.now
        cpu = self.cpus[choice.cpu]
        cpu.mmu.answerer = answerer
        self._executor.answerer = answerer
        match choice:
            case TakeInterrupt():
                self._interrupts.take(cpu, answerer)
            case Step():
                self._step(cpu)
            case _:
                assert_never(choice)
        wake_spinners(self.cpus, self.memory.journal, before)
        self._note_once()

    def repeat(self, number: int, known: Repeated, told: Callable[[int, StoreEvent], None]) -> bool:
        """Make steps of that CPU's routine that are known to do just that. `told`: of each store, by number.

        Nobody else is told, but of walks: the TLB may have to make some that it did not make before. False,
        and nothing is done, where an access could use more than one translation.
        """
        cpu = self.cpus[number]
        context = cpu.top
        assert isinstance(context, RoutineContext)
        assert isinstance(context.routine, Recalled)
        if not all(cpu.mmu.has_one(part.va) for part in known.done if isinstance(part, Through)):
            return False
        end = self.trace.next_number + known.events  # walks come on top
        entries: dict[VirtAddr, TlbEntry] = {}
        for part in known.done:
            made = end - known.events + part.before - self.trace.next_number
            self.trace.skip(made)
            match part:
                case Through(va=va, access=access):
                    walks = self.trace.next_number
                    entry = entries[page_start(va)] = cpu.mmu.again(va, access)
                    end += self.trace.next_number - walks
                    assert (entry.rights, entry.dirty) == (part.rights, part.dirty)
                case Put(event=event):
                    self.memory.write(part.pa, part.data)
                    if isinstance(event, Stored):
                        event = event._replace(entry=entries[page_start(event.va)])
                    told(self.trace.next_number, event)
                case _:
                    assert_never(part)
        self.trace.skip(end - self.trace.next_number)
        self.steps += known.steps
        for counter, delta in known.counters:
            self.counters[counter, number] += delta
        cpu.stack += known.stack
        context.on_to(known.node)
        self._waiting.note_once(context)
        return True

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
        self.guest_steps += 1
        result = context.core.step(self.routines.instructions)
        match result:
            case Retired(interrupts=interrupts, spin_hint=spin_hint):
                cpu.interrupts_enabled = interrupts
                if spin_hint:
                    pause(cpu, self.memory.journal)
                else:
                    note_read(cpu, context.core, self.memory.journal)
            case Halted():
                self._threads.finish(cpu, killed=False)
            case GuestTrap():
                self._traps.take(cpu, result)
            case Refused(why=why):
                self._traps.take(cpu, why)
            case _:
                assert_never(result)

    def _step_routine(self, cpu: Cpu, context: RoutineContext) -> None:
        assert context.pending is not None
        try:
            result = self._executor.execute(cpu, context.pending)
        except OpRefused as refused:
            self._traps.take(cpu, refused.why)
            return
        self._threads.resume(cpu, context, result)

    def _note_once(self) -> None:
        for number in self._threads.busy:
            for context in self.cpus[number].contexts:
                if isinstance(context, RoutineContext):
                    self._waiting.note_once(context)
