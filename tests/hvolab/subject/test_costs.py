"""What runs cost, counted; variants that are not wrong, only dear."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hvolab.catalog import SCENARIOS, scenario
from hvolab.catalog.common import flush_all, optimize
from hvolab.subject.costs import Costs
from hvolab.subject.outcome import Run
from hvolab.subject.run import run
from hvolab.subject.scenario import Scenario, Setup, with_deviation
from hvolab.subject.script import ScriptPicker
from kernel_model.variants.catalog import FLAGS_AND, VARIANTS
from kernel_model.variants.named import UPSTREAM_HVO, Effect, NamedVariant

DEAR = [(chosen, variant) for chosen in SCENARIOS for variant in chosen.costlier]


def followed(setup: Setup) -> Run:
    return run(setup, lambda system: ScriptPicker(setup.script, system.machine))


def batch(variant: NamedVariant, cpus: int) -> Run:
    return followed(with_deviation(scenario("remap-batch").build(cpus), variant))


def test_every_variant_that_only_costs_has_a_scenario() -> None:
    assert {variant.name for _, variant in DEAR} == {
        one.name for one in VARIANTS if one.effect is Effect.COST
    }


@pytest.mark.parametrize(("chosen", "variant"), DEAR, ids=lambda one: one.name)
def test_nothing_is_wrong_with_a_variant_that_only_costs(chosen: Scenario, variant: NamedVariant) -> None:
    done = followed(with_deviation(chosen.build(2), variant))
    assert done.findings == ()
    assert done.costs != followed(chosen.build(2)).costs


@pytest.mark.parametrize("cpus", [1, 2, 3])
def test_a_batch_waits_once_and_flushes_twice_however_many_pages(cpus: int) -> None:
    """Every CPU empties its TLB twice, all but the first by interrupt; one more interrupt is the key's."""
    others = cpus - 1
    assert batch(UPSTREAM_HVO, cpus).costs == Costs(1, 2, 3 * others, 0, 2 * cpus)


@pytest.mark.parametrize("cpus", [1, 2, 3])
def test_flags_that_are_lost_make_each_page_but_the_first_wait_and_flush(cpus: int) -> None:
    """The second and third folio: a wait each, and a flush of eight pages on every CPU each."""
    others = cpus - 1
    assert batch(FLAGS_AND, cpus).costs == Costs(3, 4, 5 * others, 2 * 8 * cpus, 2 * cpus)


def test_one_page_by_itself_waits_once_flushes_its_split_and_its_eight_pages() -> None:
    setup = scenario("remap-batch").build(2)
    assert followed(replace(setup, actors=(optimize(0),))).costs == Costs(1, 2, 3, 16, 2)
    assert followed(replace(setup, actors=(flush_all(0),))).costs == Costs(0, 1, 1, 0, 2)


def test_costs_in_words() -> None:
    assert str(Costs(1, 2, 0, 1, 1)) == (
        "1 RCU wait, 2 flushes, 0 interrupts taken, 1 INVLPG, 1 whole TLB emptied"
    )
