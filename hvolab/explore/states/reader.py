"""The state of a run between two steps: a value, equal for two runs whose rest is the same.

That is: what each further step does, what it touches, and what judges find. So a state has memory, words,
contexts and what waits in the machine, what is remembered of the past, what judges remember, and what
footprints of further steps depend on. Numbers of events and moments are in none of it.
"""

from __future__ import annotations

from collections.abc import Hashable

from emu.contents import Contents
from emu.cpu.cpu import CannotGoBack
from emu.kept import Bookmark, Kept
from emu.machine import Machine
from hvolab.explore.footprint.conflict import NOTHING, Footprint
from hvolab.explore.footprint.recorder import Recorder
from hvolab.explore.states.past import Past
from hvolab.explore.states.values import Values
from hvolab.judge.sight.sight import Sight

PARTS = ("memory", "words", "counters", "ledger", "interrupts", "CPUs", "past", "judges", "footprints")
ORDER = "order of the past"


class StateReader(Kept):
    """Of one run, from time zero on; told of each step when it has ended. `values` outlives the run.

    `blind_to` leaves parts out, or the ORDER of what is past, which is unsound: for tests that show that
    each of them matters.
    """

    parts = ("_past",)

    def __init__(
        self,
        machine: Machine,
        sight: Sight,
        recorder: Recorder,
        past: Past,
        values: Values,
        blind_to: frozenset[str] = frozenset(),
    ) -> None:
        self._machine = machine
        self._sight = sight
        self._recorder = recorder
        self._past = past
        self._values = values
        self._seen = tuple(part not in blind_to for part in PARTS)
        self._sees_order = ORDER not in blind_to
        self._contents = Contents(machine.memory)

    def ended(self, process: int, footprint: Footprint) -> None:
        """A step of that process has."""
        self._past.ended(process, footprint if self._sees_order else NOTHING)

    def passed(self) -> None:
        """Steps have been made that did nothing but access memory, and no page table."""
        self._past.passed()

    def back(self, mark: Bookmark) -> None:
        super().back(mark)
        self._contents.forget()

    def read(self) -> Hashable | None:
        """The state now; None where it cannot be told: of a routine not recalled, a judge of one's own."""
        if not self._sight.comparable:
            return None
        try:
            words, counters, ledger, interrupts, *cpus = self._machine.state(self._past)
        except CannotGoBack:
            return None
        told = (
            self._contents.number(),
            words,
            counters,
            ledger,
            interrupts,
            tuple(map(self._values.number, cpus)),
            self._past.state(),
            self._sight.state(),
            self._recorder.state(),
        )
        if self._past.state() is None:
            return None
        numbers = tuple(
            self._values.number(part) for part, seen in zip(told, self._seen, strict=True) if seen
        )
        return None if None in numbers else numbers
