"""Random programs too long for the unreduced search: remembering states and leaping changes nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from longer_programs import longer
from small_programs import MODELS
from small_setups import Outcomes

from emu.paging.models import LAZY, CpuModel
from hvolab.explore.budget import Budget
from hvolab.explore.explorer import explore
from hvolab.explore.reduce.dpor import Reduced
from hvolab.explore.search.interface import Freedom
from hvolab.explore.states.visits import EVERY_STATE, NO_STATES, Remembers
from hvolab.explore.stretches.lives import Lives

ALL = frozenset(Freedom)
MOST, MORE = Budget(runs=1000), Budget(runs=4000)
BATCHES = range(5)
A_BATCH = 40


def shown(seed: int, model: CpuModel, remembers: Remembers, budget: Budget) -> tuple[object, ...] | None:
    """None where the search has not ended within the budget."""
    outcomes = Outcomes(Reduced(remembers))
    done = explore(longer(seed, model), outcomes, ALL, budget)
    if not done.coverage.complete:
        return None
    findings = {(one.finding.verdict, one.finding.where) for one in done.found}
    return outcomes.seen, findings, done.warnings


def compared(seeds: Iterator[int], model: CpuModel, wanted: int) -> list[int]:
    """The seeds of so many programs that end. All searches have shown the same of each."""
    agreed: list[int] = []
    while len(agreed) < wanted:
        seed = next(seeds)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Lives, "chain", lambda _self, _process: None)
            neither = shown(seed, model, NO_STATES, MOST)
        if neither is None:
            continue
        for remembers in (NO_STATES, EVERY_STATE, Remembers()):
            assert shown(seed, model, remembers, MORE) == neither, (seed, remembers)
        agreed.append(seed)
    return agreed


def test_a_few_longer_programs() -> None:
    assert len(compared(iter(range(1_000)), LAZY, 10)) == 10


@pytest.mark.slow
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_a_thousand_longer_programs(model: CpuModel, batch: int) -> None:
    """200 on each of the five models."""
    seeds = iter(range(1_000 * (batch + 1), 1_000 * (batch + 2)))
    assert len(compared(seeds, model, A_BATCH)) == A_BATCH
