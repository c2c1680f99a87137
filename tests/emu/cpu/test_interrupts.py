"""Interrupts: who takes them when, in how many steps, and who waits for whom."""

from __future__ import annotations

import pytest
from machine_programs import X, Y, atomic, one_load, stepwise
from machine_rig import FLUSH, MachineRig
from paging_rig import PAGE, VA

from emu.addr import VirtAddr
from emu.choice import Question, Step, TakeInterrupt
from emu.cpu.apic import LOCAL_TIMER_VECTOR
from emu.cpu.condition import Acknowledged, WordIs
from emu.cpu.execute import Blocked, OpRefused
from emu.cpu.ops import (
    Acknowledge,
    AddWords,
    Await,
    FlushTlbPages,
    Load,
    NeedTick,
    SendIpi,
    SetInterrupts,
    Store,
    ThisCpu,
)
from emu.cpu.routine import ContextKilled
from emu.events import (
    Finished,
    InterruptSite,
    Invalidated,
    IpiAcknowledged,
    IpiSent,
    IpiTaken,
    Loaded,
    RoutineSite,
    Stored,
    TickNeeded,
    TickTaken,
)
from emu.paging.tlb import Invlpg


async def shooting_down() -> None:
    request = await SendIpi(frozenset({1}), FLUSH, "payload")
    await Await(Acknowledged(request))
    await Store(VA, 1)


def test_the_sender_waits_until_every_target_has_acknowledged() -> None:
    rig = MachineRig(3, interrupts={FLUSH: atomic()})

    async def sender() -> None:
        request = await SendIpi(frozenset({1, 2}), FLUSH)
        await Await(Acknowledged(request))

    rig.thread(0, sender)
    rig.step(0)
    assert rig.enabled() == [TakeInterrupt(1), TakeInterrupt(2)]
    assert rig.machine.blocked() == {0: "request 0 is acknowledged by all"}
    rig.interrupt(2)
    assert rig.enabled() == [TakeInterrupt(1)]
    rig.interrupt(1)
    assert rig.enabled() == [Step(0)]
    assert rig.machine.blocked() == {}
    rig.step(0)
    assert not rig.machine.busy


def test_an_atomic_handler_is_one_step_with_its_events_in_order() -> None:
    rig = MachineRig(2, interrupts={FLUSH: atomic()})
    rig.thread(0, shooting_down)
    rig.step(0)
    del rig.events[:]
    rig.interrupt(1)
    assert rig.events == [
        IpiTaken(1, 0, FLUSH),
        Invalidated(1, Invlpg(VA, 0, 1)),
        IpiAcknowledged(1, 0),
    ]


def test_a_handler_is_given_the_request_and_its_payload() -> None:
    given_to = []

    async def handler(request: int, payload: object) -> None:
        given_to.append((request, payload, await ThisCpu()))
        await Acknowledge(request)

    rig = MachineRig(2, interrupts={FLUSH: atomic(handler)})
    rig.thread(0, shooting_down)
    rig.run()
    assert given_to == [(0, "payload", 1)]
    assert rig.told(IpiSent) == [IpiSent(0, RoutineSite(("shooting_down",)), 0, (1,), FLUSH, "payload")]


def test_what_an_atomic_handler_does_to_memory_has_its_own_site() -> None:
    async def handler(request: int, payload: object) -> None:
        await Store(VA, await Load(VA) + 1)
        await Acknowledge(request)

    rig = MachineRig(2, interrupts={FLUSH: atomic(handler)})
    rig.thread(0, shooting_down)
    rig.step(0)
    rig.interrupt(1)
    assert rig.told(Stored)[0].site == InterruptSite(FLUSH)
    assert str(InterruptSite(FLUSH)) == "interrupt 0xfd"
    assert rig.word() == 1


def test_a_stepwise_handler_is_a_context_of_its_own_above_what_runs() -> None:
    rig = MachineRig(2, interrupts={FLUSH: stepwise()})
    rig.thread(0, shooting_down)
    rig.thread(1, one_load)
    rig.step(0)
    rig.interrupt(1)
    assert [type(event) for event in rig.events][-1] is IpiTaken
    assert not rig.machine.cpus[1].interrupts_enabled
    rig.step(1)
    assert rig.told(Invalidated) == [Invalidated(1, Invlpg(VA, 0, 1))]
    assert rig.told(IpiAcknowledged) == []
    assert rig.told(Loaded) == []
    rig.step(1)
    assert rig.told(IpiAcknowledged) == [IpiAcknowledged(1, 0)]
    assert rig.machine.cpus[1].interrupts_enabled
    rig.step(1)
    assert len(rig.told(Loaded)) == 1


