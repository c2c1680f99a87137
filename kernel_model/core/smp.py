"""Function calls on other CPUs by interrupt: what is asked, and the handler that does it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TypeAlias, assert_never

from emu.addr import VirtAddr
from emu.cpu.condition import Acknowledged, Word, WordIs
from emu.cpu.ops import Acknowledge, AddWords, Await, FlushTlb, FlushTlbPages, SendIpi
from emu.cpu.routine import Code

CALL_FUNCTION_VECTOR = 0xFB


@dataclass(frozen=True, slots=True)
class FlushEverything:
    """__flush_tlb_all()"""


@dataclass(frozen=True, slots=True)
class FlushPages:
    """flush_tlb_one_kernel() for each of `pages` 4 KiB pages from `start`."""

    start: VirtAddr
    pages: int


@dataclass(frozen=True, slots=True)
class SyncCore:
    """Serialize the instruction stream after code was patched (text_poke_sync)."""


@dataclass(frozen=True, slots=True)
class StandStill:
    """multi_cpu_stop(): do nothing else until GO, and then that."""

    then: FlushEverything | FlushPages | SyncCore


STILL = Word("CPUs that stand still")
GO = Word("they may go on")
RemoteCall: TypeAlias = FlushEverything | FlushPages | SyncCore | StandStill


async def run_here(call: RemoteCall) -> None:
    """The function itself, on this CPU."""
    match call:
        case FlushEverything():
            await FlushTlb()
        case FlushPages(start=start, pages=pages):
            await FlushTlbPages(start, pages)
        case SyncCore():
            pass
        case StandStill(then=then):
            await AddWords(((STILL, 1),))
            await Await(WordIs(GO, 1))
            await run_here(then)
        case _:
            assert_never(call)


Receive: TypeAlias = Callable[[int, RemoteCall], Coroutine[object, None, None]]
"""What a CPU does that was interrupted for such a request: it is to acknowledge that."""


async def run_and_acknowledge(request: int, call: RemoteCall) -> None:
    """generic_smp_call_function_single_interrupt(): the function first."""
    await run_here(call)
    await Acknowledge(request)


def smp_call_interrupt(receive: Receive) -> Callable[[int, object], Code]:
    """The handler of CALL_FUNCTION_VECTOR. `receive` is asked about flushes."""

    async def smp_call_interrupt(request: int, payload: object) -> None:
        match payload:
            case FlushEverything() | FlushPages():
                await receive(request, payload)
            case SyncCore() | StandStill():
                await run_and_acknowledge(request, payload)
            case _:
                raise TypeError(f"vector {CALL_FUNCTION_VECTOR:#x} was sent {payload!r}")

    return smp_call_interrupt


async def on_each_cpu(targets: frozenset[int], call: RemoteCall) -> int:
    """Rule L1: send to the others, and run it here. Returns the request, for csd_lock_wait()."""
    request = await SendIpi(targets, CALL_FUNCTION_VECTOR, call)
    await run_here(call)
    return request


async def csd_lock_wait(request: int) -> None:
    """Wait for all that it was sent to."""
    await Await(Acknowledged(request))
