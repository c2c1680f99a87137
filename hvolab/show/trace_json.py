"""Events as JSON lines: one object an event, in order. Addresses and frame numbers are hexadecimal text.

{"n": 88, "event": "Stored", "cpu": 0, "site": "...", "va": "0xffff888000007808", ...}
"""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import TextIO

from emu.events import GuestSite, InterruptSite, MachineEvent, RoutineSite
from emu.paging.dead_end import DeadEnd
from emu.paging.tlb import TlbEntry

_HEXADECIMAL = frozenset({
    "va", "pa", "to", "to_pa", "source_va", "source_pa", "pfn", "old", "value", "rip", "start", "end",
    "folios",
})  # fmt: skip


class TraceError(Exception):
    """The trace cannot be written."""


class TraceWriter:
    """A listener that writes every event to a text stream as it happens. Raises TraceError."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, number: int, event: MachineEvent) -> None:
        line = {"n": number, "event": type(event).__name__, **_members(event)}
        try:
            self._stream.write(json.dumps(line) + "\n")
            self._stream.flush()
        except OSError as error:
            raise TraceError(f"cannot write the trace: {error.strerror}") from None


def _members(value: object) -> dict[str, object]:
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        members = value._asdict()
    elif is_dataclass(value) and not isinstance(value, type):
        members = {f.name: getattr(value, f.name) for f in fields(value)}
    else:
        raise TypeError(f"not an event: {value!r}")
    return {name: _plain(name, member) for name, member in members.items()}


def _plain(name: str, value: object) -> object:
    match value:
        case None | bool() | str():
            return value
        case Enum():
            return value.name.lower() if not isinstance(value, int) else int(value)
        case int():
            return hex(value) if name in _HEXADECIMAL else int(value)
        case RoutineSite(functions=functions):
            return " > ".join(functions)
        case GuestSite() | InterruptSite():
            return str(value)
        case TlbEntry(filled_at=filled_at):
            return {"entry": str(value), "filled_at": filled_at}
        case DeadEnd():
            return str(value)
        case frozenset():
            return sorted(value)
        case tuple() if not hasattr(value, "_asdict"):
            return [_plain(name, item) for item in value]
        case _:
            return {"type": type(value).__name__, **_members(value)}
