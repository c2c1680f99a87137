"""A matrix on a screen: a letter a cell, what is wrong with a replay line, what policies cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import assert_never

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hvolab.judge.verdict import Verdict
from hvolab.matrix.cell import NOTHING_FOUND, CellDone
from hvolab.subject.costs import Costs

NOTHING, OPEN, NOT_ASKED, FAILED = ".", "?", "-", "E"
_MEANS = {
    NOTHING: "nothing found, everything explored",
    OPEN: "nothing found, not everything explored",
    NOT_ASKED: "not applicable",
    FAILED: "an error in the policy's file",
}
_COLUMN = 3  # characters


def letter(done: CellDone) -> str:
    """Of its verdict."""
    if done.failed:
        return FAILED
    if done.reason:
        return NOT_ASKED
    if not done.verdicts:
        return NOTHING if done.verdict == NOTHING_FOUND else OPEN
    return _letter(done.verdicts[0])


def _letter(verdict: Verdict) -> str:
    match verdict:
        case Verdict.MODEL_ERROR:
            return "!"
        case Verdict.TLB_MULTIHIT:
            return "T"
        case Verdict.LIVE_CHANGE:
            return "L"
        case Verdict.MISSED_FLUSH:
            return "F"
        case Verdict.USE_AFTER_FREE:
            return "A"
        case Verdict.LOST_UPDATE:
            return "U"
        case Verdict.WRITE_PROTECT:
            return "W"
        case Verdict.WRONG_METADATA:
            return "M"
        case Verdict.KERNEL:
            return "K"
        case Verdict.OWN_JUDGE:
            return "J"
        case Verdict.SPURIOUS | Verdict.OWN_TEXT | Verdict.EQUIVALENT | Verdict.LEGAL:
            raise ValueError(f"{verdict.value} is nothing wrong")
        case _:
            assert_never(verdict)


def show_matrix(console: Console, cells: Sequence[CellDone], asked: int) -> None:
    """All of it, of so many asked for. `cells` in any order; those of one CPU model make one table."""
    models = [*dict.fromkeys(done.cell.cpu_model for done in cells)]
    for model in models:
        _show_model(console, model, [done for done in cells if done.cell.cpu_model == model])
    for letters, means in legend(cells):
        console.print(f"[bold]{escape(letters)}[/bold]  {escape(means)}", highlight=False)
    for done in cells:
        if done.verdicts:
            _show_wrong(console, done)
        elif done.error or done.reason:
            said = f"{_name(done)}: {done.error or done.reason}"
            console.print(f"[bold]{letter(done)}[/bold]  {escape(said)}", highlight=False)
    console.print(_cost_table(cells))
    told = coverage_of(cells, asked)
    console.print(f"[bold]covered[/bold]  {escape(told)}", highlight=False, soft_wrap=True)


def coverage_of(cells: Sequence[CellDone], asked: int) -> str:
    """How many of so many cells were explored to their end, and what ended the others."""
    explored = [done for done in cells if not (done.reason or done.failed)]
    stopped = Counter(done.coverage.stopped_by for done in explored if done.coverage.stopped_by)
    line = f"{len(explored) - stopped.total()} of {asked} cells to their end"
    return line + "".join(f"; {count} stopped by {what}" for what, count in stopped.items())


def _show_model(console: Console, model: str, cells: Sequence[CellDone]) -> None:
    scenarios = [*dict.fromkeys(done.cell.scenario for done in cells)]
    policies = [*dict.fromkeys(done.cell.policy for done in cells)]
    title = f"CPUs: {model}"
    width = max(1, (console.width - max(map(len, (title, *policies))) - 2) // _COLUMN)
    by_place = {(done.cell.policy, done.cell.scenario): done for done in cells}
    for start in range(0, len(scenarios), width):
        table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
        table.add_column(escape(title), no_wrap=True)
        some = scenarios[start : start + width]
        for number, _ in enumerate(some, start + 1):
            table.add_column(str(number), justify="right", min_width=_COLUMN - 1)
        for policy in policies:
            table.add_row(escape(policy), *(_coloured(by_place.get((policy, name))) for name in some))
        console.print(table)
        names = ", ".join(f"{number} {name}" for number, name in enumerate(some, start + 1))
        console.print(escape(names), highlight=False)


def _coloured(done: CellDone | None) -> str:
    if done is None:
        return " "
    colour = "red" if done.verdicts else "green" if letter(done) == NOTHING else "yellow"
    return f"[{colour}]{escape(letter(done))}[/{colour}]"


def legend(cells: Sequence[CellDone]) -> Iterator[tuple[str, str]]:
    """The letters that are there, and what they mean."""
    used = {letter(done): done for done in cells}
    for one, means in _MEANS.items():
        if one in used:
            yield one, means
    for one, done in sorted(used.items()):
        if one not in _MEANS:
            yield one, done.verdict


def _name(done: CellDone) -> str:
    return f"{done.cell.policy} x {done.cell.scenario}, {done.cell.cpu_model}"


def _show_wrong(console: Console, done: CellDone) -> None:
    also = ", ".join(verdict.value for verdict in done.verdicts[1:])
    said = f"{_name(done)}: {done.verdict}{f' (also {also})' if also else ''}"
    console.print(f"[bold red]{escape(letter(done))}[/]  {escape(said)}", highlight=False)
    console.print(f"   [dim]{escape(done.replay)}[/dim]", highlight=False, soft_wrap=True)


def cost_rows(cells: Sequence[CellDone]) -> Iterator[tuple[str, ...]]:
    """A heading, then each policy: on one CPU model, the scenarios that every policy was explored on."""
    model = cells[0].cell.cpu_model
    explored = [done for done in cells if done.cell.cpu_model == model and not (done.reason or done.failed)]
    policies = [*dict.fromkeys(done.cell.policy for done in explored)]
    counts_for = Counter(done.cell.scenario for done in explored)
    yield ("what it costs", "requests", "interrupts", "INVLPG", "whole TLB", "INVLPGB", "RCU waits")
    for policy in policies:
        own = [done for done in explored if done.cell.policy == policy]
        cost = _sum([done.costs for done in own if counts_for[done.cell.scenario] == len(policies)])
        counts = (cost.flushes, cost.interrupts, cost.invlpgs, cost.full_flushes, cost.broadcasts)
        yield (policy, *map(str, (*counts, cost.grace_periods)))


def _cost_table(cells: Sequence[CellDone]) -> Table:
    heading, *rows = cost_rows(cells)
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(heading[0], no_wrap=True)
    for column in heading[1:]:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def _sum(costs: Sequence[Costs]) -> Costs:
    return Costs(
        sum(one.grace_periods for one in costs),
        sum(one.flushes for one in costs),
        sum(one.interrupts for one in costs),
        sum(one.invlpgs for one in costs),
        sum(one.full_flushes for one in costs),
        sum(one.broadcasts for one in costs),
    )
