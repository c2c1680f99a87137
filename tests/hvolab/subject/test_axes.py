"""The axes of what is run: independent, each by name, and a name belongs to one of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import product

import pytest

from emu.paging.models import (
    LAZY,
    LAZY_ALDER_LAKE,
    LAZY_AMD,
    LAZY_BBM_REQUIRED,
    LAZY_ERRATUM_383,
    LAZY_INVLPGB,
    LAZY_NO_PSC,
    SKYLAKE,
    CpuModel,
)
from hvolab.catalog import SCENARIOS, scenario
from hvolab.catalog.common import HUGE_PAGE, MEMORY_BYTES
from hvolab.subject.axes import (
    BUILT_IN,
    CONFIGURATIONS,
    CPU_MODELS,
    FORMS,
    ORIGINS,
    POLICIES,
    RETIRED,
    VARIANTS,
    Chosen,
    failures_of,
)
from hvolab.subject.fingerprint import fingerprint
from hvolab.subject.names import Table, UnknownName
from hvolab.subject.picker import InOrder
from hvolab.subject.run import run_on
from kernel_model.boot import BootConfig, boot
from kernel_model.flush.broken import LOCAL_ONLY
from kernel_model.flush.policy import NamedPolicy, PolicySetup
from kernel_model.flush.upstream import UPSTREAM, UpstreamFlush
from kernel_model.mm.failures import EachMayFail, FailAt, FailFrom, FailUntilFreed, NoFailures
from kernel_model.variants.catalog import NO_RCU_WAIT

BOOT = BootConfig(MEMORY_BYTES, 2, (HUGE_PAGE,))
TABLES = (FORMS, VARIANTS, POLICIES, CPU_MODELS, CONFIGURATIONS, ORIGINS)


def test_a_name_belongs_to_one_axis_only() -> None:
    names = Counter(name for table in TABLES for name in table.names)
    # Upstream is what each of two axes leaves as it is.
    assert {name for name, count in names.items() if count > 1} == {"upstream"}


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("intel", LAZY),
        ("amd", LAZY_AMD),
        ("amd-invlpgb", LAZY_INVLPGB),
        ("invlpg-spares-globals", LAZY_ALDER_LAKE),
        ("strict-multi-size", LAZY_ERRATUM_383),
        ("bbm-required", LAZY_BBM_REQUIRED),
    ],
)
def test_a_cpu_is_found_by_what_it_is_known_for(name: str, model: CpuModel) -> None:
    assert Chosen(cpu_model=name).apply(BOOT).model is model


def test_every_combination_of_variant_policy_and_model_is_that_and_nothing_else() -> None:
    some = list(
        product(("upstream", "no-rcu-wait", "free-before-flush"), POLICIES.names[:3], CPU_MODELS.names[:3])
    )
    prints = set()
    assert len(some) == 27
    for names in some:
        made = Chosen(variant=names[0], policy=names[1], cpu_model=names[2]).apply(BOOT)
        assert (made.variant.name, made.policy.name, made.model.name) == names
        assert replace(made, variant=BOOT.variant, policy=BOOT.policy, model=BOOT.model) == BOOT
        prints.add(fingerprint(replace(scenario("remap").build(2), boot=made)))
    assert len(prints) == 27


def test_a_deviation_is_watched_on_lazy_cpus_unless_a_model_is_asked_for() -> None:
    assert Chosen(policy="local-only").apply(BOOT).model is LAZY
    assert Chosen(policy="local-only", cpu_model="skylake").apply(BOOT).model is SKYLAKE
    assert Chosen(policy="local-only").apply(replace(BOOT, model=LAZY_NO_PSC)).model is LAZY_NO_PSC
    assert Chosen(config="production").apply(BOOT).model is SKYLAKE


def test_what_is_not_asked_for_stays_as_it_was() -> None:
    assert Chosen().apply(BOOT) == BOOT
    assert Chosen().nothing
    mixed = replace(BOOT, variant=NO_RCU_WAIT, policy=LOCAL_ONLY)
    assert Chosen(config="debug").apply(mixed).policy is LOCAL_ONLY
    assert Chosen(config="debug").apply(mixed).variant is NO_RCU_WAIT


@pytest.mark.parametrize(("name", "option"), RETIRED.items())
def test_a_variant_that_is_another_axis_now_says_its_option(name: str, option: str) -> None:
    with pytest.raises(UnknownName, match=rf"^'{name}' is no variant any more: {option}$"):
        BUILT_IN.variant(name)
    axis, _, new = option.partition(" ")
    assert new in {"--policy": POLICIES, "--cpu-model": CPU_MODELS}[axis]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("local-only", "'local-only' is a flush policy: --policy local-only"),
        ("lazy", "'lazy' is a CPU model: --cpu-model lazy"),
        ("no-rcu-wiat", "there is no variant 'no-rcu-wiat'; did you mean no-rcu-wait?"),
    ],
)
def test_a_name_of_another_axis_or_a_slip_is_answered(name: str, message: str) -> None:
    with pytest.raises(UnknownName) as caught:
        BUILT_IN.variant(name)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "failures"),
    [
        ("none", NoFailures()),
        ("any", EachMayFail()),
        ("at:0", FailAt(frozenset({0}))),
        ("at:2,5,2", FailAt(frozenset({2, 5}))),
        ("from:3", FailFrom(3)),
        ("until-freed:4", FailUntilFreed(4)),
    ],
)
def test_failures_are_chosen_by_name(text: str, failures: object) -> None:
    assert failures_of(text) == failures


@pytest.mark.parametrize(
    "text", ["", "some", "at:", "at:x", "at:1,", "from", "from:-1", "from:12345678", "at:٣"]
)
def test_failures_that_are_none_are_one_line(text: str) -> None:
    with pytest.raises(UnknownName, match=r"there are: none, any, at:N\[,N\.\.\.\], from:N, until-freed:N$"):
        failures_of(text)


def test_two_things_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two of kind policy are called 'upstream'"):
        Table.of("policy", (UPSTREAM, UPSTREAM), lambda one: one.name)


def test_no_two_scenarios_have_one_name() -> None:
    assert len({chosen.name for chosen in SCENARIOS}) == len(SCENARIOS)


class EverySecond(UpstreamFlush):
    """Leaves everybody out of the fourth flush of its life."""

    def __init__(self, setup: PolicySetup) -> None:
        super().__init__(setup)
        self.count = 0

    def targets(self, initiator: int) -> frozenset[int]:
        self.count += 1
        return frozenset() if self.count == 4 else super().targets(initiator)


def test_what_a_policy_remembers_does_not_survive_a_run() -> None:
    """The first and the hundredth run on one system are one run."""
    setup = scenario("stale-read").build(2)
    setup = replace(setup, boot=replace(setup.boot, policy=NamedPolicy("every-second", "", EverySecond)))
    system = boot(setup.boot)
    traces = set()
    for number in range(100):
        events: list[object] = []
        done = run_on(
            system,
            setup,
            lambda _system: InOrder(),
            (lambda _system, kept=events: lambda _n, e: kept.append(e),),
        )
        if number in (0, 1, 99):
            traces.add((str(done.schedule), tuple(map(str, events))))
        system.reset()
    assert len(traces) == 1
