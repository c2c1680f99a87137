"""What a judge is: it is told of every event, asks Sight, and says what it has found."""

from __future__ import annotations

from typing import Protocol

from emu.events import MachineEvent


class Judge(Protocol):
    """Between two events it remembers nothing but what is in cells that Sight holds for it."""

    def observe(self, number: int, event: MachineEvent) -> None:
        """Take note of one event, which Sight has taken note of."""
        ...
