"""The static key: a count, and code patched on every CPU when it leaves or reaches 0."""

from __future__ import annotations

import pytest
from hvo_lab import KEY, MIB, Lab

from emu.addr import VirtAddr
from emu.choice import Step, TakeInterrupt
from emu.cpu.ops import Load, SetInterrupts
from emu.events import IpiAcknowledged, IpiSent
from kernel_model.boot import BootConfig
from kernel_model.core.smp import CALL_FUNCTION_VECTOR, SyncCore


def small(cpus: int = 4) -> Lab:
    return Lab(BootConfig(16 * MIB, cpus, ()))


def inc(lab: Lab, cpu: int = 0) -> None:
    lab.call(lab.kernel.key.static_branch_inc, cpu)


def dec(lab: Lab, cpu: int = 0) -> None:
    lab.call(lab.kernel.key.static_branch_dec, cpu)


def interrupted(lab: Lab) -> list[tuple[int, ...]]:
    """The CPUs each interrupt request since the mark was for."""
    sent = lab.seen(IpiSent)
    assert {(event.vector, event.payload) for event in sent} <= {(CALL_FUNCTION_VECTOR, SyncCore())}
    return [event.targets for event in sent]


def test_the_first_inc_and_the_last_dec_interrupt_everyone_else() -> None:
    lab = small()
    lab.mark()
    inc(lab, cpu=2)
    assert interrupted(lab) == [(0, 1, 3)]
    lab.mark()
    inc(lab)
    dec(lab)
    assert interrupted(lab) == []
    dec(lab, cpu=1)
    assert interrupted(lab) == [(0, 2, 3)]


def test_the_count_is_the_word_in_memory() -> None:
    lab = small()
    seen = []
    for step in (inc, inc, dec, inc, dec, dec):
        step(lab)
        seen.append((lab.key(), lab.call(lab.kernel.key.enabled)))
    assert seen == [(1, True), (2, True), (1, True), (2, True), (1, True), (0, False)]


def test_the_key_orders_code_and_flushes_no_tlb() -> None:
    lab = small()
    lab.call(lambda: _read(KEY), cpu=1)
    held = lab.machine.cpus[1].mmu.tlb.entries()
    lab.mark()
    inc(lab)
    assert lab.invalidations(1) == []
    assert lab.machine.cpus[1].mmu.tlb.entries() == held


async def _read(va: int) -> None:
    await Load(VirtAddr(va))


@pytest.mark.parametrize("which", ["inc", "dec"])
def test_it_returns_only_when_every_cpu_has_acknowledged(which: str) -> None:
    lab = small(cpus=3)
    if which == "dec":
        inc(lab)
    lab.mark()
    key = lab.kernel.key
    call = lab.start(key.static_branch_inc if which == "inc" else key.static_branch_dec)
    while Step(0) in lab.machine.enabled():
        lab.perform(Step(0))
    # The count has moved, which readers may see; the caller waits.
    assert lab.key() == (1 if which == "inc" else 0)
    for cpu in (1, 2):
        assert not call.returned
        assert Step(0) not in lab.machine.enabled()
        lab.perform(TakeInterrupt(cpu))
    lab.run()
    assert call.returned
    assert [event.cpu for event in lab.seen(IpiAcknowledged)] == [1, 2]


def test_a_cpu_with_interrupts_off_holds_it_up() -> None:
    lab = small(cpus=2)

    async def off_for_a_while() -> None:
        await SetInterrupts(False)
        await Load(VirtAddr(KEY))
        await SetInterrupts(True)

    lab.start(off_for_a_while, cpu=1)
    lab.perform(Step(1))
    call = lab.start(lab.kernel.key.static_branch_inc)
    while Step(0) in lab.machine.enabled():
        lab.perform(Step(0))
    assert lab.machine.enabled() == [Step(1)]
    lab.perform(Step(1))
    assert lab.machine.enabled() == [Step(1)]
    lab.perform(Step(1))
    assert TakeInterrupt(1) in lab.machine.enabled()
    lab.run()
    assert call.returned


def test_a_second_inc_does_not_return_before_the_code_is_patched() -> None:
    """Else it would go on to remap while some CPU does not look for fake heads yet."""
    lab = small(cpus=3)
    first = lab.start(lab.kernel.key.static_branch_inc, cpu=0)
    while Step(0) in lab.machine.enabled():
        lab.perform(Step(0))
    second = lab.start(lab.kernel.key.static_branch_inc, cpu=1)
    while Step(1) in lab.machine.enabled():
        lab.perform(Step(1))
    lab.perform(TakeInterrupt(1))
    assert not first.returned
    assert not second.returned
    assert lab.machine.enabled() == [TakeInterrupt(2)]
    lab.run()
    assert lab.key() == 2
    assert interrupted(lab) == [(1, 2)]


def test_alone_on_the_machine() -> None:
    lab = small(cpus=1)
    inc(lab)
    dec(lab)
    assert interrupted(lab) == [(), ()]
    assert lab.key() == 0
