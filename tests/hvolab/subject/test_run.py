"""One run: how it ends, and what it hands back."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from judge_lab import HUGE

from emu.choice import Choice
from emu.cpu.condition import Word, WordIs
from emu.cpu.ops import Await, Load
from emu.events import Annotated
from emu.kept import Kept
from emu.paging.models import LAZY
from hvolab.catalog.common import optimize
from hvolab.judge.verdict import Finding, Verdict, Where
from hvolab.subject.costs import NO_COSTS
from hvolab.subject.fingerprint import fingerprint
from hvolab.subject.outcome import Completed, Deadlocked, Limits, Outcome, OutOfSteps, OutOfTime, Run
from hvolab.subject.picker import InOrder, Replay
from hvolab.subject.run import collect, run, run_on
from hvolab.subject.scenario import KernelActor, Setup
from hvolab.subject.schedule import parse
from kernel_model.boot import BootConfig, Kernel, boot
from kernel_model.layout import PerCpu
from kernel_model.mm.image import HugePage

WORD = PerCpu(0).buffer
NEVER = WordIs(Word("never"), 1)


async def loads(_kernel: Kernel, _huge: HugePage) -> None:
    for _ in range(10):
        await Load(WORD)


async def waits(_kernel: Kernel, _huge: HugePage) -> None:
    await Await(NEVER)


def setup_of(*routines: object) -> Setup:
    actors = tuple(KernelActor(cpu, f"t{cpu}", routine) for cpu, routine in enumerate(routines))  # type: ignore[arg-type]
    return Setup(BootConfig(16 << 20, len(routines), (HUGE,)), actors, (), ())


def in_order(setup: Setup, limits: Limits = Limits()) -> Run:  # noqa: B008
    return run(setup, lambda _system: InOrder(), limits=limits)


@pytest.mark.parametrize(
    ("setup", "limits", "outcome"),
    [
        (setup_of(loads, loads), Limits(), Completed()),
        (setup_of(loads, waits), Limits(), Deadlocked(((1, "never = 1"),))),
        (setup_of(loads, loads), Limits(steps=13), OutOfSteps(13, ((1, "loads"),))),
        (setup_of(loads), Limits(steps=10), Completed()),
    ],
    ids=["completed", "deadlocked", "out of steps", "as many steps as allowed"],
)
def test_how_a_run_ends(setup: Setup, limits: Limits, outcome: Outcome) -> None:
    assert in_order(setup, limits).outcome == outcome


def test_what_was_cut_off_replays_to_where_it_was() -> None:
    setup = setup_of(loads, loads)
    first = in_order(setup, Limits(steps=13))
    assert first.schedule.cut
    again = run(setup, lambda _system: Replay(parse(str(first.schedule)), fingerprint(setup)))
    assert str(again.outcome) == "cut off after 13 steps of the schedule; cpu1 was in loads"
    assert (again.schedule, again.events) == (first.schedule, first.events)
    assert not in_order(setup).schedule.cut


def test_the_time_of_one_run_is_limited_too() -> None:
    past = Limits(until=time.monotonic() - 1, seconds=1.5)
    done = in_order(setup_of(loads), past)
    assert isinstance(done.outcome, OutOfTime)
    assert str(done.outcome).startswith("cut off after 1.5 s; cpu0 was in ")
    assert done.schedule.picks == ()


def test_a_run_that_was_cut_off_is_not_judged() -> None:
    """A deadlock is a finding; that nothing more happened within the budget is none."""
    assert [one.verdict for one in in_order(setup_of(waits)).findings] == [Verdict.KERNEL]
    assert in_order(setup_of(loads), Limits(steps=3)).findings == ()


def test_a_run_by_itself_has_a_fingerprint_and_costs_and_one_of_many_has_not() -> None:
    setup = replace(setup_of(loads), actors=(optimize(0),))
    alone = in_order(setup)
    assert alone.schedule.fingerprint == fingerprint(setup)
    assert alone.costs != NO_COSTS
    one = run_on(boot(setup.boot), setup, lambda _system: InOrder())
    assert one.schedule == replace(alone.schedule, fingerprint=None)
    assert one.costs == NO_COSTS


def test_a_listener_hears_every_event_with_its_number() -> None:
    setup, events = setup_of(loads), []
    done = run(setup, lambda _system: InOrder(), (collect(events),))
    assert [number for number, _ in events] == list(range(done.events))
    assert [type(event).__name__ for _, event in events if not isinstance(event, Annotated)][-1] == "Finished"


@pytest.mark.parametrize(
    ("verdicts", "wrong", "model_error"),
    [
        ((), False, False),
        ((Verdict.SPURIOUS, Verdict.LEGAL), False, False),
        ((Verdict.SPURIOUS, Verdict.LOST_UPDATE), True, False),
        ((Verdict.MODEL_ERROR,), False, True),
        ((Verdict.MODEL_ERROR, Verdict.KERNEL), True, True),
    ],
)
def test_a_run_is_wrong_by_its_violations_and_never_by_our_own_error(
    verdicts: tuple[Verdict, ...], wrong: bool, model_error: bool
) -> None:
    place = Where(0, 0, "", None, None)
    findings = tuple(Finding(verdict, (), place, 0, "", ()) for verdict in verdicts)
    done = replace(in_order(setup_of(loads)), findings=findings)
    assert (done.wrong, done.model_error) == (wrong, model_error)


class _Wrong(InOrder, Kept):
    """A picker with an error of its own, in one of what it is asked for."""

    def __init__(self, where: str) -> None:
        self._where = where

    def settle(self) -> None:
        self._fails("settle")

    def repeat(self, most: int) -> tuple[Choice, int] | None:
        self._fails("repeat")
        return None

    def finish(self) -> None:
        self._fails("finish")

    def _fails(self, where: str) -> None:
        if where == self._where:
            raise RuntimeError("an error of ours")


@pytest.mark.parametrize("where", ["settle", "repeat", "finish"])
def test_an_error_of_a_picker_is_never_blamed_on_a_file(where: str) -> None:
    setup = replace(setup_of(loads), loaded="a file")
    with pytest.raises(RuntimeError, match="an error of ours"):
        run(replace(setup, boot=replace(setup.boot, model=LAZY)), lambda _system: _Wrong(where))