def test_a_thread_started_while_an_idle_cpu_handles_an_interrupt_runs_after_it() -> None:
    rig = MachineRig(2, interrupts={FLUSH: stepwise()})
    rig.thread(0, shooting_down)
    rig.step(0)
    rig.interrupt(1)
    rig.thread(1, one_load, "late")
    rig.run()
    assert Finished(1, "late", killed=False) in rig.events


def test_a_stepwise_handler_may_wait() -> None:
    async def handler(request: int, payload: object) -> None:
        await Await(WordIs(X, 1))
        await Acknowledge(request)

    rig = MachineRig(3, interrupts={FLUSH: stepwise(handler)})

    async def releasing() -> None:
        await AddWords(((X, 1),))

    rig.thread(0, shooting_down)
    rig.thread(2, releasing)
    rig.step(0)
    rig.interrupt(1)
    assert rig.enabled() == [Step(2)]
    assert rig.machine.blocked() == {0: "request 0 is acknowledged by all", 1: "x = 1"}
    rig.run()
    assert rig.word() == 1


def test_an_atomic_handler_that_waits_is_an_error_that_says_for_what() -> None:
    async def handler(request: int, payload: object) -> None:
        await Await(WordIs(Y, 1))

    rig = MachineRig(2, interrupts={FLUSH: atomic(handler)})
    rig.thread(0, shooting_down)
    rig.step(0)
    with pytest.raises(Blocked, match=r"^an atomic handler of vector 0xfd waits for y\[3\] = 1$"):
        rig.interrupt(1)


def test_an_atomic_handler_whose_access_faults_is_an_error_that_says_where() -> None:
    async def handler(request: int, payload: object) -> None:
        await Load(VirtAddr(VA + 99 * PAGE))

    rig = MachineRig(2, interrupts={FLUSH: atomic(handler)})
    rig.thread(0, shooting_down)
    rig.step(0)
    with pytest.raises(OpRefused, match=str(VA + 99 * PAGE)):
        rig.interrupt(1)


def test_an_atomic_handler_that_is_killed_is_recorded_like_any_context() -> None:
    async def handler(request: int, payload: object) -> None:
        await FlushTlbPages(VA)
        raise ContextKilled

    rig = MachineRig(2, interrupts={FLUSH: atomic(handler)})
    rig.thread(0, shooting_down)
    rig.thread(1, one_load)
    rig.step(0)
    rig.interrupt(1)
    assert [(event.cpu, event.killed) for event in rig.told(Finished)] == [(1, True)]
    assert rig.machine.is_enabled(Step(1))


def test_a_vector_without_a_handler_is_an_error_that_names_it() -> None:
    rig = MachineRig(2)
    rig.thread(0, shooting_down)
    rig.step(0)
    with pytest.raises(LookupError, match="no handler for vector 0xfd on cpu1"):
        rig.interrupt(1)


def test_with_interrupts_off_no_interrupt_is_taken() -> None:
    rig = MachineRig(2, interrupts={FLUSH: atomic()})

    async def quiet() -> None:
        await SetInterrupts(enabled=False)
        await Load(VA)
        await SetInterrupts(enabled=True)

    rig.thread(0, shooting_down)
    rig.thread(1, quiet)
    rig.step(1)
    rig.step(0)
    assert rig.enabled() == [Step(1)]
    rig.step(1)
    assert rig.enabled() == [Step(1)]
    rig.step(1)
    assert rig.enabled() == [TakeInterrupt(1)]


def test_a_guest_with_interrupts_off_takes_none() -> None:
    rig = MachineRig(2, interrupts={FLUSH: atomic()})
    rig.guest(1, "cli; nop; sti; nop; hlt")
    rig.thread(0, shooting_down)
    rig.step(1)
    rig.step(0)
    assert rig.enabled() == [Step(1)]
    rig.step(1, 2)
    assert rig.enabled() == [Step(1), TakeInterrupt(1)]


def test_a_handler_that_never_acknowledges_is_a_deadlock_and_blocked_says_why() -> None:
    async def handler(request: int, payload: object) -> None:
        await FlushTlbPages(VA)

    rig = MachineRig(2, interrupts={FLUSH: atomic(handler)})
    rig.thread(0, shooting_down)
    rig.run()
    assert rig.enabled() == []
    assert rig.machine.busy
    assert rig.machine.blocked() == {0: "request 0 is acknowledged by all"}
    assert rig.machine.apic.owing(0) == frozenset({1})


