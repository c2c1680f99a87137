"""What is left of a reduced search, as tasks that can be done one beside the other.

Along the path of the last run every state may have answers and processes still to be tried. Each is a task:
the path down to that state, and the alternative there. What lies above a task's state belongs to the task;
races that reach below it come back with its result and may make further tasks. At one state one task is under
way at a time, since what has been tried there sleeps in the next.
"""

from __future__ import annotations

from hvolab.checked.json_value import Json
from hvolab.checked.place import Place
from hvolab.explore.reduce.dpor import Reduced
from hvolab.explore.reduce.node import Node


class Frontier:
    """Tasks are numbered by the depth of their state. `base` is the path the tasks share."""

    def __init__(self, search: Reduced) -> None:
        self._base = [node.save() for node in search.nodes]
        self._nodes = list(search.nodes)
        self._learned = search.save_learned()
        self._busy: set[int] = set()
        self._answers_left = set(range(len(self._nodes)))

    def take(self) -> tuple[int, Json] | None:
        """The next task: its depth, and the state of a search that does it. None: nothing to be done now."""
        for depth in range(len(self._nodes) - 1, -1, -1):
            if depth not in self._busy and self._advance(depth):
                self._busy.add(depth)
                return depth, self._state(depth)
        return None

    def idle(self) -> bool:
        """Whether no task is under way."""
        return not self._busy

    def give(self, depth: int, nodes: Place) -> None:
        """A task is done: the path down to its state, as the search left it."""
        self._busy.discard(depth)
        told = [Node.load(one) for one in nodes.items()]
        for node, other in zip(self._nodes, told[: depth + 1], strict=False):
            node.to_try |= other.to_try & set(node.enabled)
        node, done = self._nodes[depth], told[depth]
        node.footprint, node.answers = done.footprint, []

    def _advance(self, depth: int) -> bool:
        node = self._nodes[depth]
        if depth in self._answers_left:
            self._answers_left.discard(depth)
            if node.next_answer():
                return True
        return node.next_process()

    def _state(self, depth: int) -> Json:
        """The path to the state of that depth, with all that is tried or will be in its place."""
        path: list[Json] = []
        for number in range(depth):
            saved = self._base[number]
            assert isinstance(saved, dict)
            known = self._nodes[number].to_try | set(self._nodes[number].tried)
            path.append({**saved, "to_try": list[Json](sorted(known))})
        path.append(self._nodes[depth].save())
        return {"tables": self._learned, "nodes": path, "begun": 0, "floor": depth}
