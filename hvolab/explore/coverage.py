"""What an exploration has covered, counted honestly."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

from emu.contents import Contents
from hvolab.checked.json_value import Json
from hvolab.checked.place import Place
from hvolab.explore.search.interface import Freedom, InMemory
from hvolab.subject.outcome import Deadlocked, OutOfSteps, OutOfTime, Run
from hvolab.subject.scenario import Setup

INTERRUPTED = "an interrupt"


@dataclass(frozen=True, slots=True)
class Coverage:
    """What an exploration has covered. `stopped_by` is None when the search came to its end.

    `schedules` ran to their end or were cut off (`cut_off`); `redundant` ones were given up because others
    show the same; `seen_before` ones ended at a state `remembered`, from which all had been explored.
    `steps` are those of all of these runs; `saved` of them were gone back over and not made again. `learning`
    runs only taught the search which translations change. `distinct_states`: different contents of memory at
    the end of a run. `actors`: the CPUs that run something; the others only hold what they may have cached.
    `cut_at`: how and where the first run that was cut off ended. `no_progress`: who loops for ever, and
    where, in the first loop that everybody shares who could step in it; empty where there is none.
    """

    extent: str
    freedoms: frozenset[Freedom]
    cpus: int
    actors: frozenset[int]
    schedules: int
    seen_before: int
    remembered: InMemory
    steps: int
    saved: int
    longest: int
    cut_off: int
    cut_at: str
    no_progress: str
    deadlocks: int
    redundant: int
    learning: int
    distinct_schedules: int
    distinct_states: int
    seconds: float
    stopped_by: str | None

    @property
    def interrupted(self) -> bool:
        return self.stopped_by == INTERRUPTED

    @property
    def complete(self) -> bool:
        """Whether everything within the extent has been covered, and every run ends."""
        return self.stopped_by is None and not self.cut_off and not self.no_progress

    def __str__(self) -> str:
        over = ", ".join(sorted(freedom.value for freedom in self.freedoms)) or "nothing"
        where = f"at {self.cpus} CPUs"
        if len(self.actors) < self.cpus:
            where += f" (actors on {', '.join(map(str, sorted(self.actors)))})"
        line = f"{self.extent} over {{{over}}} {where}: {self.schedules} schedules"
        if self.stopped_by is not None or self.cut_off:
            why = self.stopped_by or "the step budget of a run"
            line = f"not complete ({self.extent}), stopped by {why}; over {{{over}}} {where}: "
            line += f"{self.schedules} schedules"
            if self.learning and not self.schedules:
                line += f", {self.learning} to learn what changes"
        if self.seen_before:
            line += f", {self.seen_before} that ended at one of {self.remembered.states} states seen before"
        if self.redundant:
            line += f" and {self.redundant} given up as redundant"
        if self.cut_off:
            line += f", {self.cut_off} of them {self.cut_at}"
        elif self.cut_at and not self.complete:
            line += f", a run that taught the search something was {self.cut_at}"
        if self.no_progress:
            line += f", a loop without end of {self.no_progress}"
        return line + f", {self.distinct_states} final states, at most {self.longest} picks"

    @property
    def work(self) -> str:
        """What it took."""
        line = f"{self.steps - self.saved} steps made; {self.saved} were gone back over, and not made again"
        if self.remembered.full:
            line += f"; memory was full, with {self.remembered.states} states in it (--memory)"
        return line


class Tally:
    """Counts runs as they end."""

    def __init__(self) -> None:
        self.runs = 0
        self.remembered = InMemory()
        self.no_progress = ""
        self._seen_before = self._saved = 0
        self._steps = self._longest = self._cut_off = self._deadlocks = self._redundant = self._learning = 0
        self._cut_at = ""
        self._schedules: set[bytes] = set()
        self._states: set[bytes] = set()

    @property
    def made(self) -> int:
        """The runs that came to their end, or to a state from which all had been explored."""
        return self.runs + self._seen_before

    def completed(self, done: Run) -> None:
        """A run came to its end. The machine is still as it was then."""
        self.runs += 1
        self._steps += done.system.machine.steps
        self._longest = max(self._longest, len(done.schedule.picks))
        if isinstance(done.outcome, OutOfSteps | OutOfTime):
            self._cut_off += 1
            self._cut_at = self._cut_at or str(done.outcome)
        self._deadlocks += isinstance(done.outcome, Deadlocked)
        self._schedules.add(blake2b(str(done.schedule).encode(), digest_size=8).digest())
        self._states.add(_final_state(done))

    def given_up(self, steps: int) -> None:
        """A run was given up as redundant."""
        self._redundant += 1
        self._steps += steps

    def seen_before(self, steps: int) -> None:
        """A run came to a state from which all had been explored."""
        self._seen_before += 1
        self._steps += steps

    def gone_back(self, steps: int) -> None:
        """So many steps of the run to come are those of the last one."""
        self._saved += steps

    def learned(self) -> None:
        """The runs so far were made without knowing what they should have known."""
        self._learning += self.runs + self._redundant + self._seen_before
        self.remembered, self.no_progress = InMemory(), ""
        self.runs = self._redundant = self._seen_before = self._cut_off = self._deadlocks = self._longest = 0
        self._schedules.clear()
        self._states.clear()

    def save(self) -> Json:
        return {
            "runs": self.runs,
            "seen_before": self._seen_before,
            "states": self.remembered.states,
            "full": int(self.remembered.full),
            "steps": self._steps,
            "saved": self._saved,
            "longest": self._longest,
            "cut_off": self._cut_off,
            "cut_at": self._cut_at,
            "no_progress": self.no_progress,
            "deadlocks": self._deadlocks,
            "redundant": self._redundant,
            "learning": self._learning,
            "schedules": [digest.hex() for digest in sorted(self._schedules)],
            "final_states": [digest.hex() for digest in sorted(self._states)],
        }

    def load(self, place: Place) -> None:
        self.runs = place.field("runs").count()
        self._seen_before = place.field("seen_before").count()
        self.remembered = InMemory(place.field("states").count(), bool(place.field("full").integer(0, 1)))
        self._steps = place.field("steps").count()
        self._saved = place.field("saved").count()
        self._longest = place.field("longest").count()
        self._cut_off = place.field("cut_off").count()
        self._cut_at = place.field("cut_at").text()
        self.no_progress = place.field("no_progress").text()
        self._deadlocks = place.field("deadlocks").count()
        self._redundant = place.field("redundant").count()
        self._learning = place.field("learning").count()
        self._schedules = _digests(place.field("schedules"))
        self._states = _digests(place.field("final_states"))

    def add(self, place: Place) -> None:
        """What another process has counted, besides."""
        other = Tally()
        other.load(place)
        self.runs += other.runs
        self._seen_before += other._seen_before
        states = self.remembered.states + other.remembered.states
        self.remembered = InMemory(states, self.remembered.full or other.remembered.full)
        self._steps += other._steps
        self._saved += other._saved
        self._longest = max(self._longest, other._longest)
        self._cut_off += other._cut_off
        self._cut_at = self._cut_at or other._cut_at
        self.no_progress = self.no_progress or other.no_progress
        self._deadlocks += other._deadlocks
        self._redundant += other._redundant
        self._schedules |= other._schedules
        self._states |= other._states

    def coverage(
        self, extent: str, freedoms: frozenset[Freedom], setup: Setup, seconds: float, stopped_by: str | None
    ) -> Coverage:
        return Coverage(
            extent,
            freedoms,
            setup.boot.cpus,
            frozenset(actor.cpu for actor in setup.actors),
            self.runs,
            self._seen_before,
            self.remembered,
            self._steps,
            self._saved,
            self._longest,
            self._cut_off,
            self._cut_at,
            self.no_progress,
            self._deadlocks,
            self._redundant,
            self._learning,
            len(self._schedules),
            len(self._states),
            seconds,
            stopped_by,
        )


def _digests(place: Place) -> set[bytes]:
    found = set()
    for one in place.items():
        try:
            found.add(bytes.fromhex(one.text()))
        except ValueError:
            raise one.wanted("a digest in hexadecimal") from None
    return found


def _final_state(done: Run) -> bytes:
    """A digest of memory as it is at the end. What was stored and put back is as if it had not been."""
    return Contents(done.system.machine.memory).number().to_bytes(16, "little")
