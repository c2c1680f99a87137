"""Exploration: counted by hand where it can be, and on the scenarios against what they must show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from small_schedules import ALL, WORD, setup_of

from emu.choice import Choice, Step
from emu.cpu.condition import Word, WordIs
from emu.cpu.ops import Await, Load, Store
from emu.cpu.recall import Unrepeatable
from emu.kept import Kept
from emu.paging.models import LAZY
from hvolab.catalog import scenario
from hvolab.explore.audience import Found, Silent
from hvolab.explore.budget import Budget
from hvolab.explore.explorer import RUNS_A_CHECK, explore
from hvolab.explore.reduce.dpor import Reduced
from hvolab.explore.search.bounds import Preemptions
from hvolab.explore.search.depth_first import Deepening, DepthFirst, everything
from hvolab.explore.search.interface import Freedom, Strategy
from hvolab.explore.search.randomly import Pct, Uniform
from hvolab.explore.states.visits import NO_STATES
from hvolab.judge.sight.sight import Sight
from hvolab.judge.verdict import Verdict
from hvolab.subject.blame import NOT_FOUND_AGAIN, LoadError
from hvolab.subject.fingerprint import fingerprint
from hvolab.subject.picker import InOrder, Picker, Replay
from hvolab.subject.run import run
from hvolab.subject.scenario import KernelActor
from kernel_model.boot import Kernel, System
from kernel_model.mm.image import HugePage


def test_a_cpu_that_waits_is_not_preempted() -> None:
    """b waits for the word that a's last step sets: aab is the only order but for when b begins to wait."""
    ready = Word("ready")

    async def sets(kernel: Kernel, huge: HugePage) -> None:
        await Store(WORD, 1)
        await Await(WordIs(ready, 0), then=((ready, 1),))

    async def waits(kernel: Kernel, huge: HugePage) -> None:
        await Await(WordIs(ready, 1))

    setup = replace(setup_of(1, 1), actors=(KernelActor(0, "a", sets), KernelActor(1, "b", waits)))
    done = explore(setup, everything(), ALL, Budget(runs=500))
    assert done.coverage.schedules == 1


def test_a_schedule_that_is_not_free_runs_the_lowest_cpu_first() -> None:
    done = explore(setup_of(2, 2), everything(), frozenset({Freedom.TLB}), Budget(runs=500))
    assert done.coverage.schedules == 1


@pytest.mark.parametrize("search", [everything, Reduced])
def test_a_deadlock_is_a_finding_and_is_counted(search: Callable[[], Strategy]) -> None:
    """Of those who cannot make a single step too."""

    async def forever(kernel: Kernel, huge: HugePage) -> None:
        await Await(WordIs(Word("never"), 1))

    setup = replace(setup_of(1), actors=(KernelActor(0, "a", forever),))
    done = explore(setup, search(), ALL, Budget(runs=500))
    assert done.coverage.deadlocks == 1
    assert [one.finding.verdict for one in done.found] == [Verdict.KERNEL]
    assert done.found[0].finding.cause == "deadlock: cpu0 waits for never = 1"


def test_the_budget_of_runs_and_that_it_is_said() -> None:
    done = explore(setup_of(2, 2), everything(), ALL, Budget(runs=4))
    assert done.coverage.schedules == 4
    assert str(done.coverage) == (
        "not complete (exhaustive), stopped by the budget of 4 runs; "
        "over {irq, schedule, tlb} at 2 CPUs: 4 schedules, 1 final states, at most 4 picks"
    )


def test_a_run_longer_than_the_step_budget_is_cut_off_and_counted() -> None:
    done = explore(setup_of(5), everything(), ALL, Budget(steps=3))
    assert done.coverage.cut_off == 1
    assert str(done.coverage) == (
        "not complete (exhaustive), stopped by the step budget of a run; over {irq, schedule, tlb} at 1 CPUs:"
        " 1 schedules, 1 of them cut off after 3 steps; cpu0 was in routine, 1 final states, at most 3 picks"
    )


