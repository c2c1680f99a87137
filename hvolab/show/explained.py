"""An explanation on the screen: version, window, store, flushes, rule."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from hvolab.judge.why import Explanation


def show_explained(console: Console, one: Explanation) -> None:
    """A line for each thing that decides the verdict."""
    for label, text in _lines(one):
        console.print(f"[bold]{label:8}[/bold] {escape(text)}", highlight=False, soft_wrap=True)


def _lines(one: Explanation) -> list[tuple[str, str]]:
    lines = []
    if one.version is not None:
        lines.append(("version", f"cpu{one.told.where.cpu} used {one.version}"))
        since = "time zero" if one.window is None else f"its invalidation at event {one.window}"
        lines.append(("window", f"it may have had that since {since}"))
    if one.ended_by is not None:
        ender = one.ended_by
        change = f"{ender.before:#x} -> {ender.after:#x}"
        lines.append(("store", f"ended at event {ender.event} by {ender.where}: {change}"))
    for flush in one.flushes:
        verb = "covers" if flush.covers else "does not cover"
        who = f"{flush.function} by cpu{flush.cpu}, begun at event {flush.begun}"
        lines.append(("flush", f"{who}, {verb} it: {flush.because}"))
    lines.append(("rule", one.rule))
    return lines
