"""An NMI may come before each op of a handler, and nothing else of the handler changes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from emu.choice import About
from emu.cpu.ops import Acknowledge, Annotate, Decide
from emu.cpu.routine import Code
from kernel_model.core.nmi import Nmi, beset

COMES = Decide("an NMI", about=About.ARRIVAL)


async def _handler(request: int, payload: object) -> None:
    seen = await Annotate(payload)
    await Acknowledge(request + seen)


async def _reads() -> None:
    await Annotate("the NMI")


def ops_of(code: Code, answers: Sequence[int]) -> list[object]:
    """What it awaits. Decisions come out as these answers, in turn, an announcement is event 100."""
    left, ops, given = list(answers), [], None
    try:
        while True:
            op = code.send(given)
            ops.append(op)
            given = left.pop(0) if isinstance(op, Decide) else 100 if isinstance(op, Annotate) else None
    except StopIteration:
        return ops


@pytest.mark.parametrize(
    ("answers", "ops"),
    [
        ([0, 0], [COMES, Annotate("x"), COMES, Acknowledge(107)]),
        ([1, 0], [COMES, Annotate("the NMI"), Annotate("x"), COMES, Acknowledge(107)]),
        ([0, 1], [COMES, Annotate("x"), COMES, Annotate("the NMI"), Acknowledge(107)]),
    ],
)
def test_it_comes_before_any_op_and_the_handler_goes_on_where_it_was(
    answers: list[int], ops: list[object]
) -> None:
    assert ops_of(beset(_handler, Nmi("an NMI", _reads))(7, "x"), answers) == ops


def test_a_handler_that_is_killed_is_closed() -> None:
    closed = []

    async def handler(request: int, payload: object) -> None:
        try:
            await Acknowledge(request)
        finally:
            closed.append(payload)

    code = beset(handler, Nmi("an NMI", _reads))(7, "x")
    code.send(None)
    code.close()
    assert closed == ["x"]
