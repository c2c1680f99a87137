"""Findings in words: where something happened, and which store ended a translation."""

from __future__ import annotations

from collections.abc import Sequence

from emu.events import GuestSite, RoutineSite, Site, Stored
from emu.paging.tlb import TlbEntry
from hvolab.judge.sight.endings import Ending
from hvolab.judge.verdict import Where
from kernel_model.flush.policy import OURS

_ENTRIES = {1: "PTE", 2: "PMD", 3: "PUD", 4: "PGD"}


def place_of(cpu: int, va: int, site: Site | None) -> Where:
    """The place of a finding: a guest instruction, or the innermost kernel function."""
    if isinstance(site, GuestSite):
        return Where(cpu, int(va), site.program, site.instruction, int(site.rip))
    return Where(cpu, int(va), str(site) if site is not None else "", None, None)


def of_the_kernel(functions: Sequence[str]) -> Sequence[str]:
    """Those that Linux has: what the model has cut one into begins with an underscore, or is named."""
    return [name for name in functions if not name.startswith("_") and name not in OURS] or functions


def describe_site(cpu: int, site: Site) -> str:
    """Who and where, in words: the innermost functions of a kernel routine, or a guest instruction."""
    if isinstance(site, GuestSite):
        return f"cpu{cpu} in {site}"
    if isinstance(site, RoutineSite) and site.functions:
        return f"cpu{cpu} in {' < '.join(reversed(of_the_kernel(site.functions)[-3:]))}"
    return f"cpu{cpu} in {site}"


def describe_storer(store: Stored) -> str:
    """Who made that store, in words."""
    return describe_site(store.cpu, store.site)


def describe_ending(ending: Ending) -> str:
    """Which store ended a version, in words."""
    before, after = ending.before, ending.after
    change = f"{before.flags()} pfn {before.pfn:#x} -> {after.flags()} pfn {after.pfn:#x}"
    if ending.store is None:
        return f"its {_ENTRIES[ending.level]} has changed since: {change}"
    who = describe_storer(ending.store)
    return f"its {_ENTRIES[ending.level]} was changed at event {ending.event} by {who}: {change}"


def describe_entry(entry: TlbEntry) -> str:
    """A translation and since when it is cached; a lazy TLB has no such moment, only a right to it."""
    if entry.filled_at < 0:
        return f"{entry}, which it may have cached before and has not invalidated since"
    return f"{entry}, cached at event {entry.filled_at}"
