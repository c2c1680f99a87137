"""A reduced exploration by several processes: the same findings as by one.

One process begins. When it is not done after a few runs, what is left is cut into tasks (`frontier`), which
worker processes do. The workers are forked then: a setup need not be sent, and they know what the one knew.
What is sent is JSON. States that a worker comes to only it remembers: some are explored by several.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess

from hvolab.checked.json_value import Json
from hvolab.checked.place import Place
from hvolab.explore.audience import SILENT, Audience
from hvolab.explore.budget import Budget
from hvolab.explore.collector import rarely_collected
from hvolab.explore.coverage import INTERRUPTED
from hvolab.explore.explorer import Exploration, Exploring
from hvolab.explore.interrupts import CtrlC, held_interrupts
from hvolab.explore.reduce.dpor import Reduced
from hvolab.explore.reduce.frontier import Frontier
from hvolab.explore.search.interface import Freedom, Next
from hvolab.explore.states.visits import Remembers
from hvolab.subject.blame import LoadError
from hvolab.subject.scenario import Setup

RUNS_BEFORE = 32


class WorkerDied(RuntimeError):
    """A worker process ended before its task did."""


def explore_with_jobs(
    setup: Setup,
    freedoms: frozenset[Freedom],
    budget: Budget,
    jobs: int,
    audience: Audience = SILENT,
    remembers: Remembers = Remembers(),  # noqa: B008 (frozen)
) -> Exploration:
    """Explore with partial-order reduction, by `jobs` processes (2 or more). `remembers`: each of them.

    Raises WorkerDied when one was killed, and LoadError as a run does; SIGINT ends it like a budget does.
    """
    strategy = Reduced(remembers)
    main = Exploring(setup, strategy, freedoms, budget, None)
    with held_interrupts() as interrupts, rarely_collected(), _Workers(main, strategy, jobs) as workers:
        team = _Team(main, strategy, budget, workers, interrupts, audience)
        try:
            team.explore()
        except KeyboardInterrupt:
            team.stopped_by = INTERRUPTED
        return team.main.done(team.stopped_by)


class _Team:
    """One process that begins and keeps count, and the workers."""

    def __init__(
        self,
        main: Exploring,
        strategy: Reduced,
        budget: Budget,
        workers: _Workers,
        interrupts: CtrlC,
        audience: Audience,
    ) -> None:
        self.stopped_by: str | None = None
        self.main = main
        self._strategy = strategy
        self._budget = budget
        self._workers = workers
        self._interrupts = interrupts
        self._audience = audience
        self._begun = time.monotonic()

    def explore(self) -> None:
        """Alone, then together; again from the start when a worker has learned something."""
        while True:
            self._alone()
            if self.stopped_by is not None or not self._strategy.nodes:
                return
            if self._together(Frontier(self._strategy)) is Next.GO_ON or self.stopped_by is not None:
                return

    def _alone(self) -> None:
        """The first runs. An empty path afterwards says that all is done."""
        runs = 0
        while self.stopped_by is None and runs < RUNS_BEFORE and self._strategy.begin():
            runs = 0 if self.main.one_run() is Next.START_AGAIN else runs + 1
            self._after()

    def _together(self, frontier: Frontier) -> Next:
        """The rest, task by task."""
        learned = False
        self._workers.begin()
        while True:
            if not learned and self.stopped_by is None:
                self._dispatch(frontier)
            if frontier.idle():
                break
            for depth, result in self._workers.results():
                learned = self._take(frontier, depth, result) or learned
        if not learned:
            return Next.GO_ON
        self.main.tally.learned()
        return Next.START_AGAIN

    def _dispatch(self, frontier: Frontier) -> None:
        while self._workers.idle:
            task = frontier.take()
            if task is None:
                return
            runs = None if self._budget.runs is None else self._budget.runs - self.main.tally.made
            seconds = self._budget.seconds
            if seconds is not None:
                seconds = max(0.01, seconds - (time.monotonic() - self._begun))
            self._workers.send(*task, Budget(runs, seconds, self._budget.steps))

    def _take(self, frontier: Frontier, depth: int, result: Place) -> bool:
        """Count a result. Returns whether the worker has learned something, which the strategy now knows."""
        state = result.field("state")
        self.main.tally.add(state.field("tally"))
        self.main.add_found(state.field("found"))
        self.main.add_lock_orders(state.field("lock_orders"))
        learned = bool(result.field("learned").integer(0, 1))
        if learned:
            self._strategy.learn(state.field("search").field("tables"))
        frontier.give(depth, state.field("search").field("nodes"))
        if result.field("interrupted").integer(0, 1) and self.stopped_by is None:
            self.stopped_by = INTERRUPTED
        self._after()
        return learned

    def _after(self) -> None:
        reason = self.main.tell(self._audience)
        if self.stopped_by is None:
            self.stopped_by = reason
        if self.stopped_by is None:
            self.stopped_by = INTERRUPTED if self._interrupts.asked else self.main.spent()


class _Workers:
    """Processes with a pipe each, none before `begin`. Leaving the block ends them."""

    def __init__(self, main: Exploring, strategy: Reduced, jobs: int) -> None:
        self._main = main
        self._strategy = strategy
        self._jobs = jobs
        self._processes: list[ForkProcess] = []
        self.idle: list[Connection] = []
        self.busy: dict[Connection, int] = {}

    def __enter__(self) -> _Workers:
        return self

    def begin(self) -> None:
        """Fork them, if that has not been done. They go on from where the one process is."""
        context = multiprocessing.get_context("fork")
        for _ in range(self._jobs - len(self._processes)):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, self._main, self._strategy), daemon=True)
            process.start()
            theirs.close()
            self._processes.append(process)
            self.idle.append(ours)

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()
            process.join()

    def send(self, depth: int, state: Json, budget: Budget) -> None:
        connection = self.idle.pop()
        self.busy[connection] = depth
        task = {"state": state, "runs": budget.runs, "seconds": budget.seconds, "steps": budget.steps}
        connection.send_bytes(json.dumps(task).encode())

    def results(self) -> list[tuple[int, Place]]:
        """What has come in; waits for one at least. Raises WorkerDied, LoadError."""
        found = []
        for ready in wait(list(self.busy)):
            assert isinstance(ready, Connection)
            depth = self.busy.pop(ready)
            try:
                text = ready.recv_bytes()
            except EOFError:
                raise WorkerDied("a worker process was killed") from None
            self.idle.append(ready)
            result = json.loads(text)
            if "refused" in result:
                raise LoadError(result["refused"])
            found.append((depth, Place("a worker", "", result)))
        return sorted(found, key=lambda one: one[0])


def _work(connection: Connection, exploring: Exploring, strategy: Reduced) -> None:
    """A worker: one task after another until the pipe is closed."""
    with held_interrupts() as interrupts:
        while True:
            try:
                task = json.loads(connection.recv_bytes())
            except EOFError:
                return
            strategy.load(Place("a task", "", task["state"]))
            exploring.begin_anew(Budget(task["runs"], task["seconds"], task["steps"]))
            learned = 0
            try:
                while not interrupts.asked and not learned and exploring.spent() is None and strategy.begin():
                    learned = int(exploring.one_run() is Next.START_AGAIN)
            except LoadError as error:
                connection.send_bytes(json.dumps({"refused": str(error)}).encode())
                return
            result = {"state": exploring.state(), "learned": learned, "interrupted": int(interrupts.asked)}
            connection.send_bytes(json.dumps(result).encode())
