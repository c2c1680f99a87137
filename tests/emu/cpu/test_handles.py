"""A routine's names for what it announced: the same in every run, a number to everybody else."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from machine_programs import one_load
from machine_rig import MachineRig

from emu.addr import PhysAddr
from emu.cpu.condition import Acknowledged, AllOf, EachOnce, InterruptsOn, MemoryIs, Word, WordIs
from emu.cpu.handles import numbered
from emu.cpu.ops import Acknowledge, Annotate, Await, Op, Refers, SendIpi, ThisCpu
from emu.cpu.software import Grain, InterruptHandler
from emu.events import Annotated, IpiAcknowledged

WORD = WordIs(Word("x"), 1)


@dataclass(frozen=True)
class Ended(Refers):
    begun: int


@pytest.mark.parametrize(
    ("op", "said"),
    [
        (Annotate(Ended(1)), Annotate(Ended(20))),
        (Annotate("anything"), Annotate("anything")),
        (Acknowledge(0), Acknowledge(10)),
        (Await(Acknowledged(1), ((Word("x"), 1),)), Await(Acknowledged(20), ((Word("x"), 1),))),
        (
            Await(EachOnce((AllOf((Acknowledged(0), WORD)), InterruptsOn(1), MemoryIs(PhysAddr(8), 0)))),
            Await(EachOnce((AllOf((Acknowledged(10), WORD)), InterruptsOn(1), MemoryIs(PhysAddr(8), 0)))),
        ),
        (ThisCpu(), ThisCpu()),
    ],
)
def test_handles_become_numbers_wherever_they_are(op: Op, said: Op) -> None:
    assert numbered(op, (10, 20)) == said


def test_a_handle_that_was_never_given_out_is_none() -> None:
    with pytest.raises(IndexError):
        numbered(Acknowledge(2), (10, 20))


async def announces() -> list[int]:
    handles = [await Annotate("first"), await Annotate("second")]
    await Annotate(Ended(handles[0]))
    return handles


def test_a_routine_gets_the_same_handles_whatever_happened_before() -> None:
    seen: list[list[int]] = []

    async def thread() -> None:
        seen.append(await announces())

    told = []
    for others in (0, 5):
        rig = MachineRig(2)
        for _ in range(others):
            rig.thread(1, one_load)
            rig.step(1)
        rig.thread(0, thread)
        begun = rig.machine.trace.next_number
        rig.run()
        payloads = [event.payload for event in rig.told(Annotated)]
        told.append([payload.begun - begun for payload in payloads if isinstance(payload, Ended)])
    assert seen == [[0, 1], [0, 1]]
    assert told == [[0], [0]]


@pytest.mark.parametrize("grain", Grain)
def test_a_handler_knows_the_request_that_it_was_called_for(grain: Grain) -> None:
    asked: list[int] = []

    async def handler(request: int, _payload: object) -> None:
        asked.append(request)
        await Annotate("in the handler")
        await Acknowledge(request)

    async def sender() -> None:
        for _ in range(3):
            await Await(Acknowledged(await SendIpi(frozenset({1}), 7)))

    rig = MachineRig(2, interrupts={7: InterruptHandler(handler, grain)})
    rig.thread(0, sender)
    rig.run()
    assert asked == [0, 0, 0]
    assert rig.told(IpiAcknowledged) == [IpiAcknowledged(1, n) for n in range(3)]
    assert not rig.machine.busy
