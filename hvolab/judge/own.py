"""A judge of one's own: a function of its state, an event and Sight, whose state is one cell.

The function returns its next state and what it has found. The state must be hashable, so that it cannot be
changed behind Sight's back; it is read at each event that the judge is told of, and written where it changes,
so a search orders what the judge can tell apart, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

from emu.events import Annotated, MachineEvent
from hvolab.judge.describe import place_of
from hvolab.judge.sight.sight import Sight
from hvolab.judge.told import Told
from hvolab.judge.verdict import Finding, Verdict
from kernel_model.core.events import KernelEvent


@dataclass(frozen=True, slots=True)
class Problem:
    """What a judge of one's own found: one sentence, the address it is about, and the steps behind it."""

    cause: str
    va: int = 0
    why: tuple[str, ...] = ()


Seen = MachineEvent | KernelEvent
Judgement = Callable[[Hashable, Seen, Sight], tuple[Hashable, Iterable[Problem]]]


@dataclass(frozen=True, slots=True)
class OwnJudge:
    """`on`: the kinds of events it is told of, the machine's or the kernel's. `start`: its first state."""

    name: str
    summary: str
    judgement: Judgement
    start: Hashable
    on: tuple[type, ...]


class BadJudgement(TypeError):
    """A judge of one's own answered what is no judgement. One line."""


class Judging:
    """One judge of one's own, in one run."""

    def __init__(self, judge: OwnJudge, sight: Sight, told: Told) -> None:
        self._judge = judge
        self._sight = sight
        self._told = told
        sight.numbers_are_told()
        self._state = sight.cells(f"own judge {judge.name}", judge.start)

    def observe(self, number: int, event: MachineEvent) -> None:
        """Tell it of the event, if it wants to know. Raises BadJudgement."""
        seen: object = event.payload if isinstance(event, Annotated) else event
        if not isinstance(seen, self._judge.on):
            return
        state = self._state.get()
        answer = self._judge.judgement(state, seen, self._sight)  # type: ignore[arg-type]
        following, problems = self._checked(answer)
        if following != state:
            self._state.set(following)
        for problem in problems:
            where = place_of(event.cpu, problem.va, self._sight.site(event.cpu))
            self._told.once(Finding(Verdict.OWN_JUDGE, (), where, number, problem.cause, problem.why))

    def _checked(self, answer: object) -> tuple[Hashable, tuple[Problem, ...]]:
        name = self._judge.name
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise BadJudgement(f"judge {name} answered {answer!r}: want (state, problems)")
        state, problems = answer
        try:
            hash(state)
        except TypeError:
            raise BadJudgement(f"the state of judge {name} can change under it: {state!r}") from None
        if not isinstance(problems, list | tuple):
            raise BadJudgement(f"judge {name} found {problems!r}: want a tuple of problems")
        for problem in problems:
            if not isinstance(problem, Problem):
                raise BadJudgement(f"judge {name} found {problem!r}: want problems, made with Problem(...)")
        return state, tuple(problems)
