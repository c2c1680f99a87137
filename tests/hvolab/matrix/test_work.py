"""Exploring cells: which there are, what they come to, and what is expected of every policy."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from command_line import hvolab

from hvolab.catalog import scenario
from hvolab.command.exploring.telling import Quiet, Stops
from hvolab.matrix.cell import NOT_COMPLETE, CellDone
from hvolab.matrix.work import CellWork, MatrixAxes, Spent, Task, tasks
from hvolab.subject.axes import POLICIES

FLUSHED = (
    "flush-reader",
    "flush-head-reader",
    "flush-sleeper",
    "nmi-walker",
    "irqs-off-walker",
    "switching-cpu",
    "unfreeze-before-sweep",
)
SPENT = Spent(60, 256)
GREEN = "nothing found"
MISSED, FREED, HELD = "violation: missed-flush", "violation: use-after-free", "violation: kernel"
LOST = "violation: lost-update"
# By policy: why, and what comes of each scenario of FLUSHED on lazy CPUs. HELD: at the end somebody may still
# use what was freed, and nobody does.
EXPECTED = {
    "upstream": ("everybody has answered before anything is freed", (GREEN,) * 7),
    "full": ("more is flushed than by upstream", (GREEN,) * 7),
    "per-folio": ("none of them is a batch: this is upstream", (GREEN,) * 7),
    "invlpgb": (
        "every CPU has carried it out when TLBSYNC ends; a section with interrupts off holds up nobody",
        (GREEN, GREEN, GREEN, GREEN, FREED, GREEN, GREEN),
    ),
    "stop-machine": ("nobody goes on before it has flushed", (GREEN,) * 7),
    "pause-remote": ("nobody goes on before its TLB has been told", (GREEN,) * 7),
    "bbm": (
        "nothing is changed while it may be used; a section with interrupts off holds up nobody",
        (GREEN, GREEN, GREEN, GREEN, FREED, GREEN, GREEN),
    ),
    "bbm-unlocked-look": (
        "who has waited for one gap may look into the next, an Oops; an NMI here comes before there is any",
        (HELD, HELD, HELD, GREEN, FREED, HELD, HELD),
    ),
    "bbm-by-interrupt": (
        "who waits in a fault, or in an NMI's, answers nobody: deadlock; a section is waited for",
        (HELD, HELD, HELD, HELD, GREEN, HELD, HELD),
    ),
    "ideal": (
        "no TLB has what the page tables have not; a section with interrupts off holds up nobody",
        (GREEN, GREEN, GREEN, GREEN, FREED, GREEN, GREEN),
    ),
    "local-only": ("the other CPU is never told", (MISSED, MISSED, MISSED, HELD, FREED, MISSED, MISSED)),
    "skips-last-cpu": ("the other CPU is the last", (MISSED, MISSED, MISSED, HELD, FREED, MISSED, MISSED)),
    "skips-idle": (
        "the sleeper and the one that meets an NMI say they are idle, the others never do",
        (GREEN, GREEN, MISSED, HELD, GREEN, GREEN, GREEN),
    ),
    "skip-switching": ("who switches looks when it is not left out any more", (GREEN,) * 7),
    "skip-switching-late": (
        "who switches looks before that; in the others nobody does",
        (GREEN, GREEN, GREEN, GREEN, GREEN, MISSED, GREEN),
    ),
    "flush-all-no-op": ("none of them is a batch: ranges are flushed", (GREEN,) * 7),
    "never": ("the other CPU is never told", (MISSED, MISSED, MISSED, HELD, FREED, MISSED, MISSED)),
    "no-wait": (
        "the other's interrupt may come after its next use",
        (MISSED, MISSED, MISSED, MISSED, FREED, MISSED, MISSED),
    ),
    "release-before-flush": ("the pages are free while the other may use them", (FREED,) * 7),
    "early-ack": (
        "between answer and flush no guest runs, but an NMI does; with interrupts off nobody answers",
        (GREEN, GREEN, GREEN, MISSED, GREEN, GREEN, GREEN),
    ),
    "invlpgb-no-tlbsync": (
        "the other may carry it out after its next use; of the kernel's interrupts none is a flush",
        (MISSED, MISSED, MISSED, HELD, FREED, MISSED, MISSED),
    ),
    "abis": ("boot has set A everywhere: all is flushed that is in the first optimization", (GREEN,) * 7),
    "abis-kernel": (
        "who has an entry cached does not set A again, so nobody is ever told",
        (MISSED, MISSED, MISSED, HELD, FREED, MISSED, MISSED),
    ),
    "af-bbm": (
        # FREED was expected of who only looks an entry up, interrupts off, and sets no A. An error: the flush
        # of the next entry waits for him, so only the frame of the last one can be freed before he reads it.
        "who uses an entry again makes it try again; the flush of the next entry waits for who looks one up",
        (GREEN,) * 7,
    ),
    "latr": (
        "until it ticks a CPU uses what is held: right, but where it writes to a head that was replaced",
        (GREEN, GREEN, GREEN, GREEN, GREEN, GREEN, LOST),
    ),
    "latr-short": (
        "the other may not have ticked when the pages are freed; it does before the end",
        (MISSED, MISSED, MISSED, GREEN, FREED, MISSED, MISSED),
    ),
}
# Where a CPU may flush at any time until its tick, or use an entry again that is about to change, there are
# more orders than a minute has room for.
BOUNDED = {"latr", "latr-short", "af-bbm"}
# Where two CPUs have to be left in the middle of something, no search comes to it in a minute; a script does.
TOO_DEEP = ("latr-short", "irqs-off-walker")
LOOKED_UP_AND_FREED = """
cpu0 until a flush begins
cpu1 until Load(0xffff888004201808)
cpu0 to its end
cpu0 takes an interrupt
cpu0 until free(pfn 0x7f01)
cpu1 to its end
"""
# On CPUs that forbid to change an entry in use: any but bbm changes one.
LIVE = "violation: live-change"
ON_BBM_REQUIRED = {"upstream": LIVE, "ideal": LIVE, "never": LIVE, "bbm": GREEN, "af-bbm": GREEN}
QUICK = [("unfreeze-before-sweep", policy) for policy in ("upstream", "never", "release-before-flush")]


def task_of(policy: str, name: str, cpus: int | None = None) -> Task:
    (task,) = tasks(MatrixAxes((policy,), (scenario(name),), ("lazy",), cpus, {}))
    return task


def explored(policy: str, name: str) -> CellDone:
    _, done = CellWork(task_of(policy, name), SPENT).explore(Quiet(Stops()))
    return done


def test_every_policy_is_expected_to_do_something() -> None:
    assert set(EXPECTED) == set(POLICIES.names)


def _told(done: CellDone, policy: str) -> str:
    """Where there are too many orders, that nothing has been found is all that can be said."""
    if (policy, done.cell.scenario) == TOO_DEEP and done.verdict == NOT_COMPLETE:
        return FREED
    return GREEN if policy in BOUNDED and done.verdict == NOT_COMPLETE else done.verdict


@pytest.mark.parametrize(("name", "policy"), QUICK)
def test_a_few_cells_come_to_what_is_expected(name: str, policy: str) -> None:
    done = explored(policy, name)
    assert done.verdict == EXPECTED[policy][1][FLUSHED.index(name)]
    assert done.coverage.stopped_by == ""


@pytest.mark.slow
@pytest.mark.parametrize("policy", EXPECTED)
def test_every_cell_comes_to_what_is_expected_and_is_explored_to_its_end(policy: str) -> None:
    found = [explored(policy, name) for name in FLUSHED]
    assert tuple(_told(done, policy) for done in found) == EXPECTED[policy][1]
    if policy not in BOUNDED:
        assert {done.coverage.stopped_by for done in found} == {""}


@pytest.mark.slow
@pytest.mark.parametrize("policy", ON_BBM_REQUIRED)
def test_only_who_breaks_before_it_makes_is_right_where_that_is_required(policy: str) -> None:
    (task,) = tasks(MatrixAxes((policy,), (scenario("flush-reader"),), ("lazy-bbm-required",), None, {}))
    _, done = CellWork(task, SPENT).explore(Quiet(Stops()))
    assert _told(done, policy) == ON_BBM_REQUIRED[policy]
    assert policy in BOUNDED or done.coverage.stopped_by == ""


def test_the_replay_of_a_cell_shows_its_verdict() -> None:
    done = explored("release-before-flush", "unfreeze-before-sweep")
    program, *words = shlex.split(done.replay)
    again = hvolab(*words)
    assert (program, again.status) == ("hvolab", 1)
    assert FREED in again.out


def test_what_is_too_deep_for_a_search_is_shown_by_a_script(tmp_path: Path) -> None:
    script = tmp_path / "script.txt"
    script.write_text(LOOKED_UP_AND_FREED, encoding="ascii")
    policy, name = TOO_DEEP
    done = hvolab("run", name, "--policy", policy, "--cpu-model", "lazy", "--script", script)
    assert (done.status, FREED in done.out) == (1, True)
    right = hvolab("run", name, "--policy", "latr", "--cpu-model", "lazy", "--script", script)
    assert "cannot meet 'cpu0 until free(pfn 0x7f01)'" in right.err


def test_what_a_search_in_order_does_not_come_to_in_time_is_looked_for_with_few_preemptions() -> None:
    """The lazy policy's orders are very many, and the wrong ones are simple."""
    _, done = CellWork(task_of("latr", "unfreeze-before-sweep"), Spent(1, 0)).explore(Quiet(Stops()))
    assert done.coverage.stopped_by == "the budget of 0.75 s"
    assert done.verdict == LOST


