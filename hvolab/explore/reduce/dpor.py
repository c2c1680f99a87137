"""Exhaustive search with dynamic partial-order reduction: one run for all orders that nobody can tell apart.

Depth first over the choices, but another process is tried at a step only where a race says that the order
matters (source sets: Abdulla et al., POPL 2014), and one that has been tried sleeps until a step conflicts
with it. The answers inside a step are all tried. What counts as a conflict is the footprints' affair.

A *process* is a CPU's thread, or its interrupts: handlers are ordered against the code they interrupt only
by what they touch. Promised: the same findings as the unreduced search has. That needs both freedoms of the
schedule, and CPUs with a lazy TLB, whose state is what was stored and invalidated.
"""

from __future__ import annotations

from collections.abc import Mapping

from emu.choice import Choice, Question, Step, TakeInterrupt, VersionQuestion
from emu.kept import Bookmark, Kept
from emu.machine import Machine
from emu.paging.dead_end import DeadEnd
from emu.paging.lazy import LazySpec, Memory
from emu.paging.tlb import ALL_RULES, TlbEntry
from hvolab.checked.json_value import Json
from hvolab.checked.place import Place
from hvolab.explore.reduce.conflict import NOTHING, Footprint, conflict
from hvolab.explore.reduce.footprint import Recorder, in_handler
from hvolab.explore.reduce.happens_before import HappensBefore, Steps
from hvolab.explore.reduce.node import AnswerBranch, Node
from hvolab.explore.reduce.tables import Tables
from hvolab.explore.search.interface import Freedom, Next, Redundant
from hvolab.judge.sight.resource import Kind, Resource, Touched
from hvolab.judge.sight.sight import Sight, VersionFacts
from hvolab.subject.picker import Picker
from kernel_model.boot import System


class CannotReduce(ValueError):
    """Reduction would not be sound for this setup."""


