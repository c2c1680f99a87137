"""Traces: one JSON object an event, every type with its documented fields, no address as a number."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from functools import cache
from typing import Any, get_args

import pytest
from large_runs import LARGE_RUNS

import emu.events
import kernel_model.core.events
from emu.addr import PageSize, Pfn, PhysAddr, VirtAddr
from emu.events import (
    Annotated,
    BusErrorSeen,
    Faulted,
    GuestSite,
    InterruptSite,
    IpiSent,
    Loaded,
    MachineEvent,
    MultiHitSeen,
    RoutineSite,
    Source,
    TlbFilled,
    Trapped,
)
from emu.paging.dead_end import DeadEnd
from emu.paging.pte import Pte
from emu.paging.tlb import TlbEntry
from emu.paging.walk import Access, FaultCode, Lack, PageFault, Rights, WalkStep
from hvolab.catalog import SCENARIOS, scenario
from hvolab.show.trace_json import TraceWriter
from hvolab.subject.axes import POLICIES
from hvolab.subject.run import run
from hvolab.subject.scenario import with_program
from hvolab.subject.script import ScriptPicker
from kernel_model.boot import System
from kernel_model.core.events import BadPage, KernelEvent, OperationBegun

NAMES = (
    *(chosen.name for chosen in SCENARIOS if chosen.name not in LARGE_RUNS),
    "remap with invlpgb",
)
VMEMMAP = 0xFFFF_EA00_0000_0000
ADDRESSES = {
    "va",
    "pa",
    "cr2",
    "to",
    "to_pa",
    "source_va",
    "source_pa",
    "pfn",
    "rip",
    "start",
    "end",
    "folios",
}

Json = dict[str, Any]


@cache
def traced(name: str) -> tuple[tuple[Json, ...], tuple[MachineEvent, ...]]:
    """The lines of a scenario's trace, and the events they are of."""
    own, _, policy = name.partition(" with ")
    setup = scenario(own).build(3)
    return trace_of(
        replace(setup, boot=replace(setup.boot, policy=POLICIES.find(policy))) if policy else setup
    )


def trace_of(setup: Any) -> tuple[tuple[Json, ...], tuple[MachineEvent, ...]]:
    stream = io.StringIO()
    events: list[MachineEvent] = []

    def both(_system: System) -> Any:
        writer = TraceWriter(stream)

        def listen(number: int, event: MachineEvent) -> None:
            events.append(event)
            writer(number, event)

        return listen

    run(setup, lambda system: ScriptPicker(setup.script, system.machine), (both,))
    return tuple(json.loads(line) for line in stream.getvalue().splitlines()), tuple(events)


def written(event: MachineEvent, number: int = 0) -> Json:
    stream = io.StringIO()
    TraceWriter(stream)(number, event)
    line = stream.getvalue()
    assert line.endswith("\n")
    assert line.count("\n") == 1
    read: Json = json.loads(line)
    return read


def names_of(kind: type) -> list[str]:
    """The fields of an event or payload, as its class has them."""
    if hasattr(kind, "_fields"):
        return list(kind._fields)
    assert is_dataclass(kind)
    return [field.name for field in fields(kind)]


