"""Others stand still while an entry changes: who waits for whom, and who goes on when."""

from __future__ import annotations

import pytest
from hvo_lab import Lab, lab_2m

from emu.choice import Step
from emu.cpu.ops import AddWords, SetInterrupts
from emu.events import BroadcastSent, Invalidated, IpiAcknowledged, IpiSent, IpiTaken, MachineEvent, Stored
from emu.paging.models import LAZY
from kernel_model.core.events import FlushBegun, FlushCompleted
from kernel_model.core.smp import GO, STILL, StandStill, SyncCore
from kernel_model.flush.policy import NamedPolicy
from kernel_model.flush.stopping import PAUSE_REMOTE, STOP_MACHINE, STOPPING

BOTH = pytest.mark.parametrize("policy", [STOP_MACHINE, PAUSE_REMOTE], ids=lambda one: one.name)


def lab_with(policy: NamedPolicy, cpus: int = 3) -> Lab:
    return lab_2m(cpus=cpus, policy=policy, model=LAZY)


def optimize(lab: Lab) -> None:
    huge = lab.config.huge_pages[0]
    lab.call(lambda: lab.kernel.hvo.hugetlb_vmemmap_optimize_folio(huge.hstate, huge.folio))


def changes(event: MachineEvent | None) -> bool:
    return isinstance(event, Stored) and str(event.site) in ("pmd_populate_kernel", "set_pte_at")


@BOTH
def test_an_entry_changes_when_all_others_have_been_interrupted_and_none_has_answered(
    policy: NamedPolicy,
) -> None:
    lab = lab_with(policy)
    optimize(lab)
    stops = [event for event in lab.seen(IpiSent) if isinstance(event.payload, StandStill)]
    assert len(stops) == 9, "the PMD, and eight pages"
    for stop, number in zip(stops, [n for n, event in enumerate(lab.events) if changes(event)], strict=True):
        before = [event for event in lab.events[:number] if getattr(event, "request", None) == stop.request]
        after = [event for event in lab.events[number:] if getattr(event, "request", None) == stop.request]
        assert sorted(type(event).__name__ for event in before) == ["IpiSent", "IpiTaken", "IpiTaken"]
        assert [type(event) for event in after] == [IpiAcknowledged, IpiAcknowledged]
    assert [lab.machine.words[word] for word in (GO, STILL, STOPPING)] == [0, 0, 0]


def test_with_stop_machine_each_flushes_itself_before_it_answers() -> None:
    lab = lab_with(STOP_MACHINE)
    optimize(lab)
    assert lab.seen(BroadcastSent) == []
    for cpu in (1, 2):
        told = [event for event in lab.events if isinstance(event, Invalidated | IpiAcknowledged)]
        kinds = [type(event) for event in told if event.cpu == cpu]
        assert kinds == [IpiAcknowledged, *[Invalidated, IpiAcknowledged] * 9], "after that of the static key"


def test_with_pause_remote_hardware_tells_them_and_they_flush_nothing() -> None:
    lab = lab_with(PAUSE_REMOTE)
    optimize(lab)
    assert len(lab.seen(BroadcastSent)) == 9
    assert lab.seen(Invalidated) == []
    assert {type(event.payload) for event in lab.seen(IpiSent)} == {SyncCore, StandStill}


@BOTH
def test_two_who_stop_the_others_take_turns(policy: NamedPolicy) -> None:
    lab = lab_with(policy, cpus=2)
    huge = lab.config.huge_pages[0]
    for cpu in (0, 1):
        lab.start(lambda: lab.kernel.hvo.hugetlb_vmemmap_split_folio(huge.hstate, huge.folio), cpu)
    lab.run(pick=lambda enabled: enabled[lab.machine.steps % len(enabled)])
    assert [lab.machine.words[word] for word in (GO, STILL, STOPPING)] == [0, 0, 0]


@BOTH
def test_a_flush_of_somebody_else_stops_nobody(policy: NamedPolicy) -> None:
    lab = lab_with(policy)
    lab.call(lab.kernel.flush.flush_tlb_all)
    assert (len(lab.heard(FlushBegun)), len(lab.heard(FlushCompleted))) == (1, 1)
    assert not any(isinstance(event.payload, StandStill) for event in lab.seen(IpiSent))


def test_a_cpu_with_interrupts_off_is_waited_for() -> None:
    lab = lab_with(STOP_MACHINE, cpus=2)

    async def section() -> None:
        await SetInterrupts(enabled=False)
        for _ in range(3):
            await AddWords(())
        await SetInterrupts(enabled=True)

    huge = lab.config.huge_pages[0]
    lab.start(section, 1)
    lab.perform(Step(1))
    lab.start(lambda: lab.kernel.hvo.hugetlb_vmemmap_split_folio(huge.hstate, huge.folio), 0)
    while Step(0) in lab.machine.enabled():
        lab.perform(Step(0))
    assert not any(map(changes, lab.events))
    assert lab.seen(IpiTaken) == []
    lab.run()
    assert any(map(changes, lab.events))