class Reduced:
    """The search. From a state with a floor, it explores only what lies above that depth.

    `without` and `blind_to` are for tests: kinds of resources to leave out of footprints, and fields of
    VersionFacts by which versions are not told apart. Both are unsound.
    """

    def __init__(
        self, without: frozenset[Kind] = frozenset(), blind_to: frozenset[str] = frozenset()
    ) -> None:
        self._without = without
        self._blind_to = blind_to
        self._nodes: list[Node] = []
        self._history = HappensBefore()
        self._tables: Tables | None = None
        self._run: _PathPicker | None = None
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
        return 0 if self._run is None else len(self._nodes) - 1

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
        self._run = _PathPicker(
            system.machine,
            sight,
            self._nodes,
            self._history,
            self._tables,
            freedoms,
            self._without,
            self._blind_to,
        )
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
        if self._floor < 0:
            self._nodes.clear()
            self._history.cut(0)
            self._begun = False
        return Next.START_AGAIN

    def extent(self) -> str:
        return "exhaustive"

    def save(self) -> Json:
        learned: dict[str, Json] = {} if self._tables is None else {"tables": self._tables.save()}
        return {
            **learned,
            "nodes": [node.save() for node in self._nodes],
            "begun": int(self._begun),
            "floor": self._floor,
        }

    def load(self, place: Place) -> None:
        self._learned = place.optional("tables")
        if self._tables is not None and self._learned is not None:
            self._tables.load(self._learned)
        self._run = None
        self._nodes = [Node.load(one) for one in place.field("nodes").items()]
        self._history.cut(0)
        self._begun = bool(place.field("begun").integer(0, 1))
        self._floor = place.field("floor").integer(-1, len(self._nodes) - 1)

    def _backtrack(self) -> bool:
        while self._nodes:
            node = self._nodes[-1]
            at_floor = len(self._nodes) - 1 == self._floor
            if node.next_answer() or (not at_floor and node.next_process()):
                self._history.cut(len(self._nodes) - 1)
                return True
            if at_floor:
                break
            self._nodes.pop()
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
        self._nodes.clear()
        self._history.cut(0)
        self._begun = False

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The current path. With a floor it ends there once everything above has been explored."""
        return tuple(self._nodes)


class _PathPicker(Kept):
    """The picker of a run: follows the path to its last node, then goes on where nothing sleeps."""

    kept = ("_depth",)
    parts = ("_recorder",)

    def __init__(
        self,
        machine: Machine,
        sight: Sight,
        nodes: list[Node],
        history: HappensBefore,
        tables: Tables,
        freedoms: frozenset[Freedom],
        without: frozenset[Kind],
        blind_to: frozenset[str],
    ) -> None:
        self._given_up = False
        self._machine = machine
        self._nodes = nodes
        self._history = history
        self._freedoms = freedoms
        self._sight = sight
        self._recorder = Recorder(machine, tables, without)
        self._blind = dict.fromkeys(blind_to)
        sight.watched_by(self._recorder)
        self._depth = 0  # steps begun
        self._asked = 0  # questions within the step
        self._last: Choice | None = None
        self._happened = NOTHING
        self._waited_for: dict[Touched, int | None] = {}
        self._model = machine.cpus[0].mmu.model

    def pick(self, enabled: list[Choice]) -> Choice:
        self.settle()
        if self._depth == len(self._nodes):
            self._nodes.append(self._node(enabled, self._happened))
        node = self._nodes[self._depth]
        choice = node.enabled[node.current]
        self._depth += 1
        self._asked = 0
        self._last = choice
        self._recorder.replaying = self._depth <= len(self._history.steps)
        if not self._recorder.replaying:
            self._waited_for = self._recorder.waits_for(choice)
        self._recorder.before(choice)
        return choice

    def answer(self, question: Question) -> int:
        freedom = Freedom.TLB if isinstance(question, VersionQuestion) else Freedom.ALLOC
        if freedom not in self._freedoms or question.options == 1:
            return question.default
        if isinstance(question, VersionQuestion):
            self._recorder.offered((*question.entries, *question.dead_ends))
        answers = self._nodes[self._depth - 1].answers
        if self._asked == len(answers):
            answers.append(AnswerBranch(self._distinct(question)))
        answer = answers[self._asked]
        self._asked += 1
        return answer.options[answer.at]

    def finish(self) -> None:
        """Any end is fine."""

    def settle(self) -> None:
        """Take note of the step begun last, if that is still to be done."""
        if self._last is not None:
            self._happened = self._ended(self._last)
            self._last = None

    def back(self, mark: Bookmark) -> None:
        """To a place on the path before its last node: from there to the node the steps are known."""
        super().back(mark)
        self._last, self._asked, self._given_up = None, 0, False
        self._happened = NOTHING

    def conclude(self) -> None:
        """The run has ended, or was given up."""
        if self._given_up:
            return
        self.settle()
        for number, cpu in enumerate(self._machine.cpus):
            for choice in (Step(number), TakeInterrupt(number)):
                waits = cpu.top is not None if isinstance(choice, Step) else self._pending(number)
                if waits and not self._machine.is_enabled(choice):
                    self._blocked(choice)

    # -- one step ------------------------------------------------------------------------------------

    def _ended(self, last: Choice) -> Footprint:
        """The footprint of the step begun last, which its node takes note of where it is a new one."""
        if self._recorder.replaying:
            self._recorder.replayed(last, self._history.steps[self._depth - 1].footprint)
            return NOTHING
        footprint = self._recorder.after(last)
        node = self._nodes[self._depth - 1]
        node.footprint = node.footprint.union(footprint)
        races = self._history.add(
            node.current,
            footprint,
            frozenset(node.enabled),
            self._recorder.held,
            self._waited_for,
        )
        self._try_reversed(races, node.current, self._history.steps[-1].before)
        self._try_at_once(races, node.current, self._waited_for)
        return footprint

    def _node(self, enabled: list[Choice], happened: Footprint) -> Node:
        processes = {self._process(choice): choice for choice in enabled}
        sleep: dict[int, Footprint] = {}
        running = None
        if self._depth:
            parent = self._nodes[self._depth - 1]
            running = parent.current
            sleep = {
                process: footprint
                for process, footprint in (parent.sleep | parent.tried).items()
                if process != parent.current and not conflict(footprint, happened)
            }
        awake = [process for process in processes if process not in sleep]
        if not awake:
            self._given_up = True
            raise Redundant
        current = running if running in awake else awake[0]
        assert current is not None
        return Node(processes, sleep, current, {current})

    def _try_reversed(self, races: list[int], process: int, before: Steps) -> None:
        for race in races:
            node = self._nodes[race]
            firsts = self._history.firsts(race, process, before)
            if node.covers(firsts):
                continue
            possible = sorted(p for p in firsts if p in node.enabled)
            if process in possible:
                node.to_try.add(process)
            elif possible:
                node.to_try.add(possible[0])
            else:
                node.to_try.update(node.enabled)

    def _try_at_once(self, races: list[int], process: int, waited_for: Mapping[Touched, int | None]) -> None:
        """What waits for several words at once must come before each step that ends one of them.

        To reverse one race after another would put the other step first every time.
        """
        if sum(not isinstance(part, Resource) for part in waited_for) < 2:
            return
        for race in races:
            if process in self._nodes[race].enabled:
                self._nodes[race].to_try.add(process)

    def _blocked(self, choice: Choice) -> None:
        """A step that never came: who made it wait may have come after it instead."""
        process, footprint = self._process(choice), self._recorder.blocked(choice)
        before = self._history.before_blocked(process, footprint)
        waited_for = self._recorder.waits_for(choice)
        races = self._history.would_race(process, footprint, waited_for)
        self._try_reversed(races, process, before)
        self._try_at_once(races, process, waited_for)

    # -- what the machine says -----------------------------------------------------------------------

    def _process(self, choice: Choice) -> int:
        """Two for each CPU: its threads, and its interrupts."""
        interrupt = isinstance(choice, TakeInterrupt) or in_handler(self._machine.cpus[choice.cpu])
        return 2 * choice.cpu + interrupt

    def _pending(self, cpu: int) -> bool:
        return cpu in self._machine.apic.interrupted

    def _distinct(self, question: Question) -> tuple[int, ...]:
        """One option of each outcome, the default's last: the unusual first."""
        options = [n for n in range(question.options) if n != question.default] + [question.default]
        if not isinstance(question, VersionQuestion) or not self._forgets_nothing():
            return tuple(options)
        kept: dict[object, int] = {}
        for option in options:
            kept[self._outcome(question, option)] = option
        return tuple(sorted(kept.values(), key=options.index))

    def _outcome(self, question: VersionQuestion, option: int) -> object:
        """What tells one option from others. A dead end is like no other."""
        used = question.option(option)
        if isinstance(used, DeadEnd):
            return used
        facts, now = self._facts(question, used), self._facts(question, None)
        return now if facts.is_as_good_as(now) else facts

    def _facts(self, question: VersionQuestion, used: TlbEntry | None) -> VersionFacts:
        facts = self._sight.facts_of(question.va, used)
        return facts._replace(**self._blind) if self._blind else facts

    def _forgets_nothing(self) -> bool:
        """With one entry a page, using a version has consequences of its own.

        On a CPU that does not obey its invalidations any use may be the one that shows it.
        """
        spec = self._model.tlb
        obeys = self._model.rules == ALL_RULES
        return obeys and isinstance(spec, LazySpec) and spec.memory is Memory.SET
