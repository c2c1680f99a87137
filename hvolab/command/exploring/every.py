"""`hvolab explore --all --load FILE.py:NAME`: every scenario that meets a patch, beside the port without it.

A scenario meets it when its actors, each to its end, call one of the functions that the patch overrides, or
when the patch is no variant. The cheapest are explored first. What the unmodified port finds as well is told,
and counts for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from emu.events import MachineEvent, RoutineSite
from hvolab.catalog import SCENARIOS
from hvolab.command.exploring.plan import ExplorePlan, carry_out
from hvolab.command.exploring.telling import Quiet, Stops
from hvolab.command.options import Asked, cpu_count, scenario_called, shaped_on_lazy_cpus
from hvolab.command.status import INTERRUPTED, NOT_COMPLETE, WRONG
from hvolab.explore.audience import Found
from hvolab.explore.coverage import Coverage
from hvolab.explore.explorer import Exploration
from hvolab.explore.reduce.dpor import CannotReduce
from hvolab.judge.known import known
from hvolab.judge.verdict import Finding
from hvolab.load.user_file import NOTHING_LOADED, UserFile, functions_changed
from hvolab.show.report import Invocation, grouped
from hvolab.subject.outcome import Limits
from hvolab.subject.picker import InOrder
from hvolab.subject.run import collect, run
from hvolab.subject.scenario import Scenario, Setup
from kernel_model.flush.upstream import UPSTREAM
from kernel_model.variants.named import UPSTREAM_HVO

STEPS_TO_MEET = 50_000


@dataclass(frozen=True, slots=True)
class Compared:
    """One scenario, patched and not. Findings are `same`, `new` or `vanished` by verdict and place."""

    invocation: Invocation
    with_patch: Exploration
    without: Exploration
    new: tuple[Found, ...]
    same: tuple[Found, ...]
    vanished: tuple[Found, ...]

    @property
    def incomplete(self) -> Coverage:
        """What was covered on the side that did not come to its end."""
        sides = (self.with_patch.coverage, self.without.coverage)
        return next((side for side in sides if not side.complete), sides[0])

    @property
    def complete(self) -> bool:
        return self.with_patch.coverage.complete and self.without.coverage.complete


def explore_every(wanted: Asked, plan: ExplorePlan, only: str | None, junit: Path | None) -> int:
    """Explore them one after the other and print the table. Raises UsageError, LoadError, UnknownName."""
    if not wanted.loaded.digest:
        raise click.UsageError("--all goes with --load: it asks what your file changes")
    if junit is not None:
        _write_junit([], junit)  # what cannot be written is said before anything is explored
    console, compared = Console(), []
    met = _meeting(wanted, only)
    if not met:
        raise click.UsageError(f"no scenario calls what {wanted.loaded.option} changes, or has so few CPUs")
    console.print(f"[bold]asked[/bold]  {len(met)} scenarios meet {escape(wanted.loaded.option)}")
    names = {chosen.name for chosen in met}
    left_out = [name for name in _names(only) if name not in names]
    if left_out:
        console.print(f"[bold]note[/bold]  not asked, for they do not meet it: {', '.join(left_out)}")
    for chosen in met:
        one = _compare(chosen, wanted, plan)
        if one is None:
            break
        compared.append(one)
        for line in _lines(one):
            console.print(line, highlight=False, soft_wrap=True)
    console.print(_table(compared))
    if len(compared) < len(met):
        left = len(met) - len(compared)
        console.print(f"[bold]note[/bold]  interrupted: {left} of {len(met)} scenarios are left")
    unsure = [
        one.invocation.scenario.name for one in compared if one.new and not one.without.coverage.complete
    ]
    if unsure:
        console.print(
            f"[bold]note[/bold]  new in {', '.join(unsure)}: without the patch not all was explored either; "
            "more --seconds tell whether it is there too",
            highlight=False,
        )
    if junit is not None:
        _write_junit(compared, junit)
    if len(compared) < len(met):
        return INTERRUPTED
    if any(one.new or one.vanished for one in compared):
        return WRONG
    return 0 if all(one.complete for one in compared) else NOT_COMPLETE


def _meeting(wanted: Asked, only: str | None) -> list[Scenario]:
    """The scenarios to explore, the cheapest first: those that make the fewest steps by themselves."""
    changed = functions_changed(wanted.loaded)
    found: list[tuple[int, Scenario]] = []
    for chosen in _named(wanted.loaded, only):
        if wanted.cpus is not None and wanted.cpus < chosen.cpus_min:
            continue
        setup = chosen.build(cpu_count(chosen, wanted.cpus))
        steps, called = _alone(setup)
        if changed is None or changed & called or chosen in wanted.loaded.scenarios:
            found.append((steps, chosen))
    return [chosen for _, chosen in sorted(found, key=lambda one: one[0])]


def _named(loaded: UserFile, only: str | None) -> list[Scenario]:
    every = (*loaded.scenarios, *SCENARIOS)
    if only is None:
        return list(every)
    names = _names(only)
    for name in names:
        scenario_called(name, loaded)
    return [chosen for chosen in every if chosen.name in names]


def _names(only: str | None) -> list[str]:
    return [] if only is None else [name.strip() for name in only.split(",")]


def _alone(setup: Setup) -> tuple[int, frozenset[str]]:
    """(steps, functions called) of a run of the unmodified port, each CPU to its end."""
    events: list[tuple[int, MachineEvent]] = []
    done = run(setup, lambda _system: InOrder(), (collect(events),), Limits(STEPS_TO_MEET))
    sites = (getattr(event, "site", None) for _, event in events)
    called = {name for site in sites if isinstance(site, RoutineSite) for name in site.functions}
    return done.system.machine.steps, frozenset(called)


def _compare(chosen: Scenario, wanted: Asked, plan: ExplorePlan) -> Compared | None:
    """The scenario with the patch and without; None where an interrupt came."""
    count = cpu_count(chosen, wanted.cpus)
    patched, asked_for = shaped_on_lazy_cpus(chosen, count, _else_upstream(wanted))
    plain, _ = shaped_on_lazy_cpus(chosen, count, _else_upstream(replace(wanted, loaded=NOTHING_LOADED)))
    with_patch = _explored(patched, plan)
    if with_patch.coverage.interrupted:
        return None
    without = _explored(plain, plan)
    if without.coverage.interrupted:
        return None
    before = {_key(one.finding) for one in without.found}
    after = {_key(one.finding) for one in with_patch.found}
    wrong = [one for one in with_patch.found if one.finding.verdict.is_violation]
    gone = [one for one in without.found if one.finding.verdict.is_violation]
    return Compared(
        Invocation(chosen, count, asked_for.words()),
        with_patch,
        without,
        tuple(one for one in wrong if _key(one.finding) not in before),
        tuple(one for one in wrong if _key(one.finding) in before),
        # What an exploration has not come to may still be there.
        tuple(one for one in gone if _key(one.finding) not in after) if with_patch.coverage.complete else (),
    )


def _else_upstream(wanted: Asked) -> Asked:
    """A scenario may be about a bug of its own: what neither the options nor the file name is upstream's."""
    chosen = wanted.loaded.completed(wanted.chosen)
    variant = None if chosen.variant is not None else UPSTREAM_HVO.name
    policy = None if chosen.policy is not None else UPSTREAM.name
    return replace(
        wanted,
        chosen=replace(
            wanted.chosen,
            variant=wanted.chosen.variant or variant,
            policy=wanted.chosen.policy or policy,
        ),
    )


