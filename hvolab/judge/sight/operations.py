"""Which exported functions of the port are under way on which CPU, and which have returned."""

from __future__ import annotations

from dataclasses import dataclass

from emu.addr import VirtAddr
from emu.kept import Kept
from kernel_model.core.events import OperationBegun, OperationReturned


@dataclass(frozen=True, slots=True)
class Operation:
    """`begun` is the event of its begin, `nth` counts those that its CPU began before."""

    begun: int
    cpu: int
    nth: int
    function: str
    folios: tuple[VirtAddr, ...]
    returned: int | None = None


class Operations(Kept):
    kept = ("_all", "_under_way", "_counts")

    def __init__(self) -> None:
        self._all: dict[int, Operation] = {}
        self._under_way: dict[int, list[int]] = {}
        self._counts: dict[int, int] = {}

    def begun(self, number: int, cpu: int, what: OperationBegun) -> Operation:
        nth = self._counts[cpu] = self._counts.get(cpu, -1) + 1
        self._all[number] = Operation(number, cpu, nth, what.function, what.folios)
        self._under_way.setdefault(cpu, []).append(number)
        return self._all[number]

    def returned(self, number: int, what: OperationReturned) -> Operation:
        operation = self._all[what.begun]
        self._under_way[operation.cpu].remove(what.begun)
        done = Operation(
            operation.begun, operation.cpu, operation.nth, operation.function, operation.folios, number
        )
        self._all[what.begun] = done
        return done

    def __getitem__(self, begun: int) -> Operation:
        return self._all[begun]

    def current(self, cpu: int) -> int | None:
        """The innermost operation under way on that CPU, by the event of its begin."""
        under_way = self._under_way.get(cpu)
        return under_way[-1] if under_way else None

    def under_way(self) -> list[Operation]:
        return [self._all[begun] for numbers in self._under_way.values() for begun in numbers]

    @property
    def any_returned(self) -> bool:
        return any(one.returned is not None for one in self._all.values())
