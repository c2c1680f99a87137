"""Between a run and a strategy by points: offers the run's choices, honouring which freedoms are on."""

from __future__ import annotations

from abc import ABC, abstractmethod

from emu.choice import Choice, Question, TakeInterrupt
from hvolab.checked.json_value import Json
from hvolab.checked.place import Place
from hvolab.explore.search.interface import (
    AnswerPoint,
    Freedom,
    InMemory,
    Next,
    Point,
    SchedulePoint,
    freedom_of,
)
from hvolab.judge.sight.sight import Sight
from hvolab.subject.picker import Picker
from kernel_model.boot import System


class PointStrategy(ABC):
    """A strategy that needs to know no more than what can be chosen at each point."""

    @property
    def shared(self) -> int:
        """Each run is one from time zero."""
        return 0

    @property
    def remembered(self) -> InMemory:
        """No state is."""
        return InMemory()

    @abstractmethod
    def begin(self) -> bool:
        """Start another run. False when there is nothing left to explore."""

    @abstractmethod
    def choose(self, point: Point) -> int:
        """The number of the option to take. Points with one option are not asked about."""

    def stepped(self, choice: Choice) -> None:  # noqa: B027
        """This is the next step, whether or not there was anything to choose."""

    @abstractmethod
    def extent(self) -> str:
        """What a strategy that came to its end has covered, in words."""

    @abstractmethod
    def save(self) -> Json:
        """Where it is, between two runs."""

    @abstractmethod
    def load(self, place: Place) -> None:
        """Go on from there."""

    def picker(self, system: System, sight: Sight, freedoms: frozenset[Freedom]) -> Picker:
        del system, sight
        return self.guide(freedoms)

    def guide(self, freedoms: frozenset[Freedom]) -> Guide:
        """The picker of the run just begun, which needs to know nothing of its machine."""
        return Guide(self, freedoms)

    def end(self, system: System) -> Next:
        """Nothing to learn from the machine."""
        del system
        return Next.GO_ON


class Guide:
    """The picker of one run."""

    def __init__(self, strategy: PointStrategy, freedoms: frozenset[Freedom]) -> None:
        self._strategy = strategy
        self._freedoms = freedoms
        self._last: Choice | None = None

    def pick(self, enabled: list[Choice]) -> Choice:
        self._last = self._pick(enabled)
        self._strategy.stepped(self._last)
        return self._last

    def answer(self, question: Question) -> int:
        if freedom_of(question) not in self._freedoms or question.options == 1:
            return question.default
        # The default is the last option of the point and is tried last: the unusual first.
        others = [n for n in range(question.options) if n != question.default]
        return [*others, question.default][self._strategy.choose(AnswerPoint(question.options))]

    def finish(self) -> None:
        """Any end is fine."""

    def _pick(self, enabled: list[Choice]) -> Choice:
        if Freedom.IRQ not in self._freedoms:
            for choice in enabled:
                if isinstance(choice, TakeInterrupt):
                    return choice
        if Freedom.SCHEDULE not in self._freedoms:
            return next((choice for choice in enabled if choice == self._last), enabled[0])
        if len(enabled) == 1:
            return enabled[0]
        running = enabled.index(self._last) if self._last in enabled else None
        return enabled[self._strategy.choose(SchedulePoint(tuple(enabled), running))]