def test_an_interrupt_keeps_what_was_found() -> None:
    setup = scenario("use-after-free").build(2)
    setup = replace(setup, boot=replace(setup.boot, model=LAZY))

    class Interrupting(Silent):
        def ran(self, runs: int, found: int) -> None:
            if found:
                raise KeyboardInterrupt

    done = explore(setup, DepthFirst(Preemptions(0)), ALL, Budget(), Interrupting())
    assert done.coverage.stopped_by == "an interrupt"
    assert {one.finding.verdict for one in done.found} == {Verdict.USE_AFTER_FREE}


def test_each_finding_is_told_once_and_may_be_the_last() -> None:
    setup = scenario("use-after-free").build(2)
    setup = replace(setup, boot=replace(setup.boot, model=LAZY))

    class Noting(Silent):
        def __init__(self, enough: int) -> None:
            self.told: list[Found] = []
            self.enough = enough

        def found(self, one: Found) -> str | None:
            self.told.append(one)
            return "that will do" if len(self.told) == self.enough else None

    everything_told, first = Noting(99), Noting(1)
    whole = explore(setup, Reduced(), ALL, Budget(), everything_told)
    assert [one.finding for one in everything_told.told] == [one.finding for one in whole.found]
    assert len(whole.found) > 1
    done = explore(setup, Reduced(), ALL, Budget(), first)
    assert (done.coverage.stopped_by, len(done.found)) == ("that will do", len(first.told))
    assert done.coverage.schedules == first.told[0].at_run < whole.coverage.schedules


@pytest.mark.parametrize("search", [lambda: Pct(3, 25, 3), lambda: Uniform(3, 25)], ids=["pct", "uniform"])
def test_a_random_search_is_the_same_for_the_same_seed(search) -> None:
    setup = scenario("tail-write").build(2)
    first = explore(setup, search(), ALL, Budget())
    second = explore(setup, search(), ALL, Budget())
    assert first.coverage.schedules == second.coverage.schedules == 25
    assert first.coverage.steps == second.coverage.steps
    assert first.found == second.found


def test_pct_needs_a_depth() -> None:
    with pytest.raises(ValueError, match=r"^PCT depth 0: want 1 or more$"):
        Pct(0, 1, 0)


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("use-after-free", Verdict.USE_AFTER_FREE),
        ("missed-cpu", Verdict.MISSED_FLUSH),
        ("tail-write", Verdict.WRITE_PROTECT),
        ("tail-write", Verdict.LOST_UPDATE),
    ],
)
def test_the_violation_is_found_without_the_script_and_replays(name: str, verdict: Verdict) -> None:
    """No preemption is needed: what an old entry does is the TLB's freedom, not the schedule's."""
    setup = scenario(name).build(2)
    setup = replace(setup, boot=replace(setup.boot, model=LAZY))
    done = explore(setup, Deepening(Preemptions(0)), ALL, Budget(runs=100))
    (found, *_) = [one for one in done.found if one.finding.verdict is verdict]
    again = run(setup, lambda _system: Replay(found.schedule))
    assert found.finding in again.findings
    assert found.schedule == again.schedule
    assert found.schedule.fingerprint == fingerprint(setup)


def test_a_store_to_the_head_is_lost_only_between_the_copy_and_the_remap() -> None:
    setup = scenario("lost-update").build(2)
    setup = replace(setup, boot=replace(setup.boot, model=LAZY))
    done = explore(setup, Deepening(Preemptions(1)), ALL, Budget(runs=80))
    assert {one.finding.verdict for one in done.found} == {Verdict.LOST_UPDATE}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stale-read", "remap"])
def test_upstream_has_no_violation_within_one_preemption(name: str) -> None:
    setup = scenario(name).build(2)
    setup = replace(setup, boot=replace(setup.boot, model=LAZY))
    done = explore(setup, Deepening(Preemptions(1)), ALL, Budget(runs=1500))
    assert done.found == ()


def test_a_reset_machine_explores_as_a_new_one_does() -> None:
    """Two explorations, each on a machine that was reset between its runs, agree run by run."""
    setup = scenario("tail-write").build(2)
    setup = replace(setup, boot=replace(setup.boot, model=LAZY))
    found = explore(setup, DepthFirst(Preemptions(0)), ALL, Budget()).found
    assert found
    for one in found:
        fresh = run(setup, lambda _system, one=one: Replay(one.schedule))
        assert one.finding in fresh.findings


