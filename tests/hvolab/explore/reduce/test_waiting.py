"""Who has to wait at a state, and who comes first behind it."""

from __future__ import annotations

from collections.abc import Set

import pytest
from small_setups import config_of

from emu.choice import Choice, Defaults, Step, TakeInterrupt
from emu.cpu.condition import Word, WordIs
from emu.cpu.cpu import KernelThread
from emu.cpu.ops import AddWords, Await, SendIpi, SetInterrupts
from hvolab.explore.footprint.conflict import NOTHING
from hvolab.explore.footprint.recorder import Recorder
from hvolab.explore.footprint.tables import Tables
from hvolab.explore.reduce.waiting import InTheWay, come_first, may_never_come, waiting_at
from hvolab.explore.states.visits import Made
from hvolab.judge.sight.resource import Kind, Resource, Touched
from kernel_model.boot import boot
from kernel_model.core.smp import CALL_FUNCTION_VECTOR, SyncCore

GO = Word("go")
CONTEXT = {number: Resource(Kind.CONTEXT, number) for number in range(2)}
PENDING, FLAG = Resource(Kind.IPI, 1), Resource(Kind.INTERRUPT_FLAG, 1)
NONE_PENDING = {1: ({Resource(Kind.IPI, 0)},), 3: ({PENDING},)}


async def sends() -> None:
    await SendIpi(frozenset({1}), CALL_FUNCTION_VECTOR, SyncCore())
    await AddWords(((GO, 1),))


async def waits() -> None:
    await SetInterrupts(False)
    await SetInterrupts(True)
    await Await(WordIs(GO, 1))


def after(*choices: Choice) -> InTheWay:
    machine = boot(config_of()).machine
    recorder = Recorder(machine, Tables(machine.memory, machine.cpus[0].mmu.model))
    for cpu, routine in enumerate((sends, waits)):
        machine.start(cpu, KernelThread(f"t{cpu}", routine))
    for choice in choices:
        recorder.before(choice)
        machine.perform(choice, Defaults())
        recorder.after(choice)
    return waiting_at(machine, recorder)


OFF, ON = Step(1), Step(1)


@pytest.mark.parametrize(
    ("choices", "waiting"),
    [
        ((), NONE_PENDING),
        ((OFF,), {1: NONE_PENDING[1], 3: ({PENDING}, {FLAG})}),
        ((OFF, Step(0)), {1: NONE_PENDING[1], 3: ({FLAG},)}),
        ((Step(0),), {1: NONE_PENDING[1]}),
        ((Step(0), TakeInterrupt(1)), NONE_PENDING),
        ((OFF, ON), {2: ({CONTEXT[1], GO},), **NONE_PENDING}),
        ((OFF, ON, Step(0), Step(0)), {1: NONE_PENDING[1]}),
    ],
    ids=["nobody", "flag off", "off and pending", "pending", "taken", "a word", "all there"],
)
def test_who_waits_and_for_what(choices: tuple[Choice, ...], waiting: InTheWay) -> None:
    assert after(*choices) == waiting


def writes(process: int, *some: Touched) -> Made:
    return Made(process, NOTHING._replace(writes=frozenset(some)), ())


@pytest.mark.parametrize(
    ("waiting", "behind", "first"),
    [
        ({3: ({PENDING},)}, [writes(0, PENDING), writes(3, PENDING)], {3: {0}}),
        ({3: ({PENDING},)}, [writes(0, PENDING), writes(2, PENDING)], {3: set()}),
        ({3: ({PENDING}, {FLAG})}, [writes(0, PENDING), writes(2, FLAG)], {3: {0, 2}}),
        ({3: ({PENDING},)}, [writes(0, GO)], {3: set()}),  # it never comes
        ({3: ({PENDING},), 0: ({GO},)}, [writes(0, PENDING), writes(2, GO)], {3: {0, 2}, 0: {2}}),
        # Each lets the other go on: none of them ever does.
        ({0: ({GO},), 2: ({FLAG},)}, [writes(0, FLAG), writes(2, GO)], {0: {0, 2}, 2: {0, 2}}),
    ],
)
def test_who_comes_first(waiting: InTheWay, behind: list[Made], first: dict[int, Set[int]]) -> None:
    assert come_first(waiting, behind) == first


def test_an_interrupt_that_never_came_is_not_taken_for_more() -> None:
    assert not may_never_come(Made(3, NOTHING, ((PENDING, 1), (FLAG, 1))))
    assert not may_never_come(Made(0, NOTHING, ()))
    assert may_never_come(Made(0, NOTHING, ((GO, 1),)))
