"""For tests of one's own: `assert_safe` explores, and fails with all that there is to be told.

from hvolab.testing import assert_safe

def test_my_patch() -> None:
    assert_safe("flush-reader", load_file="mine.py:Patch")
"""

from __future__ import annotations

from dataclasses import dataclass
from io import StringIO

from rich.console import Console

from hvolab.catalog import CATALOGUE
from hvolab.explore.audience import Found, Silent
from hvolab.explore.budget import Budget
from hvolab.explore.explorer import Exploration, explore
from hvolab.explore.reduce.dpor import Reduced
from hvolab.explore.search.interface import Freedom, Strategy
from hvolab.judge.why import explain
from hvolab.load.applied import applied, on_lazy_cpus, scenarios_with, tried
from hvolab.load.user_file import NOTHING_LOADED, UserFile, load
from hvolab.show.explained import show_explained
from hvolab.show.report import Invocation, grouped, show_exploration, show_finding
from hvolab.subject.axes import Chosen
from hvolab.subject.fingerprint import fingerprint
from hvolab.subject.outcome import Run
from hvolab.subject.picker import Replay
from hvolab.subject.run import run
from hvolab.subject.scenario import Scenario, Setup
from hvolab.subject.schedule import parse

FREEDOMS = frozenset({Freedom.SCHEDULE, Freedom.IRQ, Freedom.TLB})
AS_IT_IS = Chosen()
A_MINUTE = Budget(seconds=60.0)
WIDTH = 110


class Unsafe(AssertionError):
    """Something was found, or not everything was explored. The message is the whole report."""


class _FirstViolation(Silent):
    def found(self, one: Found) -> str | None:
        return "the first violation" if one.finding.verdict.is_violation else None


@dataclass(frozen=True, slots=True)
class Subject:
    """What is run, and how a replay line says it."""

    invocation: Invocation
    setup: Setup


def assert_safe(
    scenario: str | Scenario,
    *,
    load_file: str = "",
    chosen: Chosen = AS_IT_IS,
    cpus: int | None = None,
    strategy: Strategy | None = None,
    budget: Budget = A_MINUTE,
    freedoms: frozenset[Freedom] = FREEDOMS,
) -> Exploration:
    """Explore a scenario, by name or as it is, until its end or its first violation.

    `load_file`: FILE.py or FILE.py:NAME, as for `--load`. `chosen`: what `--variant`, `--policy` and their
    like say. `strategy`: a new one for each call; the exhaustive one, if none. Raises Unsafe with report,
    explanation and replay line of a violation, and where the budget ended first; LoadError, UnknownName,
    CannotReduce.
    """
    __tracebackhide__ = True
    subject = subject_of(scenario, load_file=load_file, chosen=chosen, cpus=cpus)
    done = explore(subject.setup, strategy or Reduced(), freedoms, budget, _FirstViolation())
    if any(one.finding.verdict.is_violation for one in done.found) or not done.coverage.complete:
        raise Unsafe(_report(subject, done))
    return done


def assert_replayed(
    scenario: str | Scenario,
    schedule: str,
    *,
    load_file: str = "",
    chosen: Chosen = AS_IT_IS,
    cpus: int | None = None,
) -> Run:
    """Follow one schedule, as a replay line has it. Raises Unsafe for what it finds, ScheduleError."""
    __tracebackhide__ = True
    subject = subject_of(scenario, load_file=load_file, chosen=chosen, cpus=cpus)
    done = run(subject.setup, lambda _system: Replay(parse(schedule), fingerprint(subject.setup)))
    if done.wrong:
        raise Unsafe(_report_of_run(subject, done))
    return done


def subject_of(
    scenario: str | Scenario, *, load_file: str = "", chosen: Chosen = AS_IT_IS, cpus: int | None = None
) -> Subject:
    """What would be explored, on CPUs that may use all that the architecture allows unless others are chosen.

    Raises LoadError, UnknownName, and ValueError for fewer CPUs than it has actors on.
    """
    __tracebackhide__ = True
    used = load(load_file) if load_file else NOTHING_LOADED
    found = scenarios_with(CATALOGUE, used).find(scenario) if isinstance(scenario, str) else scenario
    if cpus is not None and cpus < found.cpus_min:
        raise ValueError(f"{found.name} has actors on {found.cpus_min} CPUs, not {cpus}")
    setup = found.build(max(2, found.cpus_min) if cpus is None else cpus)
    chosen = on_lazy_cpus(setup, chosen, used)
    setup = tried(applied(setup, chosen, used), used)
    return Subject(Invocation(found, setup.boot.cpus, _words(used, chosen)), setup)


def _words(used: UserFile, chosen: Chosen) -> tuple[str, ...]:
    options = {**chosen.options, "--load": used.option or None}
    return tuple(word for name, value in options.items() if value is not None for word in (name, value))


def _console(text: StringIO) -> Console:
    return Console(file=text, width=WIDTH, force_terminal=False, no_color=True)


def _report(subject: Subject, done: Exploration) -> str:
    """The exploration as `hvolab explore` shows it, each first finding explained as by `hvolab why`."""
    text = StringIO()
    console = _console(text)
    show_exploration(console, subject.invocation, done)
    for group in grouped(done.found):
        one = group[0]
        again = run(subject.setup, lambda _system, schedule=one.schedule: Replay(schedule))  # type: ignore[misc]
        for finding in again.findings:
            if (finding.verdict, finding.where) == (one.finding.verdict, one.finding.where):
                show_explained(console, explain(finding, again.sight))
    return "\n" + text.getvalue()


def _report_of_run(subject: Subject, done: Run) -> str:
    text = StringIO()
    console = _console(text)
    for finding in done.findings:
        show_finding(console, finding, subject.invocation.replay(done.schedule))
        show_explained(console, explain(finding, done.sight))
    return "\n" + text.getvalue()
