"""Locks: who holds which, taken where; in which orders they are taken; what a killed context leaves behind.

A lock is taken and released by ops that no event tells of, so this judge is told of steps before they are
made. What it remembers of a CPU only that CPU's own steps change.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from emu.choice import Choice
from emu.events import Finished, MachineEvent
from emu.kept import Kept
from hvolab.judge.sight.sight import Sight
from kernel_model.core.spinlock import LOCKING_FUNCTIONS, holder_of, is_lock


@dataclass(frozen=True, slots=True, order=True)
class LockTaken:
    """A lock, by its name, and the kernel function that took it."""

    lock: str
    function: str

    def __str__(self) -> str:
        return f"{self.lock} in {self.function}"


@dataclass(frozen=True, slots=True, order=True)
class TakenInOrder:
    """The second was taken while the first was held."""

    first: LockTaken
    second: LockTaken

    @classmethod
    def of(cls, first: str, in_first: str, second: str, in_second: str) -> TakenInOrder:
        """From its `words`."""
        return cls(LockTaken(first, in_first), LockTaken(second, in_second))

    def words(self) -> tuple[str, str, str, str]:
        return self.first.lock, self.first.function, self.second.lock, self.second.function


_Held: TypeAlias = tuple[LockTaken, ...]
_NONE: _Held = ()


class Locks(Kept):
    """Follows one run."""

    kept = ("orders", "orphaned")

    def __init__(self, sight: Sight) -> None:
        self.orders: set[TakenInOrder] = set()
        self.orphaned: set[str] = set()  # locks whose holder was killed
        self._sight = sight
        self._held = sight.cells("locks that a CPU holds", _NONE)
        sight.remembers(self)

    def state(self) -> Hashable:
        """The orders seen are an exploration's; which locks are held, cells say."""
        return frozenset(self.orphaned)

    def before(self, choice: Choice) -> None:
        """That step is about to be made, and will come to its end."""
        cpu = choice.cpu
        changes = self._sight.changes_of_words(choice)
        if not changes:
            return
        for word, delta in changes:
            if not is_lock(word):
                continue
            held = self._held.get(cpu)
            if delta < 0:
                released = next((one for one in reversed(held) if one.lock == str(word)), None)
                self._held.set(tuple(one for one in held if one is not released), cpu)
                continue
            taken = LockTaken(str(word), self._function(cpu))
            self.orders.update(TakenInOrder(one, taken) for one in held)
            self._held.set((*held, taken), cpu)

    def observe(self, number: int, event: MachineEvent) -> None:
        """A context that is killed releases nothing."""
        del number
        match event:
            case Finished(cpu=cpu, killed=True):
                self.orphaned.update(one.lock for one in self._held.get(cpu))
            case _:
                pass  # ends nothing that holds a lock

    def explain(self, waits: Mapping[int, str]) -> tuple[str, ...]:
        """Of each CPU that waits for a lock: where, who has it, and where that was taken. For a run's end."""
        lines = []
        for cpu in waits:
            for word, value in self._sight.waited_for(cpu):
                holder = holder_of(value)
                if not is_lock(word) or holder is None:
                    continue
                taken = next((one for one in self._held.get(holder) if one.lock == str(word)), None)
                where = "" if taken is None else f", taken in {taken.function}"
                lines.append(
                    f"cpu{cpu} in {self._function(cpu)} waits for {word}, held by cpu{holder}{where}"
                )
        return tuple(lines)

    def is_a_consequence(self, waits: Mapping[int, str]) -> bool:
        """Whether a CPU waits for what a killed context holds for good. For a run's end."""
        return any(str(word) in self.orphaned for cpu in waits for word, _ in self._sight.waited_for(cpu))

    def _function(self, cpu: int) -> str:
        """The innermost kernel function of that CPU that is no lock's own."""
        functions = [
            name
            for name in self._sight.functions(cpu)
            if name not in LOCKING_FUNCTIONS and not name.startswith("_")
        ]
        return functions[-1] if functions else "?"


def inversions(orders: set[TakenInOrder]) -> list[str]:
    """Pairs of locks that were taken in both orders, in words: no schedule need have shown the deadlock."""
    told = []
    firsts: dict[tuple[str, str], TakenInOrder] = {}
    for one in sorted(orders):
        firsts.setdefault((one.first.lock, one.second.lock), one)
    for (lock, other), one in firsts.items():
        back = firsts.get((other, lock))
        if back is not None and lock < other:
            told.append(f"{one.first}, then {one.second}; but {back.first}, then {back.second}")
    return told
