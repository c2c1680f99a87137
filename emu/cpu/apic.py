"""Interrupts: what is pending on each CPU, and who has acknowledged what.

Delivery between processors is ordered per target CPU and takes no time of its own: the choice when a CPU
takes an interrupt is the machine's (`TakeInterrupt`). A local timer ticks for ever; a tick that finds nothing
to do is no step here, so it is pending where somebody has said that there is something, and once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass

from emu.cpu.handles import Names
from emu.kept import Kept

LOCAL_TIMER_VECTOR = 0xEC
_MOST_TICKS = 1000


class TicksWithoutEnd(RuntimeError):
    """Software finds something to do at the next tick, tick after tick."""


@dataclass(frozen=True, slots=True)
class Ipi:
    """One request as one target sees it."""

    request: int
    sender: int
    vector: int
    payload: object


class Apic(Kept):
    """The interrupt fabric of `cpus` CPUs."""

    kept = ("_pending", "_unacknowledged", "interrupted", "_ticking", "_ticks")

    def __init__(self, cpus: int) -> None:
        self._pending: list[deque[Ipi]] = [deque() for _ in range(cpus)]
        self._unacknowledged: list[set[int]] = []
        self.interrupted: set[int] = set()  # the CPUs that have an interrupt pending
        self._ticking: set[int] = set()  # those of them that have something to do at their next tick
        self._ticks = 0  # how many there have been, on all CPUs

    def reset(self) -> None:
        """Nothing pending, nothing owed, numbers from 0 again."""
        for queue in self._pending:
            queue.clear()
        self._unacknowledged.clear()
        self.interrupted.clear()
        self._ticking.clear()
        self._ticks = 0

    def state(self, names: Names) -> Hashable:
        """What is pending and what is owed. How many ticks there have been only guards against no end."""
        pending = (
            tuple((names.of_request(ipi.request), ipi.vector, ipi.payload) for ipi in queue)
            for queue in self._pending
        )
        owed = (
            (names.of_request(request), frozenset(cpus))
            for request, cpus in enumerate(self._unacknowledged)
            if cpus
        )
        return (tuple(pending), frozenset(owed), frozenset(self._ticking))

    def send(self, sender: int, targets: frozenset[int], vector: int, payload: object) -> int:
        """Queue an interrupt on every target. Returns the request's number.

        Raises ValueError for a target that does not exist or is the sender.
        """
        wrong = [cpu for cpu in targets if not 0 <= cpu < len(self._pending) or cpu == sender]
        if wrong:
            raise ValueError(f"cpu{sender} cannot send an IPI to {sorted(wrong)}")
        request = len(self._unacknowledged)
        self._unacknowledged.append(set(targets))
        for cpu in sorted(targets):
            self._pending[cpu].append(Ipi(request, sender, vector, payload))
        self.interrupted |= targets
        return request

    def take(self, cpu: int) -> Ipi:
        """The oldest pending interrupt. Raises IndexError when there is none."""
        ipi = self._pending[cpu].popleft()
        if not self._pending[cpu] and cpu not in self._ticking:
            self.interrupted.discard(cpu)
        return ipi

    def need_tick(self, cpus: frozenset[int]) -> None:
        """They have something to do at their next tick.

        Raises ValueError for one that does not exist, TicksWithoutEnd when there have been very many.
        """
        if self._ticks > _MOST_TICKS * len(self._pending):
            raise TicksWithoutEnd(f"{_MOST_TICKS} ticks for each CPU, and more to do at the next one")
        wrong = [cpu for cpu in cpus if not 0 <= cpu < len(self._pending)]
        if wrong:
            raise ValueError(f"there is no tick on CPUs {sorted(wrong)}")
        self._ticking |= cpus
        self.interrupted |= cpus

    def pending(self, cpu: int) -> tuple[int, bool]:
        """How many interrupts of other CPUs, and whether it has something to do at its next tick."""
        return len(self._pending[cpu]), cpu in self._ticking

    def tick(self, cpu: int) -> None:
        """It comes. Raises KeyError where there is nothing to do."""
        self._ticks += 1
        self._ticking.remove(cpu)
        if not self._pending[cpu]:
            self.interrupted.discard(cpu)

    def acknowledge(self, cpu: int, request: int) -> None:
        """Raises ValueError when this CPU owes that request no acknowledgement."""
        if not 0 <= request < len(self._unacknowledged) or cpu not in self._unacknowledged[request]:
            raise ValueError(f"cpu{cpu} owes request {request} no acknowledgement")
        self._unacknowledged[request].discard(cpu)

    def acknowledged(self, request: int) -> bool:
        """Whether every target of that request has acknowledged it."""
        return not self._unacknowledged[request]

    def owing(self, request: int) -> frozenset[int]:
        """The CPUs that have not acknowledged that request yet."""
        return frozenset(self._unacknowledged[request])
