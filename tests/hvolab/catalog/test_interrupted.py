"""An answer that comes too early, one that nobody waits for, and who may be asked to pay for them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from emu.events import Loaded, MachineEvent
from emu.trace import Listener
from hvolab.catalog import scenario
from hvolab.explore.budget import Budget
from hvolab.explore.explorer import Exploration, explore
from hvolab.explore.reduce.dpor import Reduced
from hvolab.explore.search.depth_first import everything
from hvolab.explore.search.interface import Freedom, Strategy
from hvolab.judge.verdict import Verdict
from hvolab.subject.run import run
from hvolab.subject.script import ScriptPicker, ToEnd
from kernel_model.boot import System
from kernel_model.flush.broadcast import INVLPGB
from kernel_model.flush.broken import EARLY_ACK
from kernel_model.flush.policy import NamedPolicy
from kernel_model.flush.upstream import UPSTREAM

FREE = frozenset({Freedom.SCHEDULE, Freedom.IRQ, Freedom.TLB})


def explored(
    policy: NamedPolicy,
    strategy: Strategy,
    budget: Budget = Budget(),  # noqa: B008
    name: str = "nmi-walker",
) -> Exploration:
    setup = scenario(name).build(2)
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


@pytest.mark.parametrize(
    ("policy", "verdicts"),
    [(UPSTREAM, set[Verdict]()), (EARLY_ACK, set[Verdict]()), (INVLPGB, {Verdict.USE_AFTER_FREE})],
    ids=lambda one: getattr(one, "name", ""),
)
def test_who_is_in_a_section_with_interrupts_off_is_waited_for_only_where_it_is_interrupted(
    policy: NamedPolicy, verdicts: set[Verdict]
) -> None:
    done = explored(policy, Reduced(), name="irqs-off-walker")
    assert done.coverage.complete
    assert {one.finding.verdict for one in done.found} == verdicts
    assert {one.finding.where.code for one in done.found} <= {"_looks_up"}


@pytest.mark.parametrize(("first", "frame"), [(1, 0x7F01), (0, 0x4200)])
def test_the_walker_reads_the_frame_that_the_tables_lead_to(first: int, frame: int) -> None:
    setup, seen = scenario("irqs-off-walker").build(2), list[int]()

    def listener(_system: System) -> Listener:
        def note(_number: int, event: MachineEvent) -> None:
            if isinstance(event, Loaded) and str(event.site) == "_looks_up":
                seen.append(event.pa >> 12)

        return note

    script = (ToEnd(first), ToEnd(1 - first))
    run(setup, lambda system: ScriptPicker(script, system.machine), (listener,))
    assert seen == [frame]


def test_without_interrupts_of_its_own_choosing_no_nmi_comes() -> None:
    setup = scenario("nmi-walker").build(2)
    setup = replace(setup, boot=replace(setup.boot, policy=EARLY_ACK))
    done = explore(setup, everything(), frozenset({Freedom.TLB}), Budget(runs=50))
    assert not done.found
