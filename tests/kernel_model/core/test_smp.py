"""Functions called on other CPUs."""

from __future__ import annotations

from collections.abc import Coroutine
from contextlib import suppress

import pytest

from emu.addr import VirtAddr
from emu.cpu.condition import Acknowledged
from emu.cpu.ops import Acknowledge, Await, FlushTlb, FlushTlbPages, SendIpi
from kernel_model.core.smp import (
    CALL_FUNCTION_VECTOR,
    FlushEverything,
    FlushPages,
    RemoteCall,
    SyncCore,
    csd_lock_wait,
    on_each_cpu,
    run_and_acknowledge,
    smp_call_interrupt,
)


def test_the_handler_refuses_what_it_was_not_made_for() -> None:
    routine = smp_call_interrupt(run_and_acknowledge)(7, "flush, please")
    with pytest.raises(TypeError, match="vector 0xfb was sent 'flush, please'"):
        routine.send(None)


def ops_of(routine: Coroutine[object, object, object], *answers: object) -> list[object]:
    """What a routine awaits, each answered in turn, to its end."""
    ops: list[object] = []
    given: object = None
    left = list(answers)
    with suppress(StopIteration):
        while True:
            ops.append(routine.send(given))
            given = left.pop(0) if left else None
    return ops


PAGES = FlushPages(VirtAddr(0x5000), 3)
HERE: list[tuple[RemoteCall, list[object]]] = [
    (FlushEverything(), [FlushTlb()]),
    (PAGES, [FlushTlbPages(VirtAddr(0x5000), 3)]),
    (SyncCore(), []),
]


@pytest.mark.parametrize(("call", "ops"), HERE, ids=lambda value: type(value).__name__)
def test_who_calls_sends_first_then_does_it_itself_then_waits_for_all(
    call: RemoteCall, ops: list[object]
) -> None:
    targets = frozenset({1, 2})

    async def both() -> None:
        await csd_lock_wait(await on_each_cpu(targets, call))

    made = ops_of(both(), 7)
    assert made == [SendIpi(targets, CALL_FUNCTION_VECTOR, call), *ops, Await(Acknowledged(7))]


@pytest.mark.parametrize(("call", "ops"), HERE, ids=lambda value: type(value).__name__)
def test_who_is_called_does_it_and_acknowledges_after(call: RemoteCall, ops: list[object]) -> None:
    assert ops_of(smp_call_interrupt(run_and_acknowledge)(7, call)) == [*ops, Acknowledge(7)]
