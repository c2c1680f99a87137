"""One event in words: what happened, without who and where."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import assert_never

from emu.events import (
    Annotated,
    BroadcastCompleted,
    BroadcastSent,
    BusErrorSeen,
    Copied,
    Executed,
    Faulted,
    Filled,
    Finished,
    Invalidated,
    IpiAcknowledged,
    IpiSent,
    IpiTaken,
    Loaded,
    LoadedBytes,
    MachineEvent,
    Marked,
    MultiHitSeen,
    Site,
    Source,
    Started,
    Stored,
    TickNeeded,
    TickTaken,
    TlbFilled,
    Trapped,
)
from hvolab.judge.describe import of_the_kernel
from kernel_model.core.events import FlushBegun, FlushCompleted, FlushesSettled, OperationReturned, PageFreed

MOST_FUNCTIONS = 4


def in_words(event: MachineEvent) -> str:
    """A line of any length."""
    match event:
        case Loaded():
            return f"loads {event.size} bytes at {event.va:#x}: {event.value:#x}, {_by(event.source)}"
        case Stored():
            change = f"{event.old:#x} -> {event.value:#x}"
            return f"stores {event.size} bytes at {event.va:#x}: {change}, {_by(event.source)}"
        case Copied():
            return f"copies {event.length} bytes from {event.source_va:#x} to {event.to:#x}"
        case LoadedBytes():
            return f"reads {event.length} bytes at {event.va:#x}"
        case Filled():
            return f"writes {event.length} bytes at {event.va:#x}"
        case TlbFilled(va=va, entry=entry):
            return f"walks for {va:#x}: {entry}"
        case Marked(pa=pa, old=old):
            return f"the walk sets A or D at {pa:#x}, which held {old:#x}"
        case MultiHitSeen(va=va, sizes=sizes):
            return f"may use entries of {' and '.join(map(str, sizes))} for {va:#x}"
        case Invalidated(what=what):
            return f"invalidates: {what}"
        case BroadcastSent(what=what):
            return f"INVLPGB: all CPUs are to carry out {what}"
        case BroadcastCompleted(begun=begun):
            return (
                f"TLBSYNC: all CPUs have carried out those of events {', '.join(map(str, begun)) or 'none'}"
            )
        case Faulted(fault=fault):
            return f"#PF error code {int(fault.code)} at {fault.va:#x}"
        case BusErrorSeen(va=va, pa=pa):
            return f"is led to {pa:#x}, where there is no memory, at {va:#x}"
        case Trapped(vector=vector):
            return f"exception {vector}"
        case IpiSent(targets=targets, payload=payload):
            return f"interrupts cpu{', cpu'.join(map(str, targets)) or ' nobody'}: {payload}"
        case IpiTaken(vector=vector):
            return f"takes interrupt {vector:#x}"
        case IpiAcknowledged(request=request):
            return f"acknowledges request {request}"
        case TickNeeded(cpus=cpus):
            return f"has something to do at the next tick of cpu{', cpu'.join(map(str, cpus)) or ' nobody'}"
        case TickTaken():
            return "takes a tick of its timer"
        case Executed(site=site):
            return f"has executed {site.instruction}"
        case Started(name=name):
            return f"{name} starts"
        case Finished(name=name, killed=killed):
            return f"{name} {'is killed' if killed else 'ends'}"
        case Annotated(payload=payload):
            return announced_in_words(payload)
        case _:
            assert_never(event)


def announced_in_words(payload: object) -> str:
    """What the kernel put into the trace."""
    match payload:
        case FlushBegun(function=function, start=start, end=end, cpus=cpus):
            return f"{function} begins, [{start:#x}, {end:#x}), on {len(cpus)} CPUs"
        case FlushCompleted(begun=begun):
            return f"the flush begun at event {begun} is complete"
        case FlushesSettled(generation=generation):
            return f"the flushes up to generation {generation} are complete"
        case OperationReturned(function=function, result=result):
            return f"{function} returns{'' if result is None else f' {result}'}"
        case PageFreed(pfn=pfn, order=order):
            return f"frees pfn {pfn:#x}, order {order}"
        case _ if is_dataclass(payload) and not isinstance(payload, type):
            told = ", ".join(f"{one.name} {getattr(payload, one.name)}" for one in fields(payload))
            return f"announces {type(payload).__name__}{f': {told}' if told else ''}"
        case _:
            return f"announces {payload}"


def where_of(event: MachineEvent) -> str:
    """The instruction, or the functions of the kernel, innermost first; empty where an event has no place."""
    site: Site | None = getattr(event, "site", None)
    functions = getattr(site, "functions", None)
    if functions is not None:
        return " < ".join(reversed(of_the_kernel(functions)[-MOST_FUNCTIONS:]))
    return "" if site is None else str(site)


def _by(source: Source) -> str:
    return "by its TLB" if source is Source.HIT else "by a walk"
