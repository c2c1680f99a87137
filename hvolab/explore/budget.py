"""How much an exploration may cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Budget:
    """Tested after every run. None: no limit. `steps` is the limit of one run, which is then cut off."""

    runs: int | None = None
    seconds: float | None = None
    steps: int = 100_000

    def spent(self, runs: int, seconds: float) -> str | None:
        """Which limit has been reached, in words; None when there is room for another run."""
        if self.runs is not None and runs >= self.runs:
            return f"the budget of {self.runs} runs"
        if self.seconds is not None and seconds >= self.seconds:
            return f"the budget of {self.seconds:g} s"
        return None
