"""What each process has gone through, and what its next step is known to be.

A *life* is everything that a process has seen up to now: the results of its ops, one after the other, of all
the contexts it has been, and what its steps have touched, stored, and left with judges. A private step reads
nothing that others write, so it is the same whenever the process comes to it by the same life: what it
touches, and how the life goes on.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import groupby
from typing import assert_never

from emu.choice import Choice, TakeInterrupt
from emu.cpu.cpu import Context, GuestContext, RoutineContext
from emu.cpu.ops import (
    AddWords,
    Annotate,
    CmpXchg,
    Copy,
    FetchAdd,
    FetchAndNot,
    FetchOr,
    Fill,
    FlushTlb,
    FlushTlbPages,
    Invlpgb,
    InvlpgbAll,
    Load,
    LoadBytes,
    Op,
    Rewrite,
    Store,
    TlbSync,
    Transact,
)
from emu.cpu.recall import HistoryNode, Recalled
from emu.cpu.repeat import Repeated, in_a_row
from emu.kept import Kept
from emu.machine import Machine
from emu.paging.pte import Pte
from emu.paging.walk import WalkStep
from hvolab.explore.footprint.conflict import Footprint, all_of
from hvolab.explore.stretches.contention import Contention, Knowledge
from hvolab.explore.stretches.quiet import StepsSeen, without_marks
from hvolab.judge.sight.resource import CellName, Touched
from hvolab.judge.sight.sight import Sight

_LONG = 64  # bytes: of longer stores a digest is kept
# Other ops block, or change when others can step, or ask.
_Fixed = (
    Load
    | Store
    | CmpXchg
    | FetchAdd
    | FetchOr
    | FetchAndNot
    | Copy
    | LoadBytes
    | Fill
    | Rewrite
    | FlushTlbPages
    | FlushTlb
    | Invlpgb
    | InvlpgbAll
    | TlbSync
    | AddWords
    | Annotate
)


@dataclass(frozen=True, slots=True, eq=False)
class KnownStep:
    """A step of a kernel routine that has been made after some life: it touched this, and led there.

    It is that step wherever its walks go through these `directories`: which table lies behind an entry of one
    nobody asks, but whose that table is. `held`: what it changed where others may wait for that, before it.
    `does`: all that it did, where it is a quiet one. One that `transacts` may lead elsewhere: what others
    have done to the ledger shows in its result.
    """

    process: int
    directories: frozenset[WalkStep]
    footprint: Footprint
    held: Mapping[Touched, int]
    after: Life
    does: Repeated | None
    transacts: bool

    @property
    def may_vary(self) -> bool:
        """Whether it may lead elsewhere: a judge's bag that it adds to may have had more in it as well."""
        return self.transacts or any(isinstance(one, CellName) for one in self.footprint.marks)


@dataclass(frozen=True, slots=True, eq=False)
class QuietSteps:
    """One after the other. `after`: the life then."""

    does: Repeated
    after: Life


@dataclass(slots=True, eq=False)
class Chain:
    """The private steps that are known to follow a life, until more is learned.

    `touched`: by all of them; `doubts`: what of it others may touch as well. `end` is the life after them,
    and `followed` how many steps were known that may follow that.
    """

    steps: tuple[KnownStep, ...]
    directories: frozenset[WalkStep]
    touched: Footprint
    doubts: frozenset[Touched]
    since: Knowledge
    end: Life
    followed: int
    _quiet: Mapping[int, QuietSteps] | None = None

    @property
    def quiet(self) -> Mapping[int, QuietSteps]:
        """The quiet ones among them."""
        if self._quiet is None:
            self._quiet = quiet_among(self.steps)
        return self._quiet


def quiet_among(steps: Sequence[KnownStep]) -> dict[int, QuietSteps]:
    """As many in a row as there are, each row by the place of its first step."""
    found: dict[int, QuietSteps] = {}
    start = 0
    for is_quiet, row in groupby(steps, lambda step: step.does is not None):
        known = [*row]
        if is_quiet:
            does = in_a_row(step.does for step in known if step.does is not None)
            found[start] = QuietSteps(does, known[-1].after)
        start += len(known)
    return found