def creeping(steady: int) -> KernelActor:
    """Its last step is another one once it has been run so many times: no schedule has that."""
    times = iter(range(1_000_000))

    async def creeps(kernel: Kernel, huge: HugePage) -> None:
        await Load(WORD)
        await Store(WORD, next(times) // steady)
        await Load(WORD)

    return KernelActor(0, "a", creeps)


SAID = (
    r"^a on cpu0, in creeps\(\): its next step depends on something outside the machine: Store\(.*value=1, "
)


def test_a_routine_that_does_something_else_after_a_while_ends_the_exploration() -> None:
    """The last run is made by the routines themselves again."""
    setup = replace(setup_of(1, 4), actors=(creeping(1), *setup_of(1, 4).actors[1:]))
    with pytest.raises(Unrepeatable, match=SAID):
        explore(setup, Uniform(1, 3), ALL, Budget())


def test_of_fifty_complete_runs_one_is_made_again_by_the_routines_themselves() -> None:
    begun: list[int] = []

    async def counts(kernel: Kernel, huge: HugePage) -> None:
        begun.append(len(begun))
        await Load(WORD)
        await Load(WORD)

    setup = replace(setup_of(1, 4), actors=(KernelActor(0, "a", counts), *setup_of(1, 4).actors[1:]))
    explore(setup, Uniform(1, RUNS_A_CHECK - 1), ALL, Budget())
    first_and_last = 2
    assert len(begun) == first_and_last
    explore(setup, Uniform(1, 2 * RUNS_A_CHECK + 1), ALL, Budget())
    assert len(begun) == first_and_last + first_and_last + 2


@pytest.mark.parametrize(
    "name",
    [
        "optimize-reader",
        pytest.param("optimize-kpageflags", marks=pytest.mark.slow),
        "unfreeze-get-page",
        "key-restore",
        pytest.param("two-sizes", marks=pytest.mark.slow),
        pytest.param("optimize-neighbours", marks=pytest.mark.slow),
        pytest.param("restore-reader", marks=pytest.mark.slow),
        pytest.param("grow-memory-failure", marks=pytest.mark.slow),
        pytest.param("demote-get-page", marks=pytest.mark.slow),
        pytest.param("split-neighbours", marks=pytest.mark.slow),
    ],
)
def test_a_run_whose_steps_are_partly_known_is_that_of_its_schedule_step_by_step(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each complete run is made again: the same steps, events, findings, memory, words and counters.

    No states are remembered, so that all are complete.
    """
    monkeypatch.setattr("hvolab.explore.explorer.RUNS_A_CHECK", 1)
    setup = scenario(name).build(2)
    setup = replace(setup, boot=replace(setup.boot, model=LAZY))
    done = explore(setup, Reduced(NO_STATES), frozenset(Freedom), Budget(runs=200))
    assert done.coverage.schedules > 1


def test_a_finding_that_depends_on_something_else_is_none() -> None:
    setup = scenario("tail-write").build(2)
    actors = (replace(creeping(1), cpu=2), *setup.actors)
    setup = replace(setup, boot=replace(setup.boot, cpus=3, model=LAZY), actors=actors)
    with pytest.raises(Unrepeatable, match=SAID.replace("cpu0", "cpu2")):
        explore(setup, Reduced(), ALL, Budget(runs=5))


class _Lies(InOrder, Kept):
    """Says once that a CPU has stepped that does not exist."""

    kept = ("told",)
    told = False

    def settle(self) -> None:
        """It notes nothing."""

    def repeat(self, most: int) -> tuple[Choice, int] | None:
        told, self.told = self.told, True
        return None if told else (Step(7), 1)


class _Lying(Uniform):
    def picker(self, system: System, sight: Sight, freedoms: frozenset[Freedom]) -> Picker:
        return _Lies()


@pytest.mark.parametrize(("loaded", "raised"), [("", AssertionError), ("a file", LoadError)])
def test_a_run_that_its_schedule_does_not_lead_through_is_never_counted_as_one(
    loaded: str, raised: type[Exception]
) -> None:
    """It was once a schedule that did not fit, which is said of what a user has given."""
    setup = replace(setup_of(1, 4), loaded=loaded)
    with pytest.raises(raised, match=NOT_FOUND_AGAIN[:30]):
        explore(setup, _Lying(1, 1), ALL, Budget())