def test_a_cell_is_known_by_what_it_is_made_from_and_what_it_may_cost() -> None:
    one = CellWork(task_of("upstream", "flush-reader"), SPENT).made_from
    assert one == CellWork(task_of("upstream", "flush-reader"), SPENT).made_from
    others = {
        CellWork(task_of("never", "flush-reader"), SPENT).made_from,
        CellWork(task_of("upstream", "flush-sleeper"), SPENT).made_from,
        CellWork(task_of("upstream", "flush-reader", cpus=3), SPENT).made_from,
        CellWork(task_of("upstream", "flush-reader"), Spent(61, 256)).made_from,
        CellWork(task_of("upstream", "flush-reader"), Spent(60, 255)).made_from,
    }
    assert len(others - {one}) == 5


def test_a_scenario_with_more_actors_than_cpus_is_not_applicable() -> None:
    assert task_of("upstream", "flush-reader", cpus=1).reason == "it has actors on 2 CPUs"
    assert task_of("upstream", "flush-reader", cpus=2).reason == ""


def test_cells_come_model_by_model_and_scenario_by_scenario() -> None:
    some = [scenario(name) for name in FLUSHED[:2]]
    order = [task.cell for task in tasks(MatrixAxes(("a", "b"), some, ("lazy", "other"), None, {}))]
    assert [(cell.cpu_model, cell.scenario, cell.policy) for cell in order] == [
        (model, name, policy) for model in ("lazy", "other") for name in FLUSHED[:2] for policy in "ab"
    ]


def test_what_a_cell_costs_is_what_a_run_of_it_counts() -> None:
    """One optimize of a 2 MiB page: a PMD, above the ceiling, and eight pages, on two CPUs; the key once."""
    costs = explored("upstream", "flush-sleeper").costs
    assert (costs.flushes, costs.interrupts, costs.invlpgs, costs.full_flushes) == (2, 3, 16, 2)
    assert costs.grace_periods == 1
