"""Why a use is judged as it is, wrong or not: version, store that ended it, flushes, window, rule.

Told by Sight after the run that has the finding: the same that its judge saw, as far as it had come then.
"""

from __future__ import annotations

from dataclasses import dataclass

from emu.addr import VirtAddr
from emu.paging.tlb import TlbEntry
from hvolab.judge.describe import describe_site
from hvolab.judge.sight.endings import Ending
from hvolab.judge.sight.requests import Request
from hvolab.judge.sight.sight import Sight
from hvolab.judge.verdict import RULES, Finding, Use


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

    told: Finding | Use
    version: str | None
    ended_by: Ender | None
    flushes: tuple[FlushJudged, ...]
    window: int | None
    rule: str


def explain(finding: Finding | Use, sight: Sight) -> Explanation:
    """Explain one finding, or one stale use, of the run that `sight` has seen."""
    rule, entry = RULES[finding.verdict], finding.used
    if entry is None:
        return Explanation(finding, None, None, (), None, rule)
    ender = _ender(finding, sight.ending_of(VirtAddr(finding.where.va), entry))
    requests = sight.requests(VirtAddr(finding.where.va))
    return Explanation(
        finding,
        str(entry),
        ender,
        tuple(_judged(finding, one, ender) for one in requests if one.begun < finding.event),
        _window(finding, entry, sight),
        rule,
    )


def _ender(finding: Finding | Use, ending: Ending | None) -> Ender | None:
    """The store, where it came before the use; one that nobody announced, a bulk one, has no place."""
    if ending is None or ending.event is None or ending.store is None or ending.event >= finding.event:
        return None
    store = ending.store
    where = describe_site(store.cpu, store.site)
    return Ender(ending.event, store.cpu, where, int(ending.before), int(ending.after))


def _judged(finding: Finding | Use, request: Request, ender: Ender | None) -> FlushJudged:
    completed = request.completed
    if completed is not None and completed >= finding.event:
        completed = None
    covers = ender is not None and request.begun > ender.event
    because = "it began before the store"
    if ender is not None and covers:
        asked = "left this CPU out"
        if finding.where.cpu in request.what.cpus:
            asked = "is for this CPU to catch up with" if request.what.generation else "asked this CPU"
        how = "taken for settled" if request.what.generation else "complete"
        ended = "was not complete yet" if completed is None else f"was {how} from event {completed} on"
        because = f"it began after the store at event {ender.event}, {asked}, and {ended}"
    return FlushJudged(request.what.function, request.cpu, request.begun, completed, covers, because)


def _window(finding: Finding | Use, entry: TlbEntry, sight: Sight) -> int | None:
    """The last invalidation on that CPU that removed the translation, if it had it."""
    return sight.last_removal(finding.where.cpu, entry, finding.event)
