"""The judges of a run, together: each is told of every event, after Sight.

They only look, so a run with a monitor is the same run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from emu.choice import Choice
from emu.events import MachineEvent
from emu.paging.models import LiveChange
from hvolab.judge.judge import Judge
from hvolab.judge.own import Judging, OwnJudge
from hvolab.judge.question import Asks
from hvolab.judge.rows.answers import Answers
from hvolab.judge.rows.at_rest import AtRest
from hvolab.judge.rows.faults import Faults
from hvolab.judge.rows.kernel_checks import KernelChecks
from hvolab.judge.rows.live_changes import LiveChanges
from hvolab.judge.rows.locks import Locks
from hvolab.judge.rows.updates import Updates
from hvolab.judge.rows.uses import Uses
from hvolab.judge.sight.sight import Sight
from hvolab.judge.told import Told
from kernel_model.mm.image import HugePage

NO_QUESTIONS: Mapping[tuple[int, str], Asks] = MappingProxyType({})


class Monitor:
    """Listens to one machine through `observe`. Ask `told` after the run. What it remembers, Sight keeps."""

    def __init__(
        self,
        sight: Sight,
        huge_pages: Sequence[HugePage],
        questions: Mapping[tuple[int, str], Asks] = NO_QUESTIONS,
        own: Sequence[OwnJudge] = (),
    ) -> None:
        self.told = Told(sight.says)
        sight.remembers(self.told)
        self._checks = KernelChecks(sight, self.told)
        self._updates = Updates(sight, self.told)
        self._rest = AtRest(sight, self.told, huge_pages)
        self._judges: list[Judge] = [Uses(sight, self.told), self._updates]
        if sight.model.live_change is LiveChange.FORBIDDEN:
            self._judges.append(LiveChanges(sight, self.told))
        if questions:
            self._judges.append(Answers(sight, self.told, questions))
        self.locks = Locks(sight)
        self._judges += [Faults(sight, self.told), self._checks, self.locks, self._rest]
        self._judges += [Judging(judge, sight, self.told) for judge in own]

    def before(self, choice: Choice) -> None:
        """That step is about to be made."""
        self.locks.before(choice)

    def observe(self, number: int, event: MachineEvent) -> None:
        for judge in self._judges:
            judge.observe(number, event)

    def completed(self) -> None:
        """Every CPU ran to its end."""
        self._updates.finish()
        self._rest.finish()

    def deadlocked(self, waits: Mapping[int, str]) -> None:
        """Work was left and nothing could happen. What a killed context holds for good is no second fault."""
        if not self.locks.is_a_consequence(waits):
            self._checks.deadlocked(waits, self.locks.explain(waits))
        self._updates.finish()

    def cut_off(self) -> None:
        """The run was ended from outside: what is unfinished is not judged."""
