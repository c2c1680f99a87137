"""What is to be tried besides: at each step that races with a later one, who could have come first.

Of the later step may be known all that came before it (it is on the path), or only what it touched (it lies
behind a state that the path has come to, and was made on another way there). Of the first, one process that
can begin what leads to the later step without the earlier is enough (source sets); of the second, one that
can begin what the path itself has of that, or else all that may.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

from hvolab.explore.footprint.conflict import Footprint
from hvolab.explore.reduce.happens_before import HappensBefore, Steps
from hvolab.explore.reduce.node import Node
from hvolab.explore.reduce.waiting import InTheWay, come_first, may_never_come
from hvolab.explore.states.visits import Visit
from hvolab.judge.sight.resource import Resource, Touched


class Alternatives:
    """Of one path: `nodes` and `history` grow and shrink with it."""

    def __init__(self, nodes: Sequence[Node], history: HappensBefore) -> None:
        self._nodes = nodes
        self._history = history

    def of_step(
        self, races: Sequence[int], process: int, before: Steps, waited_for: Mapping[Touched, int | None]
    ) -> None:
        """A step of that process races with these. `before`: the steps that must come before it."""
        for race in races:
            self._try_one_of(race, self._history.firsts(race, process, before), process)
        self._try_at_once(races, process, waited_for)

    def of_blocked(
        self, process: int, footprint: Footprint, waited_for: Mapping[Touched, int | None]
    ) -> None:
        """A step that never came: who made it wait may have come after it instead."""
        before = self._history.before_blocked(process, footprint)
        races = self._history.would_race(process, footprint, waited_for)
        self.of_step(races, process, before, waited_for)

    def of_behind(self, visit: Visit, waiting: InTheWay) -> None:
        """The path has come to a state that was visited: what lies behind races with this way there."""
        steps = visit.all()
        whose = {made.process for made in steps}
        first = come_first(waiting, steps)
        for made in steps:
            waited_for = dict(made.waited_for)
            after = frozenset[int]() if may_never_come(made) else first.get(made.process, frozenset())
            races = self._history.would_race_behind(made.process, made.footprint, waited_for, after)
            for race in races:
                self._try_some_of(race, made.process, whose)
            self._try_at_once(races, made.process, waited_for)

    def _try_some_of(self, race: int, process: int, whose: Set[int]) -> None:
        """Try what can begin that a step of this process is made without step `race`.

        What the path has after `race` without needing it begins that too, whatever comes behind. If there is
        nothing, any of the processes with steps behind may have to.
        """
        firsts = self._history.known_firsts(race)
        if firsts:
            self._try_one_of(race, firsts, process)
            return
        node = self._nodes[race]
        others = whose & node.enabled.keys() - {self._history.steps[race].process}
        node.to_try.update(others or node.enabled)

    def _try_one_of(self, race: int, firsts: Set[int], process: int) -> None:
        """One of these is to be tried there: that process, if it is one."""
        node = self._nodes[race]
        if node.covers(firsts):
            return
        possible = sorted(firsts & node.enabled.keys())
        if process in possible:
            node.to_try.add(process)
        elif possible:
            node.to_try.add(possible[0])
        else:
            node.to_try.update(node.enabled)

    def _try_at_once(
        self, races: Sequence[int], process: int, waited_for: Mapping[Touched, int | None]
    ) -> None:
        """What waits for several words at once must come before each step that ends one of them.

        To reverse one race after another would put the other step first every time.
        """
        if sum(not isinstance(part, Resource) for part in waited_for) < 2:
            return
        for race in races:
            if process in self._nodes[race].enabled:
                self._nodes[race].to_try.add(process)