def test_two_cpus_that_flush_each_other_take_interrupts_while_they_wait() -> None:
    rig = MachineRig(2, interrupts={FLUSH: atomic()})

    def sender(other: int):
        async def thread() -> None:
            await Await(Acknowledged(await SendIpi(frozenset({other}), FLUSH)))

        return thread

    rig.thread(0, sender(1))
    rig.thread(1, sender(0))
    rig.step(0)
    rig.step(1)
    assert rig.enabled() == [TakeInterrupt(0), TakeInterrupt(1)]
    rig.interrupt(0)
    assert rig.enabled() == [Step(1), TakeInterrupt(1)]
    rig.run()
    assert not rig.machine.busy


def test_two_cpus_that_wait_with_interrupts_off_for_each_other_are_deadlocked() -> None:
    rig = MachineRig(2, interrupts={FLUSH: atomic()})

    def sender(other: int):
        async def thread() -> None:
            await SetInterrupts(enabled=False)
            await Await(Acknowledged(await SendIpi(frozenset({other}), FLUSH)))

        return thread

    for cpu in (0, 1):
        rig.thread(cpu, sender(1 - cpu))
    for cpu in (0, 1):
        rig.step(cpu, 2)
    assert rig.enabled() == []
    assert sorted(rig.machine.blocked()) == [0, 1]


def test_interrupts_are_taken_in_the_order_they_were_sent() -> None:
    taken = []

    async def handler(request: int, payload: object) -> None:
        taken.append(payload)
        await Acknowledge(request)

    rig = MachineRig(3, interrupts={FLUSH: atomic(handler), FLUSH + 1: atomic(handler)})

    def sender(vector: int, payload: str):
        async def thread() -> None:
            await SendIpi(frozenset({2}), vector, payload)

        return thread

    rig.thread(1, sender(FLUSH, "first"))
    rig.thread(0, sender(FLUSH + 1, "second"))
    rig.step(1)
    rig.step(0)
    rig.interrupt(2)
    rig.interrupt(2)
    assert taken == ["first", "second"]


# -- ticks ---------------------------------------------------------------------------------------------


async def tick(request: int, payload: object) -> None:
    await Store(VA, await Load(VA) + 1)


async def needs_one_here_and_there() -> None:
    await NeedTick(frozenset({0, 1}))
    await NeedTick(frozenset({1}))


def test_a_tick_comes_where_there_is_something_to_do_and_once() -> None:
    rig = MachineRig(3, interrupts={LOCAL_TIMER_VECTOR: atomic(tick)})
    rig.thread(0, needs_one_here_and_there)
    rig.step(0, 2)
    assert rig.enabled() == [TakeInterrupt(0), TakeInterrupt(1)]
    rig.run()
    assert rig.told(TickTaken) == [TickTaken(0), TickTaken(1)]
    assert [event.cpus for event in rig.told(TickNeeded)] == [(0, 1), (1,)]
    assert rig.word() == 2


def test_a_tick_waits_until_interrupts_are_on() -> None:
    rig = MachineRig(1, interrupts={LOCAL_TIMER_VECTOR: stepwise(tick)})

    async def masks() -> None:
        await SetInterrupts(enabled=False)
        await NeedTick(frozenset({0}))
        await SetInterrupts(enabled=True)

    rig.thread(0, masks)
    rig.step(0, 2)
    assert rig.enabled() == [Step(0)]
    rig.step(0)
    assert rig.enabled() == [TakeInterrupt(0)]
    rig.interrupt(0)
    assert not rig.machine.cpus[0].interrupts_enabled


class Answers:
    """The same to every question."""

    def __init__(self, answer: int) -> None:
        self.asked: list[Question] = []
        self._answer = answer

    def answer(self, question: Question) -> int:
        self.asked.append(question)
        return self._answer


@pytest.mark.parametrize(("answer", "first"), [(0, IpiTaken(1, 0, FLUSH)), (1, TickTaken(1))])
def test_of_an_interrupt_and_a_tick_either_comes_first(answer: int, first: object) -> None:
    rig = MachineRig(2, interrupts={FLUSH: atomic(), LOCAL_TIMER_VECTOR: atomic(tick)})

    async def asks_for_both() -> None:
        await NeedTick(frozenset({1}))
        await SendIpi(frozenset({1}), FLUSH)

    rig.thread(0, asks_for_both)
    rig.step(0, 2)
    answers = Answers(answer)
    rig.interrupt(1, answers)
    rig.interrupt(1, answers)
    taken = [event for event in rig.events if isinstance(event, IpiTaken | TickTaken)]
    assert (taken[0], len(taken)) == (first, 2)
    assert len(answers.asked) == 1, "the second time there is one left"


def test_a_tick_has_no_request_to_answer() -> None:
    rig = MachineRig(1, interrupts={LOCAL_TIMER_VECTOR: atomic()})

    async def needs_one() -> None:
        await NeedTick(frozenset({0}))

    rig.thread(0, needs_one)
    rig.step(0)
    with pytest.raises(IndexError):
        rig.interrupt(0)
