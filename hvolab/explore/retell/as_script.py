"""A schedule as a script: what was picked, told by events, so that it can be kept as a test.

Each stretch of one CPU becomes a constraint that ends where the stretch did, at an event that a pattern can
name. A script is only handed out when running it shows the finding again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import assert_never

from emu.addr import PAGE_BYTES, VirtAddr, page_start
from emu.choice import Choice, DecideQuestion, Question, Step, TakeInterrupt, VersionQuestion
from emu.events import Annotated, Copied, Finished, IpiSent, Loaded, MachineEvent, Stored
from emu.paging.dead_end import DeadEnd
from emu.paging.walk import Walk
from hvolab.judge.verdict import Verdict, Where
from hvolab.subject.pattern import (
    BeginsFlush,
    CopiesFrom,
    Finishes,
    Frees,
    Loads,
    Pattern,
    SendsIpi,
    SetsPte,
    Stores,
    matches,
)
from hvolab.subject.picker import Replay
from hvolab.subject.run import run_on
from hvolab.subject.scenario import Setup, vmemmap_page
from hvolab.subject.schedule import Schedule
from hvolab.subject.script import (
    Constraint,
    Decides,
    EndsDead,
    Interrupt,
    Makes,
    Script,
    ScriptError,
    ScriptPicker,
    Standing,
    ToEnd,
    Translates,
    Until,
)
from kernel_model.boot import System
from kernel_model.core.events import FlushBegun, PageFreed
from kernel_model.mm.hstate import hugetlb_vmemmap_size

_MOST_PAGES = 64  # of the vmemmap of one huge page: what lies behind is told by address


class NoScript(ValueError):
    """No script was found that shows the finding."""


@dataclass(slots=True)
class _Picked:
    """One step of the schedule: what in it a pattern can name, and how its questions were answered.

    `ended`: after it the CPU had nothing left to do.
    """

    choice: Choice
    patterns: Counter[Pattern] = field(default_factory=Counter)
    answers: list[tuple[Question, int]] = field(default_factory=list)
    ended: bool = False


def as_script(system: System, setup: Setup, schedule: Schedule, key: tuple[Verdict, Where]) -> Script:
    """A script that shows what `schedule` shows. `system` is at time zero, and is left there.

    Raises NoScript when none does, and ScheduleError when the schedule cannot be followed. A run that was cut
    off has none: what a script does not say goes on by itself, without an end perhaps.
    """
    if schedule.cut:
        raise NoScript("the run was cut off")
    recording = _recorded(system, setup, schedule)
    for exact in (False, True):
        script = tuple(_constraints(recording, exact=exact))
        if _shows(system, setup, script, key):
            needed = _needed(system, setup, script, key)
            merged = _merged(needed)
            return merged if _shows(system, setup, merged, key) else needed
    raise NoScript(f"no script shows {key[0].value!r} on cpu{key[1].cpu}")


def _needed(system: System, setup: Setup, script: Script, key: tuple[Verdict, Where]) -> Script:
    """The script without what can be left out, from its end on: it still shows the finding."""
    for number in reversed(range(len(script))):
        shorter = script[:number] + script[number + 1 :]
        if shorter and _shows(system, setup, shorter, key):
            script = shorter
    return script


def _merged(script: Script) -> Script:
    """The script with constraints that wait for the same thing, one after the other, made one."""
    merged: list[Constraint] = []
    for one in script:
        match one, merged[-1:]:
            case Until(pattern=pattern), [Until(pattern=before) as last] if (
                last.cpu == one.cpu and before == pattern
            ):
                merged[-1] = replace(last, times=last.times + one.times)
            case _:
                merged.append(one)
    return tuple(merged)


def _shows(system: System, setup: Setup, script: Script, key: tuple[Verdict, Where]) -> bool:
    try:
        done = run_on(system, setup, lambda started: ScriptPicker(script, started.machine))
    except ScriptError:
        return False
    finally:
        system.reset()
    return any((finding.verdict, finding.where) == key for finding in done.findings)


def _recorded(system: System, setup: Setup, schedule: Schedule) -> list[_Picked]:
    recorder = _NotingReplay(schedule, system, setup)
    run_on(system, setup, lambda _system: recorder, (lambda _system: recorder.observe,))
    recorder.close()
    system.reset()
    return recorder.picked


class _NotingReplay:
    """Replays a schedule and notes what each step did that a script can name."""

    def __init__(self, schedule: Schedule, system: System, setup: Setup) -> None:
        self.picked: list[_Picked] = []
        self._replay = Replay(schedule)
        self._machine = system.machine
        self._pages = tuple(_vmemmap_pages(setup))

    def pick(self, enabled: list[Choice]) -> Choice:
        self.close()
        choice = self._replay.pick(enabled)
        self.picked.append(_Picked(choice))
        return choice

    def answer(self, question: Question) -> int:
        pick = self._replay.answer(question)
        self.picked[-1].answers.append((question, pick))
        return pick

    def finish(self) -> None:
        self._replay.finish()

    def observe(self, _number: int, event: MachineEvent) -> None:
        if self.picked and event.cpu == self.picked[-1].choice.cpu:
            for pattern in self._patterns(event):
                if matches(pattern, event, self._machine):
                    self.picked[-1].patterns[pattern] += 1

    def close(self) -> None:
        """The last step is over."""
        if self.picked:
            cpu = self._machine.cpus[self.picked[-1].choice.cpu]
            self.picked[-1].ended = not cpu.contexts

    def _patterns(self, event: MachineEvent) -> Iterator[Pattern]:
        """The patterns the event may match, those that tell most first."""
        match event:
            case Stored():
                yield from (SetsPte(page) for page in self._pages if self._is_table_of(event, page))
                yield Stores(event.va)
            case Annotated(payload=PageFreed(pfn=pfn)):
                yield Frees(pfn)
            case Annotated(payload=FlushBegun()):
                yield BeginsFlush()
            case Finished(name=name):
                yield Finishes(name)
            case IpiSent():
                yield SendsIpi()
            case Copied():
                yield CopiesFrom(event.source_va)
            case Loaded():
                yield Loads(event.va)
            case _:
                return  # no constraint of a script waits for it

    def _is_table_of(self, event: Stored, page: VirtAddr) -> bool:
        found = self._machine.cpus[event.cpu].mmu.peek(page)
        return isinstance(found, Walk) and found.steps[-1].pa == event.pa


def _vmemmap_pages(setup: Setup) -> Iterator[VirtAddr]:
    """The pages that hold the struct pages of the setup's huge pages."""
    for huge in setup.boot.huge_pages:
        pages = hugetlb_vmemmap_size(huge.hstate) // PAGE_BYTES
        yield from (vmemmap_page(huge, n) for n in range(min(pages, _MOST_PAGES)))


