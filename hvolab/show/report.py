"""Runs and findings on the screen, with rich."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum

from rich.console import Console, Group
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from hvolab.explore.audience import Found
from hvolab.explore.explorer import Exploration
from hvolab.explore.retell.shrink import switches
from hvolab.judge.known import known
from hvolab.judge.verdict import Finding, Use, Verdict
from hvolab.show.pages_view import Phase, meaning
from hvolab.show.timeline import Line, Row, Tone, folded
from hvolab.subject.costs import CostTable
from hvolab.subject.outcome import Completed, OutOfSteps, OutOfTime, Run
from hvolab.subject.scenario import Scenario
from hvolab.subject.schedule import Schedule

MOST_USES = 4


class Order(Enum):
    """Whose order a run was in."""

    OWN = "the scenario's script"
    OTHER = "a schedule, a seed, or another system"


@dataclass(frozen=True, slots=True)
class Invocation:
    """What was run: the scenario, on how many CPUs, and further options that shaped the system.

    `cost_tables`: in whose cycles its costs are told as well.
    """

    scenario: Scenario
    cpus: int
    options: tuple[str, ...] = ()
    cost_tables: tuple[CostTable, ...] = ()

    def replay(self, schedule: Schedule) -> str:
        """The one command that repeats a run of this, quoted for a shell."""
        words = ["hvolab", "run", self.scenario.name, "--cpus", str(self.cpus), *self.options]
        return shlex.join([*words, "--schedule", str(schedule)])


def show_question(console: Console, scenario: Scenario, cpus: int) -> None:
    console.rule(f"[bold]{scenario.name}[/bold], {cpus} CPU{'s' if cpus > 1 else ''}")
    console.print(f"[bold]asked[/bold]  {escape(scenario.question)}")


def show_timeline(console: Console, lines: Sequence[Line], actors: Collection[int]) -> None:
    """One column per CPU that runs something, one for all others together, time downwards."""
    rows = folded(lines, actors)
    columns = [
        *sorted({row.cpu for row in rows if row.cpu is not None}),
        *([None] if _looks_on(rows) else []),
    ]
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    table.add_column("event", justify="right", style="dim")
    for cpu in columns:
        table.add_column("the others" if cpu is None else f"cpu{cpu}", overflow="fold")
    for row in rows:
        text = Text(row.text, style="bold red" if row.tone is Tone.ALARM else "")
        table.add_row(str(row.number), *(text if cpu == row.cpu else "" for cpu in columns))
    console.print(table)


def _looks_on(rows: Sequence[Row]) -> bool:
    return any(row.cpu is None for row in rows)


def show_phases(console: Console, phases: list[Phase]) -> None:
    """Per phase: each vmemmap page, its mapping, and what each CPU read there."""
    for phase in phases:
        counters = ", ".join(f"{name} {value}" for name, value in phase.counters)
        table = Table(
            title=f"{phase.name}: {phase.free_frames} frames free, {counters}",
            title_justify="left",
            title_style="bold",
            box=None,
            padding=(0, 1),
            pad_edge=False,
        )
        table.add_column("vmemmap page", justify="right")
        table.add_column("size")
        table.add_column("pfn")
        table.add_column("flags")
        for cpu, _ in phase.rows[0].read:
            table.add_column(f"cpu{cpu} sees there")
        for row in phase.rows:
            read = [meaning(words, phase.folio) for _, words in row.read]
            name = f"{row.index} (head)" if row.index == 0 else str(row.index)
            table.add_row(name, row.size, f"{row.pfn:#x}", row.flags, *read)
        console.print(table)


def show_uses(console: Console, uses: tuple[Use, ...]) -> None:
    """The uses that were stale and allowed: the first few, and how many more there were."""
    allowed = [use for use in uses if not use.verdict.is_violation]
    for use in allowed[:MOST_USES]:
        show_use(console, use)
    if len(allowed) > MOST_USES:
        console.print(f"       and {len(allowed) - MOST_USES} more places with a stale use that was allowed")


def show_use(console: Console, use: Use) -> None:
    """A use that was stale, and why that was allowed."""
    where = use.where
    code = f"{where.code}: {where.instruction}" if where.instruction else where.code
    times = f", {use.times} times" if use.times > 1 else ""
    what = f"a stale {use.access} by cpu{where.cpu} at {where.va:#x} ({escape(code)}){times}"
    console.print(f"[bold]saw[/bold]    {what}: [{_style(use.verdict)}]{use.verdict.value}[/]")
    for reason in use.why:
        console.print(f"         {escape(reason)}", style="dim", highlight=False)


def show_finding(console: Console, finding: Finding, replay: str) -> None:
    """A finding as a panel: the instruction, the TLBs, the kernel's lines, the reasons, the replay."""
    where = finding.where
    parts: list[Text | Table] = [Text(finding.cause)]
    if where.instruction is not None and where.rip is not None:
        parts.append(Text(f"cpu{where.cpu}, {where.code}, {where.rip:#x}:  {where.instruction}"))
    elif where.code:
        parts.append(Text(f"cpu{where.cpu}, {where.code}"))
    if finding.tlbs:
        parts.append(_tlb_table(finding))
    parts += [Text(line, style="red") for line in finding.lines]
    if finding.why:
        parts.append(Text("why", style="bold"))
        parts += [Text(f"  {number}. {reason}") for number, reason in enumerate(finding.why, start=1)]
    if finding.also:
        parts.append(Text("also: " + ", ".join(verdict.value for verdict in finding.also)))
    title = f"[{_style(finding.verdict)}]{finding.verdict.value}[/]"
    console.print(Panel(Group(*parts), title=title, title_align="left", border_style=_style(finding.verdict)))
    console.print(Text.assemble(("replay ", "bold"), replay), soft_wrap=True)