@dataclass(slots=True, eq=False)
class Life:
    """What a process has gone through. `steps`: the next one, as it has been made, by where its walks went.

    `varies`: it was another one though they went the same way.
    """

    after: dict[Hashable, Life] = field(default_factory=dict)
    steps: list[KnownStep] = field(default_factory=list)
    varies: bool = False
    chain: Chain | None = None

    def learn(self, step: KnownStep) -> bool:
        """The next step has been made. Whether it is known to vary now, and was not before."""
        known = next((one for one in self.steps if one.directories == step.directories), None)
        if known is None:
            self.steps.append(step)
            return False
        same = known.footprint == step.footprint and (known.after is step.after or step.transacts)
        if same or self.varies:
            return False
        self.varies = True
        return True


class AllLives:
    """Those that processes have had in the runs of a search, at most so many.

    What is equal in many of them is kept once.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0
        self._roots: dict[int, Life] = {}
        self._footprints: dict[Footprint, Footprint] = {}
        self._directories: dict[frozenset[WalkStep], frozenset[WalkStep]] = {}

    def root(self, process: int) -> Life:
        """Where the life of that process begins."""
        return self._roots.setdefault(process, Life())

    @property
    def full(self) -> bool:
        """Whether a life that is not among them will not be remembered for their number."""
        return 0 < self._most <= self._count

    def then(self, life: Life, outcome: Hashable) -> Life | None:
        """How that life goes on with this outcome. None where there is no room for one that is new."""
        found = life.after.get(outcome)
        if found is None and self._count < self._most:
            found = life.after[outcome] = Life()
            self._count += 1
        return found

    def footprint(self, footprint: Footprint) -> Footprint:
        return self._footprints.setdefault(footprint, footprint)

    def directories(self, directories: frozenset[WalkStep]) -> frozenset[WalkStep]:
        return self._directories.setdefault(directories, directories)

    def forget(self) -> None:
        self._count = 0
        self._roots.clear()
        self._footprints.clear()
        self._directories.clear()


class Lives(Kept):
    """Of the processes of one run. `known` outlives it."""

    kept = ("_at",)

    def __init__(
        self, machine: Machine, sight: Sight, known: AllLives, contention: Contention, steps: StepsSeen
    ) -> None:
        self._machine = machine
        self._sight = sight
        self._known = known
        self._steps = steps
        self._contention = contention
        self._at: list[Life | None] = [known.root(process) for process in range(2 * len(machine.cpus))]
        self._context: Context | None = None
        self._op: Op | None = None
        self._node: HistoryNode | None = None
        self._stores = 0  # in the journal before the step

    def before(self, choice: Choice) -> None:
        """That step is about to be made."""
        self._context = top = self._machine.cpus[choice.cpu].top
        self._op = self._node = None
        if isinstance(top, RoutineContext) and isinstance(top.routine, Recalled):
            self._op, self._node = top.pending, top.routine.node
        self._stores = self._machine.memory.journal.now
        self._steps.before()

    def after(self, process: int, choice: Choice, footprint: Footprint) -> Life | None:
        """It has been made. Returns the life of its process now, None where nobody can say."""
        life = self._at[process]
        if life is None:
            return None
        seen = self._seen(choice)
        if seen is None:
            now = None
        else:
            touched = self._known.footprint(footprint)
            outcome = (seen, touched, tuple(self._stored()), tuple(self._left(touched)))
            now = self._known.then(life, outcome)
        self._at[process] = now
        return now

    def learn(
        self, process: int, before: Life | None, footprint: Footprint, held: Mapping[Touched, int]
    ) -> None:
        """The step just made, after that life, was a new one, and no question was asked in it."""
        after, context, node = self._at[process], self._context, self._node
        if before is None or after is None or node is None or not self._is_fixed(process):
            return
        assert isinstance(context, RoutineContext)
        does = self._steps.made(context, node, footprint)
        transacts = self._transacts(context)
        directories = self._known.directories(self._steps.directories())
        touched = self._known.footprint(footprint)
        step = KnownStep(process, directories, touched, held, after, does, transacts)
        self._contention.varied += before.learn(step)

    def on_to(self, process: int, life: Life) -> None:
        """What lies between has been done."""
        self._at[process] = life

    def of(self, process: int) -> Life | None:
        return self._at[process]

    def chain(self, process: int) -> Chain | None:
        """The private steps that the process is known to make next; None where the next one is no such."""
        life = self._at[process]
        if life is None:
            return None
        if not self._is_current(process, life.chain):
            found = self._chain(process, life)
            life.chain = found if found.steps else None
        return life.chain

    def _is_current(self, process: int, chain: Chain | None) -> bool:
        if chain is None or len(chain.end.steps) != chain.followed or not self._leads(chain.directories):
            return False
        now = self._contention.now
        if now != chain.since:
            if self._contention.has_news(process, chain.touched, chain.doubts, chain.since):
                return False
            chain.since = now
        return True

    def _chain(self, process: int, life: Life) -> Chain:
        steps: list[KnownStep] = []
        doubts: set[Touched] = set()
        while (step := self._next(life)) is not None:
            found = self._contention.doubts(process, step.footprint)
            if found is None:
                break
            doubts |= found
            steps.append(step)
            life = step.after
        directories = frozenset[WalkStep]().union(*(step.directories for step in steps))
        touched = all_of(step.footprint for step in steps)
        now = self._contention.now
        return Chain(tuple(steps), directories, touched, frozenset(doubts), now, life, len(life.steps))

    def _next(self, life: Life) -> KnownStep | None:
        """The step that follows, as things are now."""
        if life.varies:
            return None
        return next((step for step in life.steps if self._leads(step.directories)), None)

    def _leads(self, directories: frozenset[WalkStep]) -> bool:
        """Whether that is in these entries of directories."""
        read = self._machine.memory.read_word
        for step in directories:  # noqa: SIM110 (a generator costs more than the loop)
            if without_marks(Pte(read(step.pa))) != step.entry:
                return False
        return True

    def _seen(self, choice: Choice) -> Hashable | None:
        """What the process has seen of the step, and where it is now."""
        cpu = self._machine.cpus[choice.cpu]
        top = cpu.top
        match top:
            case RoutineContext(routine=Recalled(node=node)):
                if isinstance(choice, TakeInterrupt) and top is self._context:
                    return None  # a handler that is one step: what it has read nobody has kept
                return (len(cpu.contexts), node)
            case GuestContext():
                return None if isinstance(choice, TakeInterrupt) else (len(cpu.contexts), top.core.state())
            case RoutineContext() | None:
                return None  # it is not recalled, or the CPU has nothing left to do
            case _:
                assert_never(top)

    def _stored(self) -> Iterator[tuple[int, bytes]]:
        """What the step has stored: no result says what was copied, nor through which translation."""
        memory = self._machine.memory
        for store in memory.journal.since(self._stores):
            data = memory.read(store.pa, len(store.old))
            yield store.pa, data if len(data) <= _LONG else blake2b(data).digest()

    def _left(self, touched: Footprint) -> Iterator[Hashable]:
        """What judges remember of the step: no result says what they have made of it."""
        if self._sight.comparable:
            for some in (touched.writes, touched.marks):
                for one in sorted(name for name in some if isinstance(name, CellName)):
                    yield one, self._sight.state_of(one)

    def _is_fixed(self, process: int) -> bool:
        """Whether the step was one op of a routine that goes on, and nothing else."""
        context = self._context
        if not isinstance(context, RoutineContext) or not isinstance(self._op, _Fixed):
            return False
        if self._machine.cpus[process // 2].top is not context:
            return False
        return self._node is not None and isinstance(context.routine, Recalled)

    def _transacts(self, context: RoutineContext) -> bool:
        assert isinstance(context.routine, Recalled)
        assert self._node is not None
        found = context.routine.node.path(self._node.depth)
        return any(isinstance(node.awaited, Transact) for node in found[:-1])
