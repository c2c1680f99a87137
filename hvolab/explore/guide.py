"""Between a run and a search: offers the run's choices as points, honouring which freedoms are on."""

from __future__ import annotations

from emu.choice import Choice, Question, TakeInterrupt, VersionQuestion
from hvolab.explore.search import AnswerPoint, Freedom, SchedulePoint, Search


class Guide:
    """The strategy of one run."""

    def __init__(self, search: Search, freedoms: frozenset[Freedom]) -> None:
        self._search = search
        self._freedoms = freedoms
        self._last: Choice | None = None

    def pick(self, enabled: list[Choice]) -> Choice:
        self._last = self._pick(enabled)
        return self._last

    def answer(self, question: Question) -> int:
        freedom = Freedom.TLB if isinstance(question, VersionQuestion) else Freedom.ALLOC
        if freedom not in self._freedoms or question.options == 1:
            return question.default
        # The default is the last option of the point and is tried last: the unusual first.
        others = [n for n in range(question.options) if n != question.default]
        return [*others, question.default][self._search.choose(AnswerPoint(question.options))]

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
        return enabled[self._search.choose(SchedulePoint(tuple(enabled), running))]
