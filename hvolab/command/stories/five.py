"""Five short stories, each a few lines at 80 columns: each runs something, and tells what came of it.

Everything told is read out of the run. Raises NotAsExpected where a run has not what the story is about.
"""

from __future__ import annotations

from collections.abc import Iterator

from rich.markup import escape

from emu.addr import VirtAddr, page_start
from emu.events import Loaded, MachineEvent, Source, Stored
from emu.machine import Machine
from emu.paging.walk import Walk
from emu.trace import Listener
from hvolab.catalog import scenario
from hvolab.command.exploring.telling import Quiet, Stops
from hvolab.command.playing import following
from hvolab.explore.audience import Found
from hvolab.explore.budget import Budget
from hvolab.explore.explorer import Exploration, explore
from hvolab.explore.reduce.dpor import Reduced
from hvolab.explore.search.interface import Freedom
from hvolab.judge.verdict import Finding, Use, Verdict
from hvolab.show.pages_view import PagesView, meaning
from hvolab.subject.axes import Chosen
from hvolab.subject.outcome import Run
from hvolab.subject.run import run
from hvolab.subject.scenario import Setup
from kernel_model.boot import System

FREEDOMS = frozenset({Freedom.SCHEDULE, Freedom.IRQ, Freedom.TLB})
LINUX_BUG, LINUX_FIX = "no-rcu-wait", "bd225530a4c7"


class NotAsExpected(RuntimeError):
    """A run of the catalogue has not what it is there for."""


def a_remap() -> Iterator[str]:
    """What HVO does to the pages of one huge page, as another CPU sees it."""
    views: list[PagesView] = []
    setup = scenario("remap").build(2)

    def watch(system: System) -> Listener:
        views.append(PagesView(system, setup.watched, setup.tour))
        return views[-1]

    _own(setup, watch)
    yield "[bold]1  A remap.[/bold] The vmemmap of a 2 MiB huge page is 8 pages; HVO keeps one."
    for phase in views[0].phases[:2]:
        head, *tails = phase.rows
        _, words = tails[0].read[-1]
        frames = sorted({row.pfn for row in tails})
        span = f"{frames[0]:#x}" if len(frames) == 1 else f"{frames[0]:#x} to {frames[-1]:#x}"
        rights = "rw" if "W" in tails[0].flags.split() else "ro"
        reader, sees = tails[0].read[-1][0], meaning(words, phase.folio)
        yield f"   {phase.name + ':':11} head in pfn {head.pfn:#x}, 7 tails in pfn {span} {rights}"
        yield f"{'':15}{phase.free_frames} frames are free; cpu{reader} takes the first tail page for {sees}"


def a_stale_entry() -> Iterator[str]:
    """A read through a TLB that remembers what the page table no longer says: legal until the flush."""
    setup = scenario("stale-read").build(2)
    seen: list[list[str]] = []

    def watch(system: System) -> Listener:
        return lambda _number, event: _look(system.machine, event, seen)

    done = _own(setup, watch)
    (use,) = [use for use in done.uses if use.verdict is Verdict.LEGAL]
    yield "[bold]2  A stale entry, read legally.[/bold] The PTE is stored, the flush is still to come."
    yield f"   {_where(use)}"
    yield from (f"   {line}" for line in seen[-1])
    yield f"   [green]{use.verdict.value}[/green]: {use.why[-1]}"


def a_missed_flush() -> Iterator[str]:
    """The same read when the flush has left that CPU out, and why that is wrong."""
    finding = _finding("missed-cpu", Verdict.MISSED_FLUSH)
    yield "[bold]3  A missed flush.[/bold] The flush is over, and has left one CPU out."
    yield f"   [bold red]{finding.verdict.value}[/] by {_where(finding)}"
    for number, reason in enumerate(finding.why[1:], start=1):
        yield f"   {number}. {escape(reason)}"


def a_write_to_a_tail() -> Iterator[str]:
    """A store to a read-only tail, with the kernel's own words."""
    finding = _finding("tail-write", Verdict.WRITE_PROTECT)
    yield "[bold]4  A write to a read-only tail.[/bold] It would have been one to the head."
    yield f"   [bold red]{finding.verdict.value}[/] by {_where(finding)}"
    for line in (*finding.lines[:3], finding.lines[-1]):
        yield f"   {escape(line)}"


def one_of_linuxs_bugs() -> Iterator[str]:
    """A bug that Linux had, found from the actors alone, beside the kernel that has its fix."""
    chosen = scenario("frozen-tail")
    setup = chosen.build(2)
    with_bug = _explored(setup, Chosen(variant=LINUX_BUG), Stops(first=True))
    without = _explored(setup, Chosen(cpu_model="lazy"), Stops())
    if not with_bug.found or without.found or not without.coverage.complete:
        raise NotAsExpected("frozen-tail: the bug is not found, or what has the fix is not clean")
    one: Found = with_bug.found[-1]
    yield f"[bold]5  One of Linux's own bugs,[/bold] mended by {LINUX_FIX}, found by exploration."
    yield f"   without the RCU wait: in run {one.at_run}, [bold red]{one.finding.verdict.value}[/]"
    yield f"     {_where(one.finding)}"
    runs = without.coverage.schedules + without.coverage.seen_before
    yield f"   with it: nothing, in all orders that can matter ({runs} runs)"


STORIES = (a_remap, a_stale_entry, a_missed_flush, a_write_to_a_tail, one_of_linuxs_bugs)


def _own(setup: Setup, *listeners: object) -> Run:
    return run(setup, following(setup.script), listeners)  # type: ignore[arg-type]


def _finding(name: str, verdict: Verdict) -> Finding:
    done = _own(scenario(name).build(2))
    for finding in done.findings:
        if finding.verdict is verdict:
            return finding
    raise NotAsExpected(f"{name}: no {verdict.value}")


def _explored(setup: Setup, chosen: Chosen, stops: Stops) -> Exploration:
    asked = Setup(chosen.apply(setup.boot), setup.actors, setup.script, setup.watched)
    return explore(asked, Reduced(), FREEDOMS, Budget(seconds=60), Quiet(stops))


def _where(found: Finding | Use) -> str:
    where = found.where
    return escape(f"cpu{where.cpu}, {where.code}: {where.instruction}")


def _look(machine: Machine, event: MachineEvent, seen: list[list[str]]) -> None:
    """Keep what page table and TLBs say of a page when it is read through what is stale."""
    if not isinstance(event, Loaded | Stored) or event.source is not Source.HIT:
        return
    page = page_start(event.va)
    found = machine.cpus[0].mmu.peek(page)
    if not isinstance(found, Walk) or found.pa >> 12 == event.entry.frame_of(event.va):
        return
    seen.append([f"page table    pfn {found.pa >> 12:#x} {found.rights}", *_held(machine, page)])


def _held(machine: Machine, page: VirtAddr) -> Iterator[str]:
    for cpu in machine.cpus:
        held = [entry for entry in cpu.mmu.tlb.entries() if entry.holds(page)]
        for entry in held:
            yield f"TLB of cpu{cpu.number}   pfn {entry.frame_of(page):#x} {entry.rights}   <- stale"
        if not held:
            yield f"TLB of cpu{cpu.number}   nothing"
