"""An answer that comes too early, and the one who may be asked to pay for it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hvolab.catalog import scenario
from hvolab.explore.budget import Budget
from hvolab.explore.explorer import Exploration, explore
from hvolab.explore.reduce.dpor import Reduced
from hvolab.explore.search.depth_first import everything
from hvolab.explore.search.interface import Freedom, Strategy
from hvolab.judge.verdict import Verdict
from kernel_model.flush.broken import EARLY_ACK
from kernel_model.flush.policy import NamedPolicy
from kernel_model.flush.upstream import UPSTREAM

FREE = frozenset({Freedom.SCHEDULE, Freedom.IRQ, Freedom.TLB})


def explored(policy: NamedPolicy, strategy: Strategy, budget: Budget = Budget()) -> Exploration:  # noqa: B008
    setup = scenario("nmi-walker").build(2)
    return explore(replace(setup, boot=replace(setup.boot, policy=policy)), strategy, FREE, budget)


@pytest.mark.parametrize(
    ("policy", "verdicts"), [(UPSTREAM, set[Verdict]()), (EARLY_ACK, {Verdict.MISSED_FLUSH})]
)
def test_who_answers_before_it_has_flushed_uses_what_is_freed_meanwhile(
    policy: NamedPolicy, verdicts: set[Verdict]
) -> None:
    done = explored(policy, Reduced())
    assert done.coverage.complete
    assert {one.finding.verdict for one in done.found} == verdicts
    assert {one.finding.where.cpu for one in done.found} <= {1}
    assert {one.finding.where.code for one in done.found} <= {"_reads_a_tail"}


def test_the_first_runs_of_the_unreduced_search_show_nothing_that_the_reduced_one_does_not() -> None:
    whole = {one.finding.where for one in explored(EARLY_ACK, Reduced()).found}
    some = {one.finding.where for one in explored(EARLY_ACK, everything(), Budget(runs=300)).found}
    assert some <= whole


def test_without_interrupts_of_its_own_choosing_no_nmi_comes() -> None:
    setup = scenario("nmi-walker").build(2)
    setup = replace(setup, boot=replace(setup.boot, policy=EARLY_ACK))
    done = explore(setup, everything(), frozenset({Freedom.TLB}), Budget(runs=50))
    assert not done.found
