"""Which steps of a run had to come before which, and which pairs could have come the other way round.

Steps are numbered from 0; a set of steps is an integer with a bit for each. A *race* is a pair of steps of
two processes that conflict with no other step between them in the order (Flanagan and Godefroid, POPL 2005;
Abdulla et al., POPL 2014, whose source sets the search uses).

A step that may have waited is special: what it waited for comes before it, yet is no race, while the step
that made it wait is one (the race of an acquire is with the other acquire, never with the release; that of an
interrupt with CLI, never with STI). So for each thing waited for it is asked whether it was so before a step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from hvolab.explore.footprint.conflict import Footprint
from hvolab.judge.sight.resource import Kind, Resource, Touched

Steps: TypeAlias = int  # a set of step numbers


class _Touch(NamedTuple):
    """A step that touched a resource, and where in the list of these the last one of another process is."""

    step: int
    process: int
    other: int  # -1: there is none


class _Touches:
    """The steps that read, wrote and marked one resource, in their order."""

    __slots__ = ("marks", "reads", "writes")

    def __init__(self) -> None:
        self.reads: list[_Touch] = []
        self.writes: list[_Touch] = []
        self.marks: list[_Touch] = []


@dataclass(frozen=True, slots=True)
class Happened:
    """A step: its process, the steps before it and itself."""

    process: int
    enabled: frozenset[int]  # the processes that could step just before it
    before: Steps
    footprint: Footprint
    held: Mapping[Touched, int]  # what it changed, where others may wait for that, held this before


@dataclass(slots=True)
class HappensBefore:
    """The steps of one run, so far."""

    steps: list[Happened] = field(default_factory=list)
    _touches: dict[Touched, _Touches] = field(default_factory=dict)
    _last_of: dict[int, list[int]] = field(default_factory=dict)

    def cut(self, length: int) -> None:
        """Forget all but the first `length` steps."""
        while len(self.steps) > length:
            gone = self.steps.pop()
            self._last_of[gone.process].pop()
            for resource in gone.footprint.reads:
                self._touches[resource].reads.pop()
            for resource in gone.footprint.writes:
                self._touches[resource].writes.pop()
            for resource in gone.footprint.marks:
                self._touches[resource].marks.pop()

    def add(
        self,
        process: int,
        footprint: Footprint,
        enabled: frozenset[int],
        held: Mapping[Touched, int],
        waited_for: Mapping[Touched, int | None],
    ) -> list[int]:
        """The next step. Returns the steps it races with.

        `waited_for`: what it may have had to wait for, and with which value, where that is known.
        """
        own = self._own(process)
        candidates = self._conflicting(footprint)
        races = self._races(process, own, footprint, waited_for, candidates)
        self._append(process, enabled, own, candidates, footprint, held)
        return races

    def rebuild(self, steps: Sequence[Happened]) -> None:
        """These are the steps, in this order; what came before each is found again."""
        self.steps.clear()
        self._touches.clear()
        self._last_of.clear()
        for step in steps:
            own, candidates = self._own(step.process), self._conflicting(step.footprint)
            self._append(step.process, step.enabled, own, candidates, step.footprint, step.held)

    def _append(
        self,
        process: int,
        enabled: frozenset[int],
        own: Steps,
        candidates: Iterable[int],
        footprint: Footprint,
        held: Mapping[Touched, int],
    ) -> None:
        number = len(self.steps)
        before = own | (1 << number)
        for step in candidates:
            before |= self.steps[step].before
        for resource in footprint.reads:
            _touched(self._of(resource).reads, number, process)
        for resource in footprint.writes:
            _touched(self._of(resource).writes, number, process)
        for resource in footprint.marks:
            _touched(self._of(resource).marks, number, process)
        self._last_of.setdefault(process, []).append(number)
        self.steps.append(Happened(process, enabled, before, footprint, held))

    def would_race(
        self, process: int, footprint: Footprint, waited_for: Mapping[Touched, int | None]
    ) -> list[int]:
        """The races of a step that is blocked at the end of the run."""
        own, candidates = self._own(process), self._conflicting(footprint)
        return self._races(process, own, footprint, waited_for, candidates)

    def would_race_behind(
        self,
        process: int,
        footprint: Footprint,
        waited_for: Mapping[Touched, int | None],
        after: Set[int],
    ) -> list[int]:
        """The races of a step that is made some time after these, as far as these can say.

        What it waits for may be something that is asked for only after them. It comes `after` steps of these
        processes that come after them.
        """
        own, candidates = self._own(process), self._conflicting(footprint)
        direct = self._direct_races(process, own, footprint, waited_for, candidates)
        found = {step for step in direct if self.steps[step].process not in after}
        for part, value in waited_for.items():
            for step in self._changed(part, footprint):
                happened = self.steps[step]
                is_before = happened.process == process or own >> step & 1
                if not is_before and (value is None or happened.held.get(part, value) == value):
                    found.add(step)
        return sorted(found)

    def touching(self, process: int, resources: Iterable[Touched]) -> Footprint:
        """How the steps of other processes have touched these."""
        found = set[Touched](), set[Touched](), set[Touched]()
        for resource in resources:
            touches = self._touches.get(resource)
            if touches is not None:
                for kind, some in zip(found, (touches.reads, touches.writes, touches.marks), strict=True):
                    if some and (some[-1].process != process or some[-1].other >= 0):
                        kind.add(resource)
        return Footprint(*map(frozenset, found))

    def before_blocked(self, process: int, footprint: Footprint) -> Steps:
        """What comes before a step that is blocked at the end of the run."""
        before = self._own(process)
        for step in self._conflicting(footprint):
            before |= self.steps[step].before
        return before

    def firsts(self, race: int, process: int, before: Steps) -> set[int]:
        """The processes that can begin what leads, without step `race`, to the later step of a race.

        That is everything after `race` that does not need it, and then the later step itself, given by its
        process and what comes before it.
        """
        firsts, seen, kept = self._apart_from(race)
        if not before & kept and process not in seen:
            firsts.add(process)
        return firsts

    def known_firsts(self, race: int) -> set[int]:
        """The same of a later step that is still to come: what is made before it may begin it too.

        Those that begin what has been made are among them, whatever follows.
        """
        return self._apart_from(race)[0]

    def _apart_from(self, race: int) -> tuple[set[int], set[int], Steps]:
        """What came after a step without needing it: who can begin that, whose steps these are, and which."""
        kept: Steps = 0
        firsts: set[int] = set()
        seen: set[int] = set()
        for number in range(race + 1, len(self.steps)):
            step = self.steps[number]
            if step.before >> race & 1:
                continue
            if not step.before & kept and step.process not in seen:
                firsts.add(step.process)
            seen.add(step.process)
            kept |= 1 << number
        return firsts, seen, kept

    def _own(self, process: int) -> Steps:
        last = self._last_of.get(process)
        return self.steps[last[-1]].before if last else 0

    def _of(self, resource: Touched) -> _Touches:
        found = self._touches.get(resource)
        if found is None:
            found = self._touches[resource] = _Touches()
        return found

    def _conflicting(self, footprint: Footprint) -> set[int]:
        """The latest steps in conflict, of each process: others in conflict come before one of them."""
        found: set[int] = set()
        touched = self._touches.get
        for resource in footprint.reads:
            touches = touched(resource)
            if touches is not None and (touches.writes or touches.marks):
                _latest(found, touches.writes, touches.marks)
        for resource in footprint.writes:
            touches = touched(resource)
            if touches is not None:
                _latest(found, touches.writes, touches.marks)
                _latest(found, touches.writes, touches.reads)
        for resource in footprint.marks:
            touches = touched(resource)
            if touches is not None and (touches.writes or touches.reads):
                _latest(found, touches.writes, touches.reads)
        return found

    def _races(
        self,
        process: int,
        own: Steps,
        footprint: Footprint,
        waited_for: Mapping[Touched, int | None],
        candidates: set[int],
    ) -> list[int]:
        found = self._direct_races(process, own, footprint, waited_for, candidates)
        for part, value in waited_for.items():
            found |= self._made_it_wait(process, own, footprint, part, value, waited_for)
        return sorted(found)

    def _direct_races(
        self,
        process: int,
        own: Steps,
        footprint: Footprint,
        waited_for: Mapping[Touched, int | None],
        candidates: set[int],
    ) -> set[int]:
        """Those over what it does not wait for."""
        found: set[int] = set()
        direct = self._conflicting(_without(footprint, waited_for)) if waited_for else candidates
        for step in direct:
            happened = self.steps[step]
            if happened.process == process or own >> step & 1:
                continue
            if any(other > step and self.steps[other].before >> step & 1 for other in candidates):
                continue
            found.add(step)
        return found

    def _made_it_wait(
        self,
        process: int,
        own: Steps,
        footprint: Footprint,
        part: Touched,
        value: int | None,
        waited_for: Mapping[Touched, int | None],
    ) -> set[int]:
        """The steps that disturb what the step waits for, and before which it could have come."""
        last = self._last_of.get(process)
        since = last[-1] if last else -1
        found: set[int] = set()
        for step in self._changed(part, footprint):
            happened = self.steps[step]
            if happened.process == process or own >> step & 1:
                continue
            if value is None:
                if step > since and process not in happened.enabled:
                    continue  # what it waited for was still to come
            elif happened.held.get(part, value) != value or self._request_follows(step, waited_for):
                continue
            found.add(step)
        return found

    def _changed(self, part: Touched, footprint: Footprint) -> list[int]:
        """All steps in conflict with the footprint because of that resource."""
        touches = self._touches.get(part)
        if touches is None:
            return []
        found = [*touches.writes]
        if part in footprint.reads or part in footprint.writes:
            found += touches.marks
        if part in footprint.writes or part in footprint.marks:
            found += touches.reads
        return [touch.step for touch in found]

    def _request_follows(self, step: int, waited_for: Mapping[Touched, int | None]) -> bool:
        """Whether the step waits for an interrupt request, and all there are come after that step."""
        for part in waited_for:
            if isinstance(part, Resource) and part.kind is Kind.IPI and part in self._touches:
                return all(self.steps[sent.step].before >> step & 1 for sent in self._touches[part].writes)
        return False


def _without(footprint: Footprint, parts: Mapping[Touched, int | None]) -> Footprint:
    return Footprint(*(touched - parts.keys() for touched in footprint))


def _touched(touches: list[_Touch], step: int, process: int) -> None:
    """That step of that process is the next of these."""
    if not touches:
        other = -1
    elif touches[-1].process == process:
        other = touches[-1].other
    else:
        other = len(touches) - 1
    touches.append(_Touch(step, process, other))


def _latest(found: set[int], writes: list[_Touch], others: list[_Touch]) -> None:
    """Add the last write, and of the others since the last one of each process."""
    last = -1
    if writes:
        last = writes[-1].step
        found.add(last)
    at = len(others) - 1
    seen: set[int] = set()
    while at >= 0 and others[at].step > last:
        step, process, at = others[at]
        if process not in seen:
            seen.add(process)
            found.add(step)
