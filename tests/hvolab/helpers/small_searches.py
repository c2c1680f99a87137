"""Searches walked by hand: a tree of choices in place of runs of a machine."""

from __future__ import annotations

from emu.choice import Choice, Step
from hvolab.explore.search.guide import PointStrategy
from hvolab.explore.search.interface import Freedom, Next

FREEDOMS = frozenset({Freedom.SCHEDULE})


def orders(search: PointStrategy, *steps: int, most: int = 1000) -> list[str]:
    """The runs of a search over CPUs with so many steps each, as letters, until it ends or after `most`."""
    found: list[str] = []
    while len(found) < most and search.begin():
        guide, left, order = search.guide(FREEDOMS), list(steps), ""
        while enabled := [Step(cpu) for cpu, count in enumerate(left) if count]:
            cpu = guide.pick(enabled).cpu
            left[cpu] -= 1
            order += "abc"[cpu]
        found.append(order)
        assert search.end(None) is Next.GO_ON  # type: ignore[arg-type]
    return found


class Listed(PointStrategy):
    """Ends after so many runs, and takes the same option at each point."""

    def __init__(self, name: str, runs: int, option: int = 0) -> None:
        self.name = name
        self.left = runs
        self.option = option
        self.asked: list[object] = []
        self.stepped_by: list[int] = []

    def begin(self) -> bool:
        self.left -= 1
        return self.left >= 0

    def choose(self, point: object) -> int:
        self.asked.append(point)
        return self.option

    def stepped(self, choice: Choice) -> None:
        self.stepped_by.append(choice.cpu)

    def extent(self) -> str:
        return self.name

    def save(self) -> int:
        return self.left

    def load(self, place: object) -> None:
        self.left = place.integer(0, 100)  # type: ignore[attr-defined]
