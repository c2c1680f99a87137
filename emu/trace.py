"""The ordered list of events, and those who are told of each.

Events are numbered whether or not anybody listens, so a number means the same in every run of the same
schedule. The machine asks `listening` first and builds no event when nobody does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from emu.events import MachineEvent
from emu.kept import Kept

Listener: TypeAlias = Callable[[int, MachineEvent], None]


class Trace(Kept):
    """Numbers events and hands them to the listeners in the order they were added."""

    __slots__ = ("_listeners", "listening", "next_number")
    kept = ("next_number",)

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self.listening = False
        self.next_number = 0

    def listen(self, listener: Listener) -> None:
        """From now on call `listener(number, event)` for every event. It must not touch the machine."""
        self._listeners.append(listener)
        self.listening = True

    def reset(self) -> None:
        """Number from 0 again; nobody listens any more."""
        self._listeners.clear()
        self.listening = False
        self.next_number = 0

    def skip(self, events: int = 1) -> int:
        """Take numbers for events that nobody would hear. Returns the first."""
        number = self.next_number
        self.next_number += events
        return number

    def add(self, event: MachineEvent) -> int:
        """Number the event and tell the listeners. Returns the number."""
        number = self.skip()
        for listener in self._listeners:
            listener(number, event)
        return number
