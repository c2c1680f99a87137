"""A cell of a matrix: a flush policy on a scenario on CPUs of a model, and what exploring it came to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from hvolab.checked.json_value import Json
from hvolab.checked.place import MAX_COUNT, Place
from hvolab.judge.verdict import Verdict
from hvolab.subject.costs import NO_COSTS, Costs

SCHEMA = 1
NOTHING_FOUND = "nothing found"
NOT_COMPLETE = "not complete"
NOT_APPLICABLE = "not applicable"
FAILED = "error"


@dataclass(frozen=True, slots=True)
class Cell:
    """By name, on so many CPUs."""

    policy: str
    scenario: str
    cpu_model: str
    cpus: int


@dataclass(frozen=True, slots=True)
class CellCoverage:
    """How much of it was explored. `stopped_by`: what ended it before its end, "" if nothing did."""

    text: str
    stopped_by: str
    schedules: int
    states: int


NO_COVERAGE = CellCoverage("", "", 0, 0)


@dataclass(frozen=True, slots=True)
class CellDone:
    """`made_from` says what was explored and how: a result counts for that alone.

    `verdicts`: of all that was found, each once, the first in the order of Verdict first. `costs` are those
    of one run in which each CPU goes to its end. `replay`: the command that shows the first verdict.
    `reason`: why it was not explored; `error`: what the policy's file did wrong, in a line.
    """

    cell: Cell
    made_from: str
    verdicts: tuple[Verdict, ...] = ()
    coverage: CellCoverage = NO_COVERAGE
    costs: Costs = NO_COSTS
    replay: str = ""
    reason: str = ""
    error: str = ""

    @property
    def failed(self) -> bool:
        """Whether exploring it came to an error, and to no result."""
        return self.error != ""

    @property
    def verdict(self) -> str:
        """In one: the worst that was found, or why that is nothing."""
        if self.failed:
            return FAILED
        if self.reason:
            return NOT_APPLICABLE
        if self.verdicts:
            return self.verdicts[0].value
        return NOT_COMPLETE if self.coverage.stopped_by else NOTHING_FOUND

    def save(self) -> dict[str, Json]:
        """As docs/json.md has it."""
        return {
            **asdict(self.cell),
            "made_from": self.made_from,
            "verdict": self.verdict,
            "verdicts": [verdict.value for verdict in self.verdicts],
            "coverage": asdict(self.coverage),
            "costs": asdict(self.costs),
            "replay": self.replay,
            "reason": self.reason,
            "error": self.error,
        }

    @classmethod
    def load(cls, place: Place) -> CellDone:
        """One that was explored. Raises InputError."""
        for name in ("reason", "error"):
            if place.field(name).text():
                raise place.field(name).error("what was not explored is not kept")
        cell = Cell(
            place.field("policy").text(),
            place.field("scenario").text(),
            place.field("cpu_model").text(),
            place.field("cpus").integer(1, MAX_COUNT),
        )
        covered, costs = place.field("coverage"), place.field("costs")
        return cls(
            cell,
            place.field("made_from").text(),
            tuple(_verdict(one) for one in place.field("verdicts").items()),
            CellCoverage(
                covered.field("text").text(),
                covered.field("stopped_by").text(),
                covered.field("schedules").count(),
                covered.field("states").count(),
            ),
            Costs(**{name: costs.field(name).count() for name in asdict(NO_COSTS)}),
            place.field("replay").text(),
        )


def _verdict(place: Place) -> Verdict:
    known = {verdict.value: verdict for verdict in Verdict if is_wrong(verdict)}
    if place.text() not in known:
        raise place.wanted("a violation")
    return known[place.text()]


def is_wrong(verdict: Verdict) -> bool:
    """Whether a cell in which that is found is not safe, or the emulation is not."""
    return verdict.is_violation or verdict is Verdict.MODEL_ERROR


def worst_first(verdicts: Iterable[Verdict]) -> tuple[Verdict, ...]:
    """Those that are wrong, each once, in the order in which they are tried."""
    found = frozenset(filter(is_wrong, verdicts))
    return tuple(verdict for verdict in Verdict if verdict in found)
