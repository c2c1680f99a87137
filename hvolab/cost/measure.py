"""Reckoning what a policy costs: one run, in which each CPU goes on until it waits."""

from __future__ import annotations

from dataclasses import dataclass

from emu.trace import Listener
from hvolab.cost.clock import Clock, Reckoned
from hvolab.cost.workload import Workload
from hvolab.subject.costs import CostTable
from hvolab.subject.outcome import Completed, Limits
from hvolab.subject.picker import InOrder
from hvolab.subject.run import run
from hvolab.subject.scenario import Setup
from kernel_model.boot import System

_STEPS_A_LOAD = 64  # more than any policy needs that ends
_LEAST_STEPS = 1_000_000


class NoEnd(ValueError):
    """The run did not come to its end, so there is nothing to reckon. One line."""


@dataclass(frozen=True, slots=True)
class CostRow:
    """A policy, and what the workload cost under it. `wrong`: there was a violation in that very run."""

    policy: str
    workload: Workload
    reckoned: Reckoned
    wrong: bool = False


def reckon(setup: Setup, workload: Workload, table: CostTable) -> CostRow:
    """The workload, set up under a policy. Raises NoEnd, and LoadError for what a policy's code did wrong."""
    policy = setup.boot.policy.name
    clocks: list[Clock] = []

    def listener(system: System) -> Listener:
        clocks.append(Clock(system.machine, table))
        return clocks[-1].observe

    limits = Limits(max(_LEAST_STEPS, _STEPS_A_LOAD * workload.loads))
    done = run(setup, lambda _system: InOrder(), (listener,), limits)
    if not isinstance(done.outcome, Completed):
        where = f"{policy} on {workload.cpus} CPUs, {workload.folios} in a batch"
        raise NoEnd(f"{where}: {done.outcome}")
    return CostRow(policy, workload, clocks[0].reckoned, done.wrong)