def _answers(picked: list[_Picked]) -> Iterator[Standing]:
    """The answers in these steps that are not the usual one, each counted among those it could be."""
    passed: list[Question] = []
    for question, pick in (answer for one in picked for answer in one.answers):
        if pick == question.default:
            passed.append(question)
            continue
        standing = _standing(question, pick)
        yield replace(standing, times=1 + sum(standing.choice(one) is not None for one in passed))


def _standing(question: Question, pick: int) -> Standing:
    match question:
        case VersionQuestion(cpu=cpu, va=va):
            page, used = page_start(va), question.option(pick)
            assert used is not None  # the usual answer
            if isinstance(used, DeadEnd):
                return EndsDead(cpu, page, used.table, used.lack)
            return Translates(cpu, page, used.frame_of(page), used.rights.write)
        case DecideQuestion(cpu=cpu, label=label):
            return Decides(cpu, label, pick)
        case _:
            assert_never(question)


def _constraints(picked: list[_Picked], *, exact: bool) -> Iterator[Constraint]:
    """Stretch by stretch. Exactly: to the very step; otherwise to the last step that an event marks."""
    first = 0
    while first < len(picked):
        choice = picked[first].choice
        if isinstance(choice, TakeInterrupt):
            yield from _answers(picked[first : first + 1])
            yield Interrupt(choice.cpu)
            first += 1
            continue
        last = first
        while last < len(picked) and picked[last].choice == choice:
            last += 1
        yield from _stretch(choice, picked[first:last], exact=exact)
        first = last


def _stretch(choice: Step, picked: list[_Picked], *, exact: bool) -> Iterator[Constraint]:
    yield from _answers(picked)
    if picked[-1].ended:
        yield ToEnd(choice.cpu)
        return
    marked = max((n for n, one in enumerate(picked, 1) if one.patterns), default=0)
    if marked:
        pattern = next(iter(picked[marked - 1].patterns))
        times = sum(one.patterns[pattern] for one in picked[:marked])
        yield Until(choice.cpu, pattern, times)
    if exact and marked < len(picked):
        yield Makes(choice.cpu, len(picked) - marked)
