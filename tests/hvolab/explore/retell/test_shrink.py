"""Shrinking: the shortest schedule that shows the same, confirmed by replay."""

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import replace

import pytest

from emu.paging.models import LAZY
from hvolab.catalog import scenario
from hvolab.explore.budget import Budget
from hvolab.explore.explorer import Found, explore
from hvolab.explore.reduce.dpor import Reduced
from hvolab.explore.retell.shrink import NotShown, shrink, switches
from hvolab.explore.search.interface import Freedom
from hvolab.explore.search.randomly import UniformWalk
from hvolab.judge.verdict import Verdict
from hvolab.subject.picker import InOrder, Replay
from hvolab.subject.run import run
from hvolab.subject.scenario import Setup
from hvolab.subject.schedule import Schedule, VersionPick, parse
from kernel_model.boot import boot

ALL = frozenset({Freedom.SCHEDULE, Freedom.IRQ, Freedom.TLB})


def setup_of(name: str) -> Setup:
    setup = scenario(name).build(2)
    return replace(setup, boot=replace(setup.boot, model=LAZY))


def found_in(setup: Setup, verdict: Verdict) -> Found:
    """The most long-winded of the findings."""
    found = explore(setup, Reduced(), ALL, Budget()).found
    return max(
        (one for one in found if one.finding.verdict is verdict), key=lambda one: switches(one.schedule)
    )


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("v2", 0),
        ("v2 0*9", 0),
        ("v2 0*9 t0/2 0", 0),
        ("v2 0 1 0", 2),
        ("v2 0 i1 i1 0", 3),
        ("v2 0*2 i0 0", 2),
    ],
)
def test_a_switch_is_another_cpu_or_an_interrupt(text: str, count: int) -> None:
    assert switches(parse(text)) == count


@pytest.mark.parametrize(
    ("name", "verdict", "most"),
    [
        # Three flush interrupts are forced (the key's, the split's, the remap's), each there and back: six
        # switches when cpu1 runs after cpu0. One more where cpu1 must come between two steps of cpu0.
        ("tail-write", Verdict.WRITE_PROTECT, 7),
        ("lost-update", Verdict.LOST_UPDATE, 7),
        ("use-after-free", Verdict.USE_AFTER_FREE, 7),
        # The flush never interrupts cpu1, but the key's patching does: 0 i1 0 1.
        ("missed-cpu", Verdict.MISSED_FLUSH, 3),
    ],
)
def test_a_finding_shrinks_to_the_switches_it_needs_and_replays(
    name: str, verdict: Verdict, most: int
) -> None:
    setup = setup_of(name)
    found = found_in(setup, verdict)
    key = (found.finding.verdict, found.finding.where)
    result = shrink(boot(setup.boot), setup, found.schedule, key, Budget())
    assert result.switches == switches(result.schedule) <= most
    assert result.switches <= result.switches_before == switches(found.schedule)
    again = run(setup, lambda _system: Replay(result.schedule))
    assert result.finding in again.findings
    assert key == (result.finding.verdict, result.finding.where)


def test_an_answer_that_does_not_matter_becomes_the_usual_one() -> None:
    """Two loads went by an old entry; for the missed flush one is enough."""
    setup = setup_of("missed-cpu")
    missed = [
        one
        for one in explore(setup, UniformWalk(2, 12), ALL, Budget()).found
        if one.finding.verdict is Verdict.MISSED_FLUSH
    ]
    found = max(missed, key=lambda one: unusual_answers(one.schedule))
    assert unusual_answers(found.schedule) == 2
    key = (found.finding.verdict, found.finding.where)
    result = shrink(boot(setup.boot), setup, found.schedule, key, Budget())
    assert unusual_answers(result.schedule) == 1


def unusual_answers(schedule: Schedule) -> int:
    """The walk made now is offered last, and is the usual answer."""
    return sum(isinstance(pick, VersionPick) and pick.pick != pick.options - 1 for pick in schedule.picks)


def test_a_schedule_that_does_not_show_the_finding_is_refused() -> None:
    setup = setup_of("use-after-free")
    found = found_in(setup, Verdict.USE_AFTER_FREE)
    schedule = run(setup, lambda _system: InOrder()).schedule
    with pytest.raises(NotShown, match=r"^the schedule does not show 'violation: use-after-free' on cpu1$"):
        shrink(
            boot(setup.boot),
            setup,
            Schedule(schedule.picks),
            (found.finding.verdict, found.finding.where),
            Budget(),
        )


def test_the_budget_of_runs_is_kept_and_what_is_returned_still_shows_it() -> None:
    setup = setup_of("use-after-free")
    found = found_in(setup, Verdict.USE_AFTER_FREE)
    key = (found.finding.verdict, found.finding.where)
    result = shrink(boot(setup.boot), setup, found.schedule, key, Budget(runs=3))
    assert result.runs <= 3
    assert result.finding in run(setup, lambda _system: Replay(result.schedule)).findings


def test_the_replay_line_of_an_exploration_shows_the_finding_in_a_shell() -> None:
    program = "from hvolab.command.main import main; main()"
    words = [sys.executable, "-c", program]
    told = subprocess.run([*words, "explore", "use-after-free"], capture_output=True, text=True, check=False)
    assert told.returncode == 1
    line = next(line for line in told.stdout.splitlines() if line.startswith("replay hvolab "))
    again = subprocess.run([*words, *shlex.split(line)[2:]], capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert "violation: use-after-free" in again.stdout


def test_a_run_that_was_cut_off_is_not_made_longer() -> None:
    """What goes on by itself after the cut may have no end."""
    setup = setup_of("tail-write")
    (found,) = explore(setup, Reduced(), ALL, Budget(steps=300)).found
    assert found.schedule.cut
    key = (found.finding.verdict, found.finding.where)
    result = shrink(boot(setup.boot), setup, found.schedule, key, Budget(runs=40))
    assert len(result.schedule.picks) <= len(found.schedule.picks)
