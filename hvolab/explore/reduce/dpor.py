"""Exhaustive search with dynamic partial-order reduction: one run for all orders that nobody can tell apart.

Depth first over the choices, but another process is tried at a step only where a race says that the order
matters (source sets: Abdulla et al., POPL 2014), and one that has been tried sleeps until a step conflicts
with it. The answers inside a step are all tried. What counts as a conflict is the footprints' affair.

A run ends where it comes to a state that the search has been in, with nothing more to explore from there than
it had then: what lies behind races with the new way there, and nothing else of it is new (stateful reduction:
Yang et al., SPIN 2008). States are remembered within a limit; one that is not is explored again.

A *process* is a CPU's thread, or its interrupts: handlers are ordered against the code they interrupt only
by what they touch. Promised: the same findings as the unreduced search has. That needs both freedoms of the
schedule, and CPUs with a lazy TLB, whose state is what was stored and invalidated.
"""

from __future__ import annotations

from emu.paging.lazy import LazySpec
from hvolab.checked.json_value import Json
from hvolab.checked.place import Place
from hvolab.explore.footprint.tables import Tables
from hvolab.explore.reduce.explored import Blind, Explored
from hvolab.explore.reduce.node import Node
from hvolab.explore.reduce.path import PathPicker
from hvolab.explore.search.interface import Freedom, InMemory, Next
from hvolab.explore.states.values import Values
from hvolab.explore.states.visits import Remembers, Visits
from hvolab.explore.stretches.contention import Contention
from hvolab.explore.stretches.lives import AllLives
from hvolab.judge.sight.sight import Sight
from hvolab.subject.picker import Picker
from kernel_model.boot import System


class CannotReduce(ValueError):
    """Reduction would not be sound for this setup."""


class Reduced:
    """The search. From a state with a floor, it explores only what lies above that depth."""

    def __init__(
        self,
        remembers: Remembers = Remembers(),  # noqa: B008 (frozen)
        blind: Blind = Blind(),  # noqa: B008 (frozen)
    ) -> None:
        self._explored = Explored(
            Visits(remembers),
            Values(remembers.values),
            Contention(blind.contended),
            AllLives(remembers.lives),
        )
        self._blind = blind
        self._tables: Tables | None = None
        self._run: PathPicker | None = None
        self._learned: Place | None = None  # out of a checkpoint, until there is a machine
        self._begun = False
        self._floor = -1

    def begin(self) -> bool:
        if self._begun and not self._backtrack():
            return False
        self._begun = True
        return True

    @property
    def shared(self) -> int:
        """How many steps of the run to come are those of the last one. 0: it has a picker of its own."""
        return 0 if self._run is None else self._explored.nodes[-1].at

    @property
    def remembered(self) -> InMemory:
        visits, lives = self._explored.visits, self._explored.lives
        return InMemory(len(visits), visits.full or lives.full)

    def picker(self, system: System, sight: Sight, freedoms: frozenset[Freedom]) -> Picker:
        """Raises CannotReduce where reduction would not be sound."""
        if not freedoms >= {Freedom.SCHEDULE, Freedom.IRQ}:
            raise CannotReduce("reduction needs the freedoms schedule and irq")
        model = system.machine.cpus[0].mmu.model
        if not isinstance(model.tlb, LazySpec):
            raise CannotReduce(f"reduction needs a lazy TLB; {model.name} has one with a geometry")
        if self._tables is None:
            self._tables = Tables(system.machine.memory, model)
            for walk in sight.judged_walks():
                self._tables.learn(walk)
            self._tables.grown = False  # known from the start
            if self._learned is not None:
                self._tables.load(self._learned)
        self._run = PathPicker(system.machine, sight, self._explored, self._tables, freedoms, self._blind)
        return self._run

    def end(self, system: System) -> Next:
        del system
        assert self._run is not None
        assert self._tables is not None
        self._run.conclude()
        if not self._tables.grown:
            return Next.GO_ON
        self._tables.grown = False
        self._run = None
        self._explored.forget_steps()
        self._explored.forget_states()
        if self._floor < 0:
            self._explored.cut(0)
            self._begun = False
        return Next.START_AGAIN

    def extent(self) -> str:
        return "exhaustive"

    def save(self) -> Json:
        learned: dict[str, Json] = {} if self._tables is None else {"tables": self._tables.save()}
        return {
            **learned,
            "nodes": [node.save() for node in self.nodes],
            "begun": int(self._begun),
            "floor": self._floor,
        }

    def load(self, place: Place) -> None:
        self._learned = place.optional("tables")
        self._run = None
        self._explored.cut(0)
        if self._tables is not None and self._learned is not None:
            known = self._tables.save()
            self._tables.load(self._learned)
            if self._tables.save() != known:
                self._explored.forget()
        self._explored.go_on_from([Node.load(one) for one in place.field("nodes").items()])
        self._begun = bool(place.field("begun").integer(0, 1))
        self._floor = place.field("floor").integer(-1, len(self._explored.nodes) - 1)

    def _backtrack(self) -> bool:
        nodes = self._explored.nodes
        while nodes:
            node = nodes[-1]
            at_floor = len(nodes) - 1 == self._floor
            if node.next_answer() or (not at_floor and node.next_process()):
                node.leap = None
                self._explored.history.cut(len(nodes) - 1)
                return True
            if at_floor:
                break
            nodes.pop()
            if node.visit is not None:
                self._explored.visits.finish(node.visit, nodes[-1].visit if nodes else None)
        return False

    def save_learned(self) -> Json:
        """What has been learned of the page tables."""
        assert self._tables is not None
        return self._tables.save()

    def learn(self, place: Place) -> None:
        """Take over what another process has learned, and begin again."""
        assert self._tables is not None
        self._tables.load(place)
        self._run = None
        self._explored.forget()
        self._begun = False

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The current path. With a floor it ends there once everything above has been explored."""
        return tuple(self._explored.unfolded())
