"""The way of one run: along the path of the search to its last node, then on where nothing sleeps.

Each new step is taken note of: what it touched, what it races with, and so what else is to be tried.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from typing import Never

from emu.choice import Choice, Question, Step, TakeInterrupt, VersionQuestion
from emu.cpu.cpu import GuestContext
from emu.kept import Bookmark, Kept
from emu.machine import Machine
from emu.paging.dead_end import DeadEnd
from emu.paging.lazy import LazySpec, Memory
from emu.paging.tlb import ALL_RULES, TlbEntry
from hvolab.explore.footprint.conflict import NOTHING, Footprint, conflict
from hvolab.explore.footprint.process import process_of
from hvolab.explore.footprint.recorder import Recorder
from hvolab.explore.footprint.tables import Tables
from hvolab.explore.reduce.alternatives import Alternatives
from hvolab.explore.reduce.explored import Blind, Explored
from hvolab.explore.reduce.node import AnswerBranch, Node
from hvolab.explore.reduce.waiting import waiting_at
from hvolab.explore.search.interface import Freedom, NoProgress, Redundant, SeenBefore, freedom_of
from hvolab.explore.states.past import Past
from hvolab.explore.states.reader import StateReader
from hvolab.explore.states.visits import Visit
from hvolab.explore.stretches.leaps import Leap, UnderWay
from hvolab.explore.stretches.lives import KnownStep, Life, Lives
from hvolab.explore.stretches.quiet import StepsSeen
from hvolab.judge.sight.facts import VersionFacts
from hvolab.judge.sight.resource import Touched
from hvolab.judge.sight.sight import Sight


class PathPicker(Kept):
    """The picker of a run."""

    parts = ("_recorder", "_states", "_lives")

    def __init__(
        self,
        machine: Machine,
        sight: Sight,
        explored: Explored,
        tables: Tables,
        freedoms: frozenset[Freedom],
        blind: Blind,
    ) -> None:
        self._machine = machine
        self._sight = sight
        self._explored = explored
        self._nodes, self._history, self._visits = explored.nodes, explored.history, explored.visits
        self._alternatives = Alternatives(explored.nodes, explored.history)
        self._freedoms = freedoms
        self._blind = dict.fromkeys(blind.facts)
        self._recorder = Recorder(machine, tables, blind.kinds)
        sight.watched_by(self._recorder)
        past = Past(machine, tables, explored.values)
        self._states = StateReader(machine, sight, self._recorder, past, explored.values, blind.states)
        self._contention = explored.contention
        seen = StepsSeen(machine, sight, tables)
        self._lives = Lives(machine, sight, explored.lives, explored.contention, seen)
        self._leap = UnderWay()
        self._model = machine.cpus[0].mmu.model
        self._depth = 0  # steps begun
        self._asked = 0  # questions within the step
        self._life: Life | None = None  # before the step
        self._last: Choice | None = None
        self._stepped: int | None = None  # the CPU of the step that ended last
        self._happened = NOTHING
        self._waited_for: dict[Touched, int | None] = {}
        self._given_up = False

    def pick(self, enabled: list[Choice]) -> Choice:
        self.settle()
        if self._leap.step is not None:
            return self._leap_on(Step(self._leap.step.process // 2))
        if self._depth == len(self._nodes):
            self._nodes.append(self._node(enabled, self._happened))
        node = self._nodes[self._depth]
        node.at = self._machine.steps
        choice = node.enabled[node.current]
        self._depth += 1
        self._asked = 0
        self._last = choice
        self._recorder.replaying = self._depth <= len(self._history.steps)
        if not self._recorder.replaying:
            self._waited_for = self._recorder.waits_for(choice)
        self._recorder.before(choice)
        self._life = self._lives.of(node.current)
        self._lives.before(choice)
        return choice

    def answer(self, question: Question) -> int:
        if freedom_of(question) not in self._freedoms or question.options == 1:
            return question.default
        if isinstance(question, VersionQuestion):
            self._recorder.offered((*question.entries, *question.dead_ends))
        if self._leap.step is not None:
            distinct = self._distinct(question)
            if len(distinct) == 1:
                return distinct[0]
            self._leave_leap()
        answers = self._nodes[self._depth - 1].answers
        if self._asked == len(answers):
            answers.append(AnswerBranch(self._distinct(question)))
        answer = answers[self._asked]
        self._asked += 1
        return answer.options[answer.at]

    def finish(self) -> None:
        """Any end is fine. What is asked from here on is asked after all steps, whoever made the last."""
        if self._last is not None and self._leap.step is None and not self._recorder.replaying:
            self._touched(self._nodes[self._depth - 1].current, self._recorder.after(self._last))

    def settle(self) -> None:
        """Take note of the step begun last, if that is still to be done."""
        if self._last is None:
            return
        last, self._last = self._last, None
        self._stepped = last.cpu
        if self._leap.step is None:
            self._happened = self._ended(last)
        else:
            self._leapt(last, self._leap.step)

    def back(self, mark: Bookmark) -> None:
        """To a place on the path before its last node: from there to the node the steps are known."""
        super().back(mark)
        steps = self._machine.steps
        self._depth = bisect_left(self._nodes, steps, key=lambda node: node.at)
        last = self._nodes[self._depth - 1] if self._depth else None
        self._leap.begin(None if last is None else last.leap, 0 if last is None else steps - last.at - 1)
        self._last, self._stepped = None, None
        self._asked, self._given_up = 0, False
        self._happened = NOTHING

    def conclude(self) -> None:
        """The run has ended, or was given up."""
        if self._given_up:
            return
        self.settle()
        if self._machine.enabled():
            self._cut_off()
        for number, cpu in enumerate(self._machine.cpus):
            for choice in (Step(number), TakeInterrupt(number)):
                waits = cpu.top is not None if isinstance(choice, Step) else self._pending(number)
                if waits and not self._machine.is_enabled(choice):
                    self._blocked(choice)

    # -- one step ------------------------------------------------------------------------------------

    def _ended(self, last: Choice) -> Footprint:
        """The footprint of the step begun last, which its node takes note of where it is a new one."""
        node = self._nodes[self._depth - 1]
        if self._recorder.replaying:
            known = self._history.steps[self._depth - 1].footprint
            self._recorder.replayed(last, known)
            self._states.ended(node.current, known)
            self._lives.after(node.current, last, known)
            self._leap.begin(node.leap)
            return NOTHING
        footprint = self._recorder.after(last)
        self._states.ended(node.current, footprint)
        self._lives.after(node.current, last, footprint)
        self._made(node, footprint)
        if self._machine.busy and not self._asked:
            self._lives.learn(node.current, self._life, footprint, self._recorder.held)
        if self._depth == len(self._nodes):
            # Otherwise the path is one of a checkpoint: it has a state before each step.
            node.leap = self._leap_from(node)
        self._leap.begin(node.leap)
        return footprint

    def _made(self, node: Node, footprint: Footprint) -> None:
        """The step of the last state is a new one."""
        if self._machine.busy:
            self._touched(node.current, footprint)
            touched = footprint.reads | footprint.writes | footprint.marks
            self._contention.met(footprint, self._history.touching(node.current, touched))
        node.footprint = node.footprint.union(footprint)
        self._note(node, node.current, footprint, self._waited_for)
        enabled = frozenset(node.enabled)
        races = self._history.add(node.current, footprint, enabled, self._recorder.held, self._waited_for)
        before = self._history.steps[-1].before
        self._alternatives.of_step(races, node.current, before, self._waited_for)

    def _touched(self, process: int, footprint: Footprint) -> None:
        """A new step, or one that never came. What it conflicts with was not private to others."""
        self._open_leaps(process, self._contention.note(process, footprint))

    def _open_leaps(self, process: int, doubtful: Footprint) -> None:
        if doubtful != NOTHING:
            self._depth += self._explored.open_leaps(process, doubtful)

    def _leap_from(self, node: Node) -> Leap | None:
        """What the process that has just stepped goes on with by itself."""
        process = node.current
        waiting = self._waiting_beside(process)
        for other, footprint in waiting.items():
            self._contention.note(other, footprint)
        chain = self._lives.chain(process)
        while chain is not None and chain.doubts:
            others = (*node.asleep_beside().values(), *waiting.values())
            met = self._explored.met(process, chain, others)
            if met == NOTHING:
                break
            self._contention.conflicted(met.reads | met.writes | met.marks)
            self._open_leaps(process, met)
            chain = self._lives.chain(process)
        if chain is None:
            return None
        if node.visit is not None:
            node.visit.made.add(self._visits.made(process, chain.touched, {}))
        enabled = self._machine.enabled()
        by_process = {process_of(self._machine, choice): choice for choice in enabled}
        return Leap(chain.steps, chain.touched, chain.quiet, by_process)

    def _waiting_beside(self, process: int) -> dict[int, Footprint]:
        """What the others wait for: what lets one of them step, or keeps it from stepping, is not private."""
        found = {}
        for number, cpu in enumerate(self._machine.cpus):
            choice = Step(number)
            if cpu.top is not None and number != process // 2:
                found[process_of(self._machine, choice)] = self._recorder.blocked(choice)
        return found

    def _leap_on(self, choice: Choice) -> Choice:
        """The next step of a leap, which is not one that is known to do the same as before."""
        self._recorder.replaying = self._depth < len(self._nodes)
        self._recorder.before(choice)
        self._lives.before(choice)
        self._last = choice
        return choice

    def repeat(self, most: int) -> tuple[Choice, int] | None:
        """Make up to so many steps that are known to do the same as before, all at once: whose, how many."""
        self.settle()
        step, quiet = self._leap.step, self._leap.quiet
        if step is None or quiet is None or most < quiet.does.steps:
            return None
        cpu = step.process // 2
        if not self._machine.repeat(cpu, quiet.does, self._sight.stored):
            return None
        self._states.passed()
        self._lives.on_to(step.process, quiet.after)
        self._leap.made(quiet.does.steps)
        return Step(cpu), quiet.does.steps

    def _leapt(self, last: Choice, known: KnownStep) -> None:
        """The step of a leap that was begun last has ended."""
        if self._recorder.replaying:
            self._recorder.replayed(last, known.footprint)
            self._states.ended(known.process, known.footprint)
            self._lives.after(known.process, last, known.footprint)
            self._leap.made()
            return
        footprint = self._recorder.after(last)
        self._states.ended(known.process, footprint)
        after = self._lives.after(known.process, last, footprint)
        made = self._leap.steps_made
        if footprint != known.footprint:
            # A judge may look at more while others have something under way.
            self._happened = footprint
            self._made(self._leave_leap(), footprint)
        elif after is not known.after:
            assert known.may_vary, f"a private step of process {known.process} was another one this time"
            self._leap.begin(None)
            self._explored.end_leap(made + 1)
        else:
            self._leap.made()

    def _leave_leap(self) -> Node:
        """The step of a leap, under way or just ended, is a step of its own after all. Returns its state."""
        assert not self._recorder.replaying
        node = self._explored.leave_leap(self._leap.steps_made)
        self._leap.begin(None)
        self._depth += 1
        self._asked, self._waited_for = 0, {}
        return node

    def _node(self, enabled: list[Choice], happened: Footprint) -> Node:
        processes = {process_of(self._machine, choice): choice for choice in enabled}
        sleep: dict[int, Footprint] = {}
        running = None
        if self._depth:
            parent = self._nodes[self._depth - 1]
            running = parent.current
            sleep = {
                process: footprint
                for process, footprint in parent.asleep_beside().items()
                if not conflict(footprint, happened)
            }
        awake = [process for process in processes if process not in sleep]
        if not awake:
            self._given_up = True
            raise Redundant
        current = running if running in awake else awake[0]
        assert current is not None
        return Node(processes, sleep, current, {current}, visit=self._visit(sleep))

    def _visit(self, sleep: Mapping[int, Footprint]) -> Visit:
        """This state, come to with these asleep. Raises SeenBefore where nothing is left to explore."""
        above = self._nodes[self._depth - 1].visit if self._depth else None
        is_guests = self._was_a_guests_step()
        # How far a guest program has come no number says: each of its states is looked at.
        looks = self._visits.looks_at(0 if is_guests else self._machine.progress, meets=self._meets())
        state = self._states.read() if looks else None
        known = None if state is None else self._visits.finished(state, sleep)
        # Histories grow: guest programs alone come back to where they were.
        loop = self._visits.under_way(state, sleep) if is_guests and state is not None else None
        visit = known or loop or self._visits.begin(state, sleep, self._depth)
        if above is not None:
            above.behind[visit] = None
        if known is not None or loop is not None:
            self._given_up = True
        if known is not None:
            for made in known.all():
                self._open_leaps(made.process, self._contention.doubted(made.footprint))
            self._alternatives.of_behind(known, waiting_at(self._machine, self._recorder))
            raise SeenBefore
        if loop is not None:
            self._close(loop)
        return visit

    def _meets(self) -> bool:
        """Whether what the process that stepped last has touched concerns others: a place where ways meet."""
        if not self._depth:
            return True
        return self._contention.doubts(self._nodes[self._depth - 1].current, self._happened) is None

    def _was_a_guests_step(self) -> bool:
        """Whether a guest program has made the step that ended last, and goes on."""
        if self._stepped is None:
            return False
        return isinstance(self._machine.cpus[self._stepped].top, GuestContext)

    def _close(self, first: Visit) -> Never:
        """The path leads back to that state. Whoever could step in the loop is tried everywhere in it.

        Raises SeenBefore; NoProgress where nobody is left out of the loops through the state.
        """
        loop = range(first.depth, self._depth)
        for node in self._nodes[first.depth :]:
            node.to_try.update(node.enabled)
            node.in_loop = True
            first.could.update(node.enabled)
        above = self._nodes[-1].visit
        if above is not None:
            above.back_to = min(above.back_to, first.depth)
        first.looped.update(self._history.steps[number].process for number in loop)
        if first.could <= first.looped:
            cpus = sorted({process // 2 for process in first.looped})
            raise NoProgress(", ".join(f"cpu{cpu} in {self._machine.cpus[cpu].site()}" for cpu in cpus))
        raise SeenBefore

    def _note(
        self, node: Node, process: int, footprint: Footprint, waited_for: Mapping[Touched, int | None]
    ) -> None:
        """A step for those that come to its state another way."""
        if node.visit is not None:
            node.visit.made.add(self._visits.made(process, footprint, waited_for))

    def _blocked(self, choice: Choice) -> None:
        """A step that never came."""
        process, footprint = process_of(self._machine, choice), self._recorder.blocked(choice)
        self._touched(process, footprint)
        waited_for = self._recorder.waits_for(choice)
        if not self._nodes:
            return  # nobody could step at all
        self._note(self._nodes[-1], process, footprint, waited_for)
        self._alternatives.of_blocked(process, footprint, waited_for)

    def _cut_off(self) -> None:
        """A budget has ended the run: of no state on its way it is known what lies behind."""
        for node in self._nodes:
            if node.visit is not None:
                node.visit.cut_off = True

    # -- what the machine says -----------------------------------------------------------------------

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
        return obeys and isinstance(spec, LazySpec) and spec.memory is not Memory.SINGLE
