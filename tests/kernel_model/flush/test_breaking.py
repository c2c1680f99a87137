"""Break-before-make: in which order, under which lock, and what the page-fault handler does meanwhile."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hvo_lab import PAGE, Deadlock, Lab, lab_2m

from emu.choice import Step
from emu.cpu.ops import Load
from emu.events import Annotated, BroadcastCompleted, BroadcastSent, Faulted, Loaded, MachineEvent, Stored
from emu.paging.models import LAZY
from emu.paging.pte import Pte
from kernel_model.core.events import FlushBegun, FlushCompleted, Oops, SpuriousFault
from kernel_model.core.sites import FlushSite
from kernel_model.flush.breaking import BBM, BBM_BY_INTERRUPT, BBM_UNLOCKED_LOOK, BROKEN
from kernel_model.flush.policy import NamedPolicy


def lab_with(policy: NamedPolicy) -> Lab:
    return lab_2m(cpus=2, policy=policy, model=LAZY)


def optimize(lab: Lab) -> None:
    huge = lab.config.huge_pages[0]
    lab.call(lambda: lab.kernel.hvo.hugetlb_vmemmap_optimize_folio(huge.hstate, huge.folio))


def test_every_entry_is_cleared_flushed_and_only_then_made() -> None:
    lab = lab_with(BBM)
    optimize(lab)
    order = []
    assert lab.events
    for event in lab.events:
        match event:
            case Stored(site=site) if str(site) in ("pmd_clear", "pte_clear"):
                order.append("clear")
            case Stored(site=site) if str(site) in ("pmd_populate_kernel", "set_pte_at"):
                order.append("make")
            case BroadcastSent():
                order.append("send")
            case BroadcastCompleted():
                order.append("wait")
            case Annotated(payload=FlushBegun(site=site)):
                assert site is FlushSite.ELSEWHERE
                order.append("begin")
            case Annotated(payload=FlushCompleted()):
                order.append("rely")
            case _:
                pass
    once = ["clear", "begin", "send", "wait", "rely", "make"]
    assert order == once * 9, "the PMD, and eight pages"
    assert lab.machine.words[BROKEN] == 0


def test_nothing_is_left_to_be_flushed_where_linux_would() -> None:
    lab = lab_with(BBM)
    optimize(lab)
    sizes = [(one.end - one.start) // PAGE for one in lab.heard(FlushBegun)]
    assert sizes == [512, *[1] * 8]


def test_flush_tlb_all_of_somebody_else_is_one() -> None:
    lab = lab_with(BBM)
    lab.call(lab.kernel.flush.flush_tlb_all)
    assert len(lab.heard(FlushCompleted)) == 1


def stored_by(name: str) -> Callable[[MachineEvent], bool]:
    return lambda event: isinstance(event, Stored) and str(event.site) == name


def in_the_gap(policy: NamedPolicy) -> Lab:
    """CPU 0 has cleared the PMD of what CPU 1 loads then, and CPU 1 has faulted and waits."""
    lab = lab_with(policy)
    huge = lab.config.huge_pages[0]
    lab.start(lambda: lab.kernel.hvo.hugetlb_vmemmap_optimize_folio(huge.hstate, huge.folio), 0)

    async def loads() -> None:
        await Load(huge.folio)

    while not any(map(stored_by("pmd_clear"), lab.events)):
        enabled = lab.machine.enabled()
        lab.perform(Step(0) if Step(0) in enabled else enabled[0])  # the key's interrupt is answered first
    lab.start(loads, 1)
    while Step(1) in lab.machine.enabled():
        lab.perform(Step(1))
    assert len(lab.seen(Faulted)) == 1
    assert str(BROKEN) in lab.machine.blocked()[1]
    return lab


@pytest.mark.parametrize("policy", [BBM, BBM_UNLOCKED_LOOK], ids=lambda one: one.name)
def test_who_faults_in_the_gap_waits_until_the_entry_is_made_and_goes_on(policy: NamedPolicy) -> None:
    lab = in_the_gap(policy)
    while Step(1) not in lab.machine.enabled():
        lab.perform(Step(0))
    lab.run(pick=lambda enabled: enabled[-1])
    assert (lab.heard(Oops), len(lab.heard(SpuriousFault))) == ([], 1)
    assert [event.va for event in lab.seen(Loaded) if event.cpu == 1][-1] == lab.config.huge_pages[0].folio


def gap_after_gap(policy: NamedPolicy) -> Lab:
    """CPU 1 has waited for the gap of the PMD; before it looks CPU 0 breaks the head's page, if it can."""
    lab = in_the_gap(policy)
    while Step(1) not in lab.machine.enabled():
        lab.perform(Step(0))
    lab.perform(Step(1))
    while Step(0) in lab.machine.enabled() and not any(map(stored_by("pte_clear"), lab.events)):
        lab.perform(Step(0))
    while Step(1) in lab.machine.enabled() and not lab.heard(Oops, SpuriousFault):
        lab.perform(Step(1))
    return lab


def test_who_looks_without_the_lock_may_look_into_the_next_gap() -> None:
    assert [type(one) for one in gap_after_gap(BBM_UNLOCKED_LOOK).heard(Oops, SpuriousFault)] == [Oops]
    assert [type(one) for one in gap_after_gap(BBM).heard(Oops, SpuriousFault)] == [SpuriousFault]


def test_who_is_to_answer_an_interrupt_and_waits_in_the_handler_never_does() -> None:
    lab = in_the_gap(BBM_BY_INTERRUPT)
    with pytest.raises(Deadlock):
        lab.run()
    assert set(lab.machine.blocked()) == {0, 1}


def test_a_present_entry_of_the_gap_is_none() -> None:
    lab = lab_with(BBM)
    optimize(lab)
    made = [Pte(event.value) for event in lab.seen(Stored) if str(event.site) == "set_pte_at"]
    assert len(made) == 8
    assert all(entry.present for entry in made)
