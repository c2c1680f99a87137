"""Handles: how a routine names what it has announced or sent, whatever number that has in this run.

The n-th thing that a routine announces or sends is n to it, in every run in which its ops have had the same
results. An interrupt handler has one to begin with: 0 is the request that it was called for. What a routine
asks for by a handle says the number before anybody else sees it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Protocol, assert_never

from emu.cpu.condition import Acknowledged, AllOf, Condition, EachOnce, InterruptsOn, MemoryIs, Plain, WordIs
from emu.cpu.ops import Acknowledge, Annotate, Await, Op, Refers

CALLED_FOR = 0


class EventNumber(int):
    """What a handle of an announcement stands for; that of a request stands for a request's number."""


class Names(Protocol):
    """What announcements and requests are called, whatever numbers they have in this run."""

    def of_event(self, number: int) -> Hashable: ...

    def of_request(self, number: int) -> Hashable: ...


def numbered(op: Op, numbers: Sequence[int]) -> Op:
    """The op with numbers for its handles. Raises IndexError for a handle that was never given out."""
    match op:
        case Annotate(payload=Refers() as payload):
            return Annotate(payload.numbered(numbers))
        case Acknowledge(request=request):
            return Acknowledge(numbers[request])
        case Await(condition=condition, then=then):
            return Await(_condition(condition, numbers), then)
        case _:
            return op  # it has no handles


def _condition(condition: Condition, numbers: Sequence[int]) -> Condition:
    if isinstance(condition, EachOnce):
        return EachOnce(tuple(_plain(part, numbers) for part in condition.parts))
    return _plain(condition, numbers)


def _plain(condition: Plain, numbers: Sequence[int]) -> Plain:
    match condition:
        case Acknowledged(request=request):
            return Acknowledged(numbers[request])
        case AllOf(parts=parts):
            return AllOf(tuple(_plain(part, numbers) for part in parts))
        case WordIs() | MemoryIs() | InterruptsOn():
            return condition
        case _:
            assert_never(condition)
