"""A CPU: its MMU, its interrupt flag, and the stack of contexts that run on it.

The top context runs; what lies below waits for it. A guest program or a kernel thread is at the bottom,
trap and interrupt routines come and go above. Further threads of the CPU queue until the stack is empty.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias, cast

from emu.addr import PhysAddr, VirtAddr
from emu.cpu.handles import EventNumber, Names, numbered
from emu.cpu.ops import Acknowledge, Annotate, Await, Op, SendIpi
from emu.cpu.recall import HistoryNode, Recalled
from emu.cpu.routine import Code, Routine, functions_of
from emu.events import InterruptSite, RoutineSite, Site
from emu.guest.guest_core import GuestCore
from emu.kept import Bookmark, Kept
from emu.memory import Journal, Moment
from emu.mmu import Mmu


class RoutineRole(Enum):
    """Why a routine runs, which is what its end means."""

    THREAD = "a thread"
    TRAP = "a trap handler: its result says whether the context below goes on"
    INTERRUPT = "an interrupt handler"


class CannotGoBack(RuntimeError):
    """A routine is under way of which nobody can say how it came there."""


@dataclass(slots=True)
class RoutineContext(Kept):
    """A kernel routine: a coroutine and the op it waits for.

    `once` has a bit for each part of the EachOnce it waits for that has held. `interrupts_before` and
    `stack_before` are what its CPU comes back to when it ends. `numbers`: what its handles stand for.
    """

    name: str
    role: RoutineRole
    routine: Routine
    interrupts_before: bool
    stack_before: int = 0
    pending: Op | None = None
    once: int = 0
    numbers: list[int] = field(default_factory=list)

    kept = ("pending", "once", "numbers")

    def mark(self) -> Bookmark:
        """Raises CannotGoBack where the routine is not recalled."""
        if not isinstance(self.routine, Recalled):
            raise CannotGoBack(self.name)
        own = super(RoutineContext, self).mark()
        return Bookmark((*own.values, self.routine.node), ())

    @property
    def depth(self) -> int:
        """How many results its routine has been given, where that is recalled."""
        return self.routine.node.depth if isinstance(self.routine, Recalled) else 0

    def state(self, names: Names) -> Hashable:
        """What its further course depends on. Raises CannotGoBack where the routine is not recalled."""
        if not isinstance(self.routine, Recalled):
            raise CannotGoBack(self.name)
        handles = tuple(
            names.of_event(n) if isinstance(n, EventNumber) else names.of_request(n) for n in self.numbers
        )
        before = (self.interrupts_before, self.stack_before)
        return (self.name, self.role, self.routine.node, self.once, before, handles)

    def back(self, mark: Bookmark) -> None:
        *own, node = mark.values
        super(RoutineContext, self).back(Bookmark(tuple(own), ()))
        assert isinstance(self.routine, Recalled)
        assert isinstance(node, HistoryNode)
        self.routine.back(node)

    def send(self, result: object) -> Op:
        """Give the routine the result of its pending op. Returns its next one, which may be `Aside`.

        Raises StopIteration and what the routine raises.
        """
        if isinstance(self.pending, Annotate | SendIpi):
            assert isinstance(result, int)
            self.numbers.append(EventNumber(result) if isinstance(self.pending, Annotate) else result)
            result = len(self.numbers) - 1
        self.pending = None
        return self._with_numbers(self.routine.send(result))

    def on_to(self, node: HistoryNode) -> None:
        """What lies between where its routine is and that node has been done."""
        assert isinstance(self.routine, Recalled)
        self.routine.on_to(node)
        self.once = 0
        self.pending = self._with_numbers(cast(Op, node.awaited))

    def _with_numbers(self, op: Op) -> Op:
        return numbered(op, self.numbers) if isinstance(op, Annotate | Acknowledge | Await) else op

    def functions(self) -> tuple[str, ...]:
        """The functions that the routine is in, outermost first."""
        routine = self.routine
        return routine.functions if isinstance(routine, Recalled) else functions_of(routine)

    def site(self) -> Site:
        return RoutineSite(self.functions())


@dataclass(slots=True)
class GuestContext(Kept):
    """A guest program on the CPU's engine, which is the CPU's to put back."""

    name: str
    core: GuestCore

    @property
    def depth(self) -> int:
        """Guest programs are not recalled."""
        return 0

    def state(self, names: Names) -> Hashable:
        """What its further course depends on."""
        del names
        return (self.name, self.core.state())

    def site(self) -> Site:
        return self.core.site()


Context: TypeAlias = RoutineContext | GuestContext


@dataclass(frozen=True, slots=True)
class GuestThread:
    """A guest program to run: its name, first instruction, and register values."""

    name: str
    rip: VirtAddr
    registers: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class KernelThread:
    """A kernel routine to run."""

    name: str
    routine: Callable[[], Code]


Thread: TypeAlias = GuestThread | KernelThread


@dataclass(slots=True)
class Cpu(Kept):
    """`spinning` holds the 8-byte memory words (by address / 8) whose change ends a PAUSE loop's wait.

    `stack`: how many bytes of its kernel stack are in use. `begun`: how many threads it has begun.
    """

    number: int
    mmu: Mmu
    interrupts_enabled: bool = True
    contexts: list[Context] = field(default_factory=list)
    queue: deque[Thread] = field(default_factory=deque)
    core: GuestCore | None = None
    spinning: frozenset[int] = frozenset()
    read_since_pause: dict[int, Moment] = field(default_factory=dict)
    in_interrupt: int | None = None
    stack: int = 0
    begun: int = 0

    kept = ("interrupts_enabled", "queue", "spinning", "read_since_pause", "stack", "begun")
    parts = ("mmu",)

    def mark(self) -> Bookmark:
        """Raises CannotGoBack."""
        own = super(Cpu, self).mark()
        contexts = tuple((context, context.mark()) for context in self.contexts)
        core = None if self.core is None else self.core.mark()
        return Bookmark((*own.values, contexts, core), own.parts)

    def state(self, names: Names, journal: Journal) -> Hashable:
        """What its further course depends on, beside its TLB. Raises CannotGoBack.

        The threads that it was given are what they are: how many have begun says which are left.
        """
        changed = frozenset(
            (word, journal.next_change(PhysAddr(word << 3), 8, moment) is not None)
            for word, moment in self.read_since_pause.items()
        )
        contexts = tuple(context.state(names) for context in self.contexts)
        waits = (self.interrupts_enabled, self.spinning, changed, len(self.queue), self.begun)
        return (contexts, waits, self.stack, self.mmu.root, self.mmu.pcid)

    def back(self, mark: Bookmark) -> None:
        *own, contexts, core = mark.values
        super(Cpu, self).back(Bookmark(tuple(own), mark.parts))
        assert isinstance(contexts, tuple)
        for gone in self.contexts:
            if isinstance(gone, RoutineContext) and all(gone is not context for context, _ in contexts):
                gone.routine.close()
        self.contexts[:] = [context for context, _ in contexts]
        for context, at in contexts:
            context.back(at)
        if self.core is not None and isinstance(core, Bookmark):
            self.core.back(core)

    @property
    def top(self) -> Context | None:
        return self.contexts[-1] if self.contexts else None

    def reset(self) -> None:
        """Nothing runs, interrupts are on. Routines that had not ended are closed."""
        while self.contexts:
            context = self.contexts.pop()
            if isinstance(context, RoutineContext):
                context.routine.close()
        self.queue.clear()
        self.interrupts_enabled = True
        self.spinning = frozenset()
        self.read_since_pause.clear()
        self.in_interrupt = None
        self.stack = self.begun = 0

    def site(self) -> Site:
        if self.in_interrupt is not None:
            return InterruptSite(self.in_interrupt)
        return self.contexts[-1].site() if self.contexts else RoutineSite(())
