"""Several strategies in turn, a run each: where one is slow to find something, another may be quick."""

from __future__ import annotations

from collections.abc import Sequence

from hvolab.checked.json_value import Json
from hvolab.checked.place import Place
from hvolab.explore.search.interface import Freedom, InMemory, Next, Strategy
from hvolab.judge.sight.sight import Sight
from hvolab.subject.picker import Picker
from kernel_model.boot import System


class Portfolio:
    """Ends when the first member, which covers everything or a bound, ends."""

    def __init__(self, members: Sequence[Strategy]) -> None:
        if not members:
            raise ValueError("a portfolio of no strategies")
        self._members = tuple(members)
        self._ended = [False] * len(self._members)
        self._turn = -1

    def begin(self) -> bool:
        while not self._ended[0]:
            self._turn = (self._turn + 1) % len(self._members)
            if not self._ended[self._turn]:
                if self._members[self._turn].begin():
                    return True
                self._ended[self._turn] = True
        return False

    @property
    def shared(self) -> int:
        """The last run was another member's: each is one from time zero."""
        return 0

    @property
    def remembered(self) -> InMemory:
        found = [member.remembered for member in self._members]
        return InMemory(sum(one.states for one in found), any(one.full for one in found))

    def picker(self, system: System, sight: Sight, freedoms: frozenset[Freedom]) -> Picker:
        return self._members[self._turn].picker(system, sight, freedoms)

    def end(self, system: System) -> Next:
        # A member that starts again does not undo what others have covered.
        self._members[self._turn].end(system)
        return Next.GO_ON

    def extent(self) -> str:
        return self._members[0].extent()

    def save(self) -> Json:
        return {
            "turn": self._turn,
            "ended": [int(ended) for ended in self._ended],
            "members": [member.save() for member in self._members],
        }

    def load(self, place: Place) -> None:
        states = place.field("members").items()
        ended = place.field("ended").items()
        if len(states) != len(self._members) or len(ended) != len(self._members):
            raise place.wanted(f"{len(self._members)} members")
        self._turn = place.field("turn").integer(-1, len(self._members) - 1)
        self._ended = [bool(one.integer(0, 1)) for one in ended]
        for member, state in zip(self._members, states, strict=True):
            member.load(state)
