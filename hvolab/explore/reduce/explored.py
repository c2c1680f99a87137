"""What a reduced search knows beside page tables: its path, the steps on it, the states it has been in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate, zip_longest

from hvolab.explore.footprint.conflict import NOTHING, Footprint, conflict, conflicts
from hvolab.explore.reduce.happens_before import Happened, HappensBefore
from hvolab.explore.reduce.node import Node
from hvolab.explore.states.values import Values
from hvolab.explore.states.visits import Visits
from hvolab.explore.stretches.contention import Contention
from hvolab.explore.stretches.lives import AllLives, Chain, KnownStep
from hvolab.judge.sight.resource import Kind


@dataclass(frozen=True, slots=True)
class Blind:
    """What to leave out, each of which is unsound: for tests that show that it matters.

    Kinds of resources in footprints, and in what makes a step private; fields of VersionFacts, which tell
    versions apart; parts of states.
    """

    kinds: frozenset[Kind] = frozenset()
    contended: frozenset[Kind] = frozenset()
    facts: frozenset[str] = frozenset()
    states: frozenset[str] = frozenset()


@dataclass(slots=True)
class Explored:
    """What a search knows beside page tables: its path, the steps on it, the states it has been in."""

    visits: Visits
    values: Values
    contention: Contention
    lives: AllLives
    nodes: list[Node] = field(default_factory=list)
    history: HappensBefore = field(default_factory=HappensBefore)

    def cut(self, length: int) -> None:
        """Only the first so many nodes of the path count; the steps are those between them."""
        for node in self.nodes[length:]:
            if node.visit is not None:
                node.visit.on_path = False
        del self.nodes[length:]
        self.history.cut(length)

    def go_on_from(self, nodes: Iterable[Node]) -> None:
        """A path out of a checkpoint. What sleeps there was tried by another process, or at another time."""
        for node in nodes:
            for process, footprint in (node.sleep | node.tried).items():
                self.contention.note(process, footprint)
            self.nodes.append(node)

    def forget(self) -> None:
        """All of it: it was explored without knowing what there is to know."""
        self.forget_steps()
        self.forget_states()
        self.cut(0)

    def forget_steps(self) -> None:
        """What they touched was recorded without knowing which translations change."""
        self.lives.forget()

    def forget_states(self) -> None:
        """They were told apart, or explored, without knowing what there is to know."""
        self.visits.forget()
        self.values.forget()

    # -- leaps ---------------------------------------------------------------------------------------

    def open_leaps(self, process: int, footprint: Footprint) -> int:
        """Make states of the path of those before steps in leaps that such a step conflicts with.

        They were taken for private. Returns how many there are.
        """

        def is_disturbed(step: KnownStep) -> bool:
            return step.process != process and conflict(step.footprint, footprint)

        over = frozenset().union(*(conflicts(leap, footprint) for leap in self._leaps_of_others(process)))
        if not over:
            return 0
        self.contention.conflicted(over)
        pieces = [_pieces(node, happened, is_disturbed) for node, happened in self._path()]
        starts = list(accumulate(map(len, pieces), initial=0))
        path = [piece for some in pieces for piece in some]
        self.nodes[:] = [node for node, _ in path]
        self.history.rebuild([happened for _, happened in path if happened is not None])
        for start, (piece, *opened) in zip(starts, pieces, strict=False):
            first, _ = piece
            if first.visit is not None:
                first.visit.moved(starts)
            if first.leap is not None and opened:
                first.leap = first.leap.part(0, opened[0][0].at - first.at - 1)
            for depth, (node, _) in enumerate(opened, start + 1):
                self._visit_between(node, depth)
        return len(path) - len(pieces)

    def end_leap(self, made: int) -> None:
        """Of the leap that is under way so many steps are made."""
        node = self.nodes[-1]
        assert node.leap is not None
        node.leap = node.leap.part(0, made)

    def leave_leap(self, made: int) -> Node:
        """The step after so many of the leap under way was none of it. Returns the state before it."""
        node, leap = self.nodes[-1], self.nodes[-1].leap
        assert leap is not None
        _, (within, _) = _pieces(node, self.history.steps[-1], lambda step: step is leap.steps[made])
        within.leap, within.footprint = None, NOTHING
        self.end_leap(made)
        self.nodes.append(within)
        self._visit_between(within, len(self.nodes) - 1)
        return within

    def met(self, process: int, chain: Chain, asleep: Iterable[Footprint]) -> Footprint:
        """What of these private steps conflicts after all with steps of others: on the path, or asleep."""
        doubtful = Footprint(*(some & chain.doubts for some in chain.touched))
        others = self.history.touching(process, chain.doubts)
        over = frozenset().union(
            *(conflicts(doubtful, other) for other in (others, *self._leaps_of_others(process), *asleep))
        )
        return Footprint(*(some & over for some in doubtful))

    def _leaps_of_others(self, process: int) -> list[Footprint]:
        nodes = (node for node in self.nodes if node.current != process)
        return [node.leap.touched for node in nodes if node.leap is not None]

    def _visit_between(self, node: Node, depth: int) -> None:
        """A state within a leap is on the way from the state before it to the one behind it."""
        above = self.nodes[depth - 1].visit
        if above is None:
            return
        node.visit = self.visits.begin(None, node.sleep, depth)
        above.behind[node.visit] = None
        if depth + 1 < len(self.nodes):
            below = self.nodes[depth + 1].visit
            if below is not None:
                node.visit.behind[below] = None

    def unfolded(self) -> list[Node]:
        """The path, with a state before every step of it. Those within leaps are copies."""
        return [
            one for node, happened in self._path() for one, _ in _pieces(node, happened, lambda _step: True)
        ]

    def _path(self) -> Iterator[tuple[Node, Happened | None]]:
        """Each state with the step made there, None where it has not been made."""
        return zip_longest(self.nodes, self.history.steps[: len(self.nodes)])


def _pieces(
    node: Node, happened: Happened | None, is_opened: Callable[[KnownStep], bool]
) -> list[tuple[Node, Happened | None]]:
    """A state, and those before the steps of its leap that are to have one; each with the step made there."""
    opened = [] if node.leap is None else [at for at, step in enumerate(node.leap.steps) if is_opened(step)]
    if node.leap is None or happened is None or not opened:
        return [(node, happened)]
    leap, awake = node.leap, happened.footprint
    sleep = {
        process: asleep for process, asleep in node.asleep_beside().items() if not conflict(asleep, awake)
    }
    found: list[tuple[Node, Happened | None]] = [(node, happened)]
    for at, end in zip(opened, [*opened[1:], len(leap.steps)], strict=True):
        step = leap.steps[at]
        one = Node(dict(leap.enabled), sleep, step.process, {step.process}, footprint=step.footprint)
        one.at, one.leap = node.at + 1 + at, leap.part(at + 1, end)
        found.append((one, Happened(step.process, frozenset(leap.enabled), 0, step.footprint, step.held)))
    return found
