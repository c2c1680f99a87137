"""The mutation run: each protective step of the port, taken out, is refuted by exploration."""

from __future__ import annotations

from dataclasses import replace

import pytest
from mutants import MUTANTS, Mutant

from hvolab.explore.budget import Budget
from hvolab.explore.explorer import Exploration, explore
from hvolab.explore.reduce.dpor import Reduced
from hvolab.explore.search.interface import Freedom
from hvolab.judge.verdict import Verdict
from kernel_model.flush.upstream import UPSTREAM
from kernel_model.variants.named import UPSTREAM_HVO

ALL = frozenset({Freedom.SCHEDULE, Freedom.IRQ, Freedom.TLB})
REFUTED = [mutant for mutant in MUTANTS if mutant.refuted_by]
# What a mutant does to data that nobody checks yet: an answer about a struct page would show it.
NOT_REACHED = [
    "head mapped before it is copied",
    "restore maps before it copies",
    "tails writable",
]


def explored(mutant: Mutant, runs: int) -> Exploration:
    return explore(mutant.setup(), Reduced(), ALL, Budget(runs=runs))


def violations(done: Exploration) -> set[Verdict]:
    return {one.finding.verdict for one in done.found if one.finding.verdict.is_violation}


def test_at_least_ten_protective_steps_are_covered() -> None:
    assert len(REFUTED) >= 10
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("mutant", REFUTED, ids=lambda mutant: mutant.name)
def test_a_protective_step_taken_out_is_refuted(mutant: Mutant) -> None:
    assert violations(explored(mutant, 60)) & mutant.refuted_by


@pytest.mark.parametrize("mutant", REFUTED, ids=lambda mutant: mutant.name)
def test_the_same_actors_with_the_step_in_place_are_not_refuted(mutant: Mutant) -> None:
    whole = replace(mutant, variant=UPSTREAM_HVO, policy=UPSTREAM)
    assert not violations(explored(whole, 25)) & mutant.refuted_by


def test_those_that_no_scenario_reaches_yet_are_named() -> None:
    assert sorted(mutant.name for mutant in MUTANTS if not mutant.refuted_by) == NOT_REACHED
