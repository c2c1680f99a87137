"""Function calls on other CPUs by interrupt: what is asked, and the handler that does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, assert_never

from emu.addr import VirtAddr
from emu.cpu.condition import Acknowledged
from emu.cpu.ops import Acknowledge, Await, FlushTlb, FlushTlbPages, SendIpi

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


RemoteCall: TypeAlias = FlushEverything | FlushPages | SyncCore


async def run_here(call: RemoteCall) -> None:
    """The function itself, on this CPU."""
    match call:
        case FlushEverything():
            await FlushTlb()
        case FlushPages(start=start, pages=pages):
            await FlushTlbPages(start, pages)
        case SyncCore():
            pass
        case _:
            assert_never(call)


async def smp_call_interrupt(request: int, payload: object) -> None:
    """The handler of CALL_FUNCTION_VECTOR: run the function, then acknowledge."""
    if not isinstance(payload, FlushEverything | FlushPages | SyncCore):
        raise TypeError(f"vector {CALL_FUNCTION_VECTOR:#x} was sent {payload!r}")
    await run_here(payload)
    await Acknowledge(request)


async def on_each_cpu(targets: frozenset[int], call: RemoteCall) -> None:
    """Rule L1: send to the others, run it here, then wait for all."""
    request = await SendIpi(targets, CALL_FUNCTION_VECTOR, call)
    await run_here(call)
    await Await(Acknowledged(request))