def parts(value: object, key: str = "") -> Iterator[tuple[str, object]]:
    """Every number and text in a line, with the name it stands under."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from parts(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from parts(item, key)
    else:
        yield key, value


# --- every event of every scenario ----------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_there_is_one_line_an_event_in_order(name: str) -> None:
    lines, events = traced(name)
    assert [line["n"] for line in lines] == list(range(len(events)))
    assert [line["event"] for line in lines] == [type(event).__name__ for event in events]
    assert [line["cpu"] for line in lines] == [event.cpu for event in events]


@pytest.mark.parametrize("name", NAMES)
def test_a_line_has_the_fields_of_its_event_and_no_others(name: str) -> None:
    lines, _ = traced(name)
    assert lines
    for line in lines:
        kind = getattr(emu.events, line["event"])
        assert list(line) == ["n", "event", *names_of(kind)]


@pytest.mark.parametrize("name", NAMES)
def test_a_payload_has_its_type_and_the_fields_of_it(name: str) -> None:
    payloads = [line["payload"] for line in traced(name)[0] if line["event"] == "Annotated"]
    assert payloads
    for payload in payloads:
        kind = getattr(kernel_model.core.events, payload["type"])
        assert list(payload) == ["type", *names_of(kind)]


@pytest.mark.parametrize("name", NAMES)
def test_addresses_and_frames_are_hexadecimal_text(name: str) -> None:
    found = [value for line in traced(name)[0] for key, value in parts(line) if key in ADDRESSES]
    assert found
    assert [value for value in found if not (isinstance(value, str) and hex(int(value, 16)) == value)] == []


@pytest.mark.parametrize("name", NAMES)
def test_no_number_loses_bits_in_a_reader_of_doubles(name: str) -> None:
    numbers = [value for line in traced(name)[0] for _, value in parts(line) if isinstance(value, int)]
    assert numbers
    assert max(map(abs, numbers)) < 1 << 53


@pytest.mark.parametrize("name", NAMES)
def test_where_code_runs_is_text(name: str) -> None:
    lines, events = traced(name)
    assert lines
    for line, event in zip(lines, events, strict=True):
        site = getattr(event, "site", None)
        match site:
            case RoutineSite(functions=functions):
                assert line["site"] == " > ".join(functions)
            case GuestSite() | InterruptSite():
                assert line["site"] == str(site)
            case _:
                assert "site" not in line


def test_the_scenarios_have_events_of_most_types() -> None:
    """What the tests above look at is worth looking at."""
    seen = {line["event"] for name in NAMES for line in traced(name)[0]}
    never = {kind.__name__ for kind in get_args(MachineEvent)} - seen
    assert never == {"MultiHitSeen", "BusErrorSeen", "Trapped", "Marked", "TickNeeded", "TickTaken"}
    payloads = {line["payload"]["type"] for name in NAMES for line in traced(name)[0] if "payload" in line}
    assert {
        "FlushBegun",
        "PageFreed",
        "Oops",
        "SpuriousFault",
        "GracePeriodEnded",
        "OperationReturned",
    } <= payloads


# --- single lines ---------------------------------------------------------------------------------------

RIGHTS = Rights(write=True, user=False, execute=False)


def some_entry() -> TlbEntry:
    """One that a run has made."""
    return next(event.entry for event in traced("stale-read")[1] if isinstance(event, TlbFilled))


def test_a_load() -> None:
    entry = some_entry()
    site = GuestSite("mine", VirtAddr(0xFFFF_FFFF_8100_0000), "mov rax, qword ptr [rdi]")
    line = written(Loaded(1, site, VirtAddr(VMEMMAP), PhysAddr(0x7F00000), 8, 0x1234, entry, Source.HIT), 7)
    assert line == {
        "n": 7,
        "event": "Loaded",
        "cpu": 1,
        "site": "mine 0xffffffff81000000: mov rax, qword ptr [rdi]",
        "va": "0xffffea0000000000",
        "pa": "0x7f00000",
        "size": 8,
        "value": "0x1234",
        "entry": {"entry": str(entry), "filled_at": entry.filled_at},
        "source": "hit",
    }


def test_a_fault() -> None:
    site = RoutineSite(("outer", "inner"))
    fault = PageFault(VirtAddr(VMEMMAP), FaultCode.WRITE | FaultCode.PROTECTION)
    assert written(Faulted(0, site, fault, None)) == {
        "n": 0,
        "event": "Faulted",
        "cpu": 0,
        "site": "outer > inner",
        "fault": {"type": "PageFault", "va": "0xffffea0000000000", "code": 3},
        "entry": None,
        "dead_end": None,
    }


def test_a_fault_at_a_dead_end() -> None:
    remembered = WalkStep(2, PhysAddr(0x2000), Pte(0x3023))
    dead_end = DeadEnd(
        VirtAddr(VMEMMAP), (remembered,), 1, 1, PhysAddr(0x3000), Pte(0), Lack.NOT_PRESENT, moment=4
    )
    fault = PageFault(VirtAddr(VMEMMAP), FaultCode(0))
    assert written(Faulted(0, RoutineSite(("reader",)), fault, None, dead_end))["dead_end"] == (
        "a walk from the remembered level 2 entry 0x3023 of 0x2000 ends at 0x3000: "
        "the level 1 entry is not present"
    )


def test_events_that_no_scenario_has() -> None:
    entry = some_entry()
    two = written(MultiHitSeen(2, VirtAddr(VMEMMAP), (PageSize.KIB4, PageSize.MIB2), (entry, entry)))
    assert two["va"] == "0xffffea0000000000"
    assert two["entries"] == [{"entry": str(entry), "filled_at": entry.filled_at}] * 2
    bus = written(BusErrorSeen(0, InterruptSite(0xFB), VirtAddr(VMEMMAP), PhysAddr(1 << 40)))
    assert (bus["site"], bus["pa"]) == ("interrupt 0xfb", "0x10000000000")
    trapped = written(Trapped(0, RoutineSite(()), 6))
    assert (trapped["site"], trapped["vector"]) == ("", 6)


def test_the_access_of_a_fill_is_a_word() -> None:
    assert written(TlbFilled(0, VirtAddr(0x1000), Access.FETCH, some_entry()))["access"] == "fetch"


def test_the_folios_of_an_operation_are_addresses() -> None:
    begun = OperationBegun("hugetlb_vmemmap_optimize_folio", (VirtAddr(VMEMMAP + 0x100000),))
    assert written(Annotated(0, RoutineSite(("f",)), begun))["payload"]["folios"] == ["0xffffea0000100000"]


def test_targets_and_payload_of_an_interrupt() -> None:
    line = written(IpiSent(0, RoutineSite(("f",)), 3, (1, 2), 0xFB, None))
    assert (line["request"], line["targets"], line["payload"]) == (3, [1, 2], None)


def test_a_frame_of_a_payload_is_hexadecimal() -> None:
    line = written(Annotated(0, RoutineSite(("f",)), BadPage(Pfn(0x4200), "nonzero mapcount")))
    assert line["payload"] == {"type": "BadPage", "pfn": "0x4200", "reason": "nonzero mapcount"}


def test_every_payload_of_the_kernel_can_be_written() -> None:
    """Whatever its fields hold: each class is made with values of the plainest kind."""
    plain = {"int": 5, "str": "text", "frozenset[int]": frozenset({2, 1}), "int | None": None}
    kinds = get_args(KernelEvent)
    assert kinds
    for kind in kinds:
        values = []
        for field in fields(kind):
            name = str(field.type)
            values.append((VirtAddr(VMEMMAP),) if name == "tuple[VirtAddr, ...]" else plain.get(name, 7))
            if name == "tuple[str, ...]":
                values[-1] = ("one", "two")
        line = written(Annotated(0, RoutineSite(("f",)), kind(*values)))
        assert list(line["payload"]) == ["type", *names_of(kind)]
        numbers = {key for key, value in parts(line["payload"]) if not isinstance(value, str)}
        assert numbers & ADDRESSES == set(), kind


def test_a_name_with_quotes_and_newlines_is_still_one_line() -> None:
    setup = with_program(scenario("tail-write").build(2), 'a "b"\n\\c', "mov [rdi], rsi\nhlt")
    lines, events = trace_of(setup)
    assert len(lines) == len(events)
    assert any('a "b"\n\\c ' in line.get("site", "") for line in lines)


def test_what_is_no_event_is_refused() -> None:
    with pytest.raises(TypeError) as caught:
        TraceWriter(io.StringIO())(0, "no event")  # type: ignore[arg-type]
    assert str(caught.value) == "not an event: 'no event'"
