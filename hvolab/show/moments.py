"""A run event by event: what happened at each, and what page table and TLBs then say of the watched pages.

The events of a run are kept as words; the state at one of them is had by running up to it again, which the
schedule makes the same run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from emu.addr import PAGE_SHIFT, VirtAddr
from emu.events import Annotated, Faulted, GuestSite, MachineEvent, Stored
from emu.machine import Machine
from emu.paging.walk import Walk
from emu.trace import Listener
from hvolab.judge.verdict import Finding
from hvolab.show.event_words import in_words, where_of
from hvolab.subject.outcome import Run
from hvolab.subject.picker import Replay
from hvolab.subject.run import run
from hvolab.subject.scenario import Setup
from kernel_model.boot import System
from kernel_model.core.events import FlushBegun, FlushCompleted, FlushesSettled, Oops, SpuriousFault


class Mark(Enum):
    """What one can go to."""

    STORE = "a store to a page table, or to a watched page"
    FLUSH = "a flush, begun or complete"
    FAULT = "a page fault, or what the handler makes of it"
    FINDING = "what was found"


@dataclass(frozen=True, slots=True)
class Moment:
    """One event."""

    number: int
    cpu: int
    what: str
    where: str
    marks: frozenset[Mark]


@dataclass(frozen=True, slots=True)
class PageState:
    """A watched page as the page table has it, and as each CPU's TLB may: (text, whether it is stale)."""

    page: VirtAddr
    table: str
    tlbs: tuple[tuple[tuple[str, bool], ...], ...]


def moments_of(setup: Setup, done: Run) -> tuple[Moment, ...]:
    """The events of that run, which is made again. Raises what a replay raises."""
    found: list[Moment] = []

    def listener(system: System) -> Listener:
        def note(number: int, event: MachineEvent) -> None:
            marks = _marks(system.machine, setup, number, event, done.findings)
            found.append(Moment(number, event.cpu, in_words(event), where_of(event), marks))

        return note

    run(setup, lambda _system: Replay(done.schedule), (listener,))
    return tuple(found)


def state_at(setup: Setup, done: Run, number: int) -> tuple[PageState, ...]:
    """The watched pages right after that event. The run is made again up to its end."""
    found: list[tuple[PageState, ...]] = []

    def listener(system: System) -> Listener:
        def look(at: int, _event: MachineEvent) -> None:
            if at == number:
                found.append(tuple(_state(system.machine, page) for page in setup.watched))

        return look

    run(setup, lambda _system: Replay(done.schedule), (listener,))
    return found[0]


def go_to(moments: tuple[Moment, ...], at: int, wanted: Callable[[Moment], bool], step: int) -> int:
    """The index of the next moment that is wanted, `at` if there is none. `step`: 1, or -1 for back."""
    index = at + step
    while 0 <= index < len(moments):
        if wanted(moments[index]):
            return index
        index += step
    return at


def _marks(
    machine: Machine, setup: Setup, number: int, event: MachineEvent, findings: tuple[Finding, ...]
) -> frozenset[Mark]:
    marks = {Mark.FINDING} if any(finding.event == number for finding in findings) else set[Mark]()
    match event:
        case Stored():
            if isinstance(event.site, GuestSite) or event.pa >> PAGE_SHIFT in _tables(machine, setup):
                marks.add(Mark.STORE)
        case Faulted() | Annotated(payload=Oops() | SpuriousFault()):
            marks.add(Mark.FAULT)
        case Annotated(payload=FlushBegun() | FlushCompleted() | FlushesSettled()):
            marks.add(Mark.FLUSH)
        case _:
            pass  # nothing that one goes to
    return frozenset(marks)


def _tables(machine: Machine, setup: Setup) -> set[int]:
    """The frames of the page tables behind the watched pages, now."""
    walks = (machine.cpus[0].mmu.peek(page) for page in setup.watched)
    return {step.pa >> PAGE_SHIFT for found in walks if isinstance(found, Walk) for step in found.steps}


def _state(machine: Machine, page: VirtAddr) -> PageState:
    found = machine.cpus[0].mmu.peek(page)
    now = found if isinstance(found, Walk) else None
    table = "not present" if now is None else f"pfn {now.pa >> PAGE_SHIFT:#x} {now.rights} {now.size}"
    tlbs = []
    for cpu in machine.cpus:
        held = [entry for entry in cpu.mmu.tlb.entries() if entry.holds(page)]
        tlbs.append(
            tuple(
                (
                    f"pfn {entry.frame_of(page):#x} {entry.rights} {entry.size}",
                    now is None or now.pa >> PAGE_SHIFT != entry.frame_of(page) or now.rights != entry.rights,
                )
                for entry in held
            )
        )
    return PageState(page, table, tuple(tlbs))