def show_end(console: Console, invocation: Invocation, run: Run, order: Order) -> None:
    """What it came to. The scenario's own story is told only of its own order."""
    scenario = invocation.scenario
    if not isinstance(run.outcome, Completed):
        console.print(f"[bold red]{escape(str(run.outcome))}[/]")
    console.print(f"[bold]cost[/bold]  {run.costs}", highlight=False)
    for table in invocation.cost_tables:
        cycles = table.cycles(run.costs)
        console.print(f"[bold]cost[/bold]  {cycles} cycles on {escape(table.name)}", highlight=False)
    found = {finding.verdict for finding in run.findings if finding.verdict.is_violation}
    if isinstance(run.outcome, OutOfSteps | OutOfTime):
        names = ", ".join(sorted(verdict.value for verdict in found)) or "nothing so far"
        console.print(f"[bold]found[/bold]  {names}; the run did not come to its end")
        return
    if order is Order.OWN and found == scenario.verdicts:
        console.print(f"[bold]as expected[/bold]  {escape(scenario.expected)}")
    else:
        names = ", ".join(sorted(verdict.value for verdict in found)) or "no violation"
        console.print(f"[bold]found[/bold]  {names}")
        console.print(f"[bold]in its own order[/bold]  {escape(scenario.expected)}")
        return
    if scenario.means:
        console.print(f"[bold]means[/bold]  {escape(scenario.means)}")


def grouped(found: Sequence[Found]) -> list[list[Found]]:
    """Findings of one guilty store together, the best explained first: one bug, whatever it shows as."""
    groups: dict[tuple[object, ...], list[Found]] = {}
    for one in found:
        groups.setdefault(guilt_of(one.finding), []).append(one)
    return [sorted(group, key=_least_explained) for group in groups.values()]


def guilt_of(finding: Finding) -> tuple[object, ...]:
    """What findings of one bug have in common: the guilty store, or else what was broken."""
    # An invariant is broken once for each page and CPU: its name is what they have in common.
    return (finding.guilty,) if finding.guilty else ("", finding.verdict, finding.cause.partition(":")[0])


def _least_explained(one: Found) -> tuple[int, int]:
    return (-len(one.finding.why), switches(one.schedule))


def _show_group(console: Console, invocation: Invocation, group: list[Found]) -> None:
    first, *others = group
    console.print(f"in run {first.at_run}, {switches(first.schedule)} switches:")
    show_finding(console, first.finding, invocation.replay(first.schedule))
    for number, constraint in enumerate(first.script):
        console.print(f"{'' if number else 'script':7}[dim]{constraint}[/dim]", highlight=False)
    if first.script:
        words = [
            "hvolab",
            "run",
            invocation.scenario.name,
            "--cpus",
            str(invocation.cpus),
            *invocation.options,
        ]
        console.print(
            Text.assemble(("try it ", "bold"), shlex.join([*words, "--script", "FILE"])), soft_wrap=True
        )
    recognised = known(invocation.scenario.name, first.finding)
    if recognised is not None:
        console.print(f"[bold]known[/bold]  {escape(recognised.name)} (docs/findings.md)")
    for alike in _alike(others):
        one, times = alike[0], f", {len(alike)} times" if len(alike) > 1 else ""
        where = one.finding.where
        code = f", {where.code}" if where.code else ""
        code += f": {where.instruction}" if where.instruction else ""
        what = f"{one.finding.verdict.value} in run {one.at_run}{times}, cpu{where.cpu}{code}"
        console.print(Text.assemble(("also   ", "bold"), f"{what}: {one.finding.cause}"), highlight=False)
        if one.schedule != first.schedule:
            console.print(Text("       " + invocation.replay(one.schedule), style="dim"), soft_wrap=True)


def _alike(found: Sequence[Found]) -> list[list[Found]]:
    """Those that one line tells: a rule broken at several pages, or on several CPUs, in one run."""
    lines: dict[tuple[object, ...], list[Found]] = {}
    for one in found:
        place = (one.finding.where.code, one.finding.where.rip, one.at_run)
        lines.setdefault((one.finding.verdict, one.finding.cause.partition(":")[0], *place), []).append(one)
    return list(lines.values())


def show_exploration(console: Console, invocation: Invocation, done: Exploration) -> None:
    """Each kind of finding once, with its replay line, and what was covered."""
    show_question(console, invocation.scenario, invocation.cpus)
    for group in grouped(done.found):
        _show_group(console, invocation, group)
    if not done.found:
        console.print("[bold]found[/bold]  nothing")
    for warning in done.warnings:
        console.print(f"[bold yellow]warning[/bold yellow]  {escape(warning)}", highlight=False)
    console.print(f"[bold]took[/bold]  {done.coverage.work}", highlight=False)
    console.print(f"[bold]covered[/bold]  {escape(str(done.coverage))}", highlight=False)


def _tlb_table(finding: Finding) -> Table:
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    table.add_column(f"page {finding.tlbs[0].page:#x}")
    table.add_column("translation")
    for row in finding.tlbs:
        holder = "page table" if row.cpu is None else f"TLB of cpu{row.cpu}"
        mark = Text(row.text + ("   <- STALE" if row.stale else ""), style="bold red" if row.stale else "")
        table.add_row(holder, mark)
    return table


def _style(verdict: Verdict) -> str:
    if verdict.is_violation or verdict is Verdict.MODEL_ERROR:
        return "bold red"
    return "yellow" if verdict is Verdict.SPURIOUS else "green"
