"""Why a finding is one: the version used, the store that ended it, the flushes, the window, the rule.

Built from the events of a replay, independently of the monitor that made the finding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from emu.addr import PAGE_BYTES, PAGE_MASK
from emu.events import (
    Annotated,
    Copied,
    Faulted,
    Filled,
    Invalidated,
    Loaded,
    LoadedBytes,
    MachineEvent,
    Stored,
)
from emu.paging.tlb import ALL_RULES, TlbEntry, removes
from hvolab.judge.describe import describe_site
from hvolab.judge.history import NO_VERSION
from hvolab.judge.verdict import RULES, Finding
from kernel_model.core.events import FlushBegun, FlushCompleted

Events = Sequence[tuple[int, MachineEvent]]


@dataclass(frozen=True, slots=True)
class Ender:
    """The store that ended the version used."""

    event: int
    cpu: int
    where: str
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class FlushJudged:
    """A flush request with the page in its range, and whether it covers the use."""

    function: str
    cpu: int
    begun: int
    completed: int | None
    covers: bool
    because: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """`window`: the event since which the CPU may have had the translation; None since time zero."""

    finding: Finding
    version: str | None
    ended_by: Ender | None
    flushes: tuple[FlushJudged, ...]
    window: int | None
    rule: str


def explain(finding: Finding, events: Events) -> Explanation:
    """Explain one finding of the run whose events these are, each with its number."""
    entry = _entry_used(finding, events)
    rule = RULES[finding.verdict]
    if entry is None:
        return Explanation(finding, None, None, (), None, rule)
    before = [(number, event) for number, event in events if number < finding.event]
    ender = _ender(entry, before)
    return Explanation(
        finding,
        str(entry),
        ender,
        _flushes(finding, ender, before),
        _window(finding.where.cpu, entry, before),
        rule,
    )


def _entry_used(finding: Finding, events: Events) -> TlbEntry | None:
    event = next((event for number, event in events if number == finding.event), None)
    match event:
        case Loaded(entry=entry) | LoadedBytes(entry=entry) | Stored(entry=entry) | Filled(entry=entry):
            return entry
        case Faulted(entry=entry):
            return entry
        case Copied(source_va=va, source_entry=source, to_entry=to):
            return source if va & ~PAGE_MASK == finding.where.va & ~PAGE_MASK else to
        case _:
            return None


def _ender(entry: TlbEntry, before: Events) -> Ender | None:
    """The last store that replaced one of the entries behind the translation by another version."""
    words = {step.pa: step.entry for step in entry.steps}
    for number, event in reversed(before):
        if isinstance(event, Stored) and event.pa in words:
            held = words[event.pa]
            if not (held ^ event.old) & ~NO_VERSION and (held ^ event.value) & ~NO_VERSION:
                site = describe_site(event.cpu, event.site)
                return Ender(number, event.cpu, site, event.old, event.value)
    return None


def _flushes(finding: Finding, ender: Ender | None, before: Events) -> tuple[FlushJudged, ...]:
    page = finding.where.va & ~PAGE_MASK
    completed = {
        event.payload.begun: number
        for number, event in before
        if isinstance(event, Annotated) and isinstance(event.payload, FlushCompleted)
    }
    found = []
    for number, event in before:
        if not isinstance(event, Annotated) or not isinstance(event.payload, FlushBegun):
            continue
        what = event.payload
        if not (what.start < page + PAGE_BYTES and page < what.end):
            continue
        covers = ender is not None and number > ender.event
        ended = completed.get(number)
        because = _because(finding.where.cpu, what, ender, ended) if covers else "it began before the store"
        found.append(FlushJudged(what.function, event.cpu, number, ended, covers, because))
    return tuple(found)


def _because(cpu: int, what: FlushBegun, ender: Ender | None, completed: int | None) -> str:
    assert ender is not None
    asked = "asked this CPU" if cpu in what.cpus else "left this CPU out"
    ended = "was not complete yet" if completed is None else f"was complete from event {completed} on"
    return f"it began after the store at event {ender.event}, {asked}, and {ended}"


def _window(cpu: int, entry: TlbEntry, before: Events) -> int | None:
    """The last invalidation on that CPU that removed the translation, if it had it."""
    for number, event in reversed(before):
        if isinstance(event, Invalidated) and event.cpu == cpu and removes(event.what, entry, ALL_RULES):
            return number
    return None