def _explored(setup: Setup, plan: ExplorePlan) -> Exploration:
    try:
        return carry_out(setup, plan, Quiet(Stops()))
    except CannotReduce as error:
        raise click.UsageError(f"{error}: use --strategy unreduced, or another") from None


def _key(finding: Finding) -> tuple[object, ...]:
    where = finding.where
    return (finding.verdict, where.cpu, where.va, where.code, where.instruction)


def _told(one: Compared) -> Iterator[tuple[str, str, str]]:
    """(new or vanished, what it is, the replay line): one for each guilty store or broken rule.

    What has vanished cannot be replayed with the patch, and has no line.
    """
    for label, found in (("new", one.new), ("vanished", one.vanished)):
        for group in grouped(found):
            finding, more = group[0].finding, f" (and {len(group) - 1} more)" if len(group) > 1 else ""
            what = f"{finding.verdict.value}, cpu{finding.where.cpu}: {finding.cause}{more}"
            replay = one.invocation.replay(group[0].schedule) if label == "new" else ""
            yield label, what, replay


def _lines(one: Compared) -> Iterator[str]:
    """What is to be told of a scenario when it is done."""
    for label, what, replay in _told(one):
        yield f"[bold red]{label}[/]  {one.invocation.scenario.name}: {escape(what)}"
        if replay:
            yield f"     [dim]{escape(replay)}[/dim]"


def _table(compared: list[Compared]) -> Table:
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    table.add_column("scenario", no_wrap=True)
    for column in ("explored", "new", "vanished", "also without it"):
        table.add_column(column)
    for one in compared:
        coverage = one.with_patch.coverage
        said = f"{'all' if one.complete else 'a part'}: {coverage.schedules}"
        table.add_row(
            one.invocation.scenario.name,
            said,
            _words(one, one.new),
            _words(one, one.vanished),
            _words(one, one.same),
        )
    return table


def _words(one: Compared, found: tuple[Found, ...]) -> str:
    names = []
    for each in found:
        recognised = known(one.invocation.scenario.name, each.finding)
        verdict = each.finding.verdict.value.removeprefix("violation: ")
        names.append(verdict if recognised is None else f"{verdict} ({recognised.name})")
    return ", ".join(dict.fromkeys(names)) or "-"


def _write_junit(compared: list[Compared], path: Path) -> None:
    """One test case a scenario. Raises BadParameter."""
    failures = sum(bool(one.new or one.vanished) for one in compared)
    suite = ElementTree.Element("testsuite", name="hvolab", tests=str(len(compared)), failures=str(failures))
    for one in compared:
        name = one.invocation.scenario.name
        seconds = one.with_patch.coverage.seconds + one.without.coverage.seconds
        case = ElementTree.SubElement(suite, "testcase", classname="hvolab", name=name, time=f"{seconds:.3f}")
        lines = [line for label, what, replay in _told(one) for line in (f"{label}: {what}", replay) if line]
        if lines:
            ElementTree.SubElement(case, "failure", message=lines[0]).text = "\n".join(lines)
        elif not one.complete:
            ElementTree.SubElement(case, "skipped", message=str(one.incomplete))
    try:
        ElementTree.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)
    except OSError as error:
        raise click.BadParameter(f"cannot write {path}: {error.strerror}", param_hint="--junit") from None
