"""Exploring cells: which there are, what they come to, and what is expected of every policy."""

from __future__ import annotations

import shlex

import pytest
from command_line import hvolab

from hvolab.catalog import scenario
from hvolab.command.exploring.telling import Quiet, Stops
from hvolab.matrix.cell import CellDone
from hvolab.matrix.work import CellWork, MatrixAxes, Spent, Task, tasks
from hvolab.subject.axes import POLICIES

FLUSHED = ("flush-reader", "flush-head-reader", "flush-sleeper", "nmi-walker", "irqs-off-walker")
SPENT = Spent(60, 256)
GREEN = "nothing found"
MISSED, FREED, HELD = "violation: missed-flush", "violation: use-after-free", "violation: kernel"
# By policy: why, and what comes of each scenario of FLUSHED on lazy CPUs. HELD: at the end somebody may still
# use what was freed, and nobody does.
EXPECTED = {
    "upstream": ("everybody has answered before anything is freed", (GREEN,) * 5),
    "full": ("more is flushed than by upstream", (GREEN,) * 5),
    "per-folio": ("none of them is a batch: this is upstream", (GREEN,) * 5),
    "invlpgb": (
        "every CPU has carried it out when TLBSYNC ends; a section with interrupts off holds up nobody",
        (GREEN, GREEN, GREEN, GREEN, FREED),
    ),
    "ideal": (
        "no TLB has what the page tables have not; a section with interrupts off holds up nobody",
        (GREEN, GREEN, GREEN, GREEN, FREED),
    ),
    "local-only": ("the other CPU is never told", (MISSED, MISSED, MISSED, HELD, FREED)),
    "skips-last-cpu": ("the other CPU is the last", (MISSED, MISSED, MISSED, HELD, FREED)),
    "skips-idle": (
        "the sleeper and the one that meets an NMI say they are idle, the others never do",
        (GREEN, GREEN, MISSED, HELD, GREEN),
    ),
    "flush-all-no-op": ("none of them is a batch: ranges are flushed", (GREEN,) * 5),
    "never": ("the other CPU is never told", (MISSED, MISSED, MISSED, HELD, FREED)),
    "no-wait": ("the other's interrupt may come after its next use", (MISSED, MISSED, MISSED, MISSED, FREED)),
    "release-before-flush": ("the pages are free while the other may use them", (FREED,) * 5),
    "early-ack": (
        "between answer and flush no guest runs, but an NMI does; with interrupts off nobody answers",
        (GREEN, GREEN, GREEN, MISSED, GREEN),
    ),
    "invlpgb-no-tlbsync": (
        "the other may carry it out after its next use; of the kernel's interrupts none is a flush",
        (MISSED, MISSED, MISSED, HELD, FREED),
    ),
}
QUICK = [("flush-sleeper", policy) for policy in ("upstream", "skips-idle", "release-before-flush")]


def task_of(policy: str, name: str, cpus: int | None = None) -> Task:
    (task,) = tasks(MatrixAxes((policy,), (scenario(name),), ("lazy",), cpus, {}))
    return task


def explored(policy: str, name: str) -> CellDone:
    _, done = CellWork(task_of(policy, name), SPENT).explore(Quiet(Stops()))
    return done


def test_every_policy_is_expected_to_do_something() -> None:
    assert set(EXPECTED) == set(POLICIES.names)


@pytest.mark.parametrize(("name", "policy"), QUICK)
def test_a_few_cells_come_to_what_is_expected(name: str, policy: str) -> None:
    done = explored(policy, name)
    assert done.verdict == EXPECTED[policy][1][FLUSHED.index(name)]
    assert done.coverage.stopped_by == ""


@pytest.mark.slow
@pytest.mark.parametrize("policy", EXPECTED)
def test_every_cell_comes_to_what_is_expected_and_is_explored_to_its_end(policy: str) -> None:
    found = [explored(policy, name) for name in FLUSHED]
    assert tuple(done.verdict for done in found) == EXPECTED[policy][1]
    assert {done.coverage.stopped_by for done in found} == {""}


def test_the_replay_of_a_cell_shows_its_verdict() -> None:
    done = explored("release-before-flush", "flush-sleeper")
    program, *words = shlex.split(done.replay)
    again = hvolab(*words)
    assert (program, again.status) == ("hvolab", 1)
    assert FREED in again.out


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
