"""Inter-processor interrupts: what is pending on each CPU and who has acknowledged what.

Delivery is ordered per target CPU and takes no time of its own: the choice when a CPU takes an interrupt
is the machine's (`TakeInterrupt`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass

from emu.cpu.handles import Names
from emu.kept import Kept


@dataclass(frozen=True, slots=True)
class Ipi:
    """One request as one target sees it."""

    request: int
    sender: int
    vector: int
    payload: object


class Apic(Kept):
    """The interrupt fabric of `cpus` CPUs."""

    kept = ("_pending", "_unacknowledged", "interrupted")

    def __init__(self, cpus: int) -> None:
        self._pending: list[deque[Ipi]] = [deque() for _ in range(cpus)]
        self._unacknowledged: list[set[int]] = []
        self.interrupted: set[int] = set()  # the CPUs that have an interrupt pending

    def reset(self) -> None:
        """Nothing pending, nothing owed, numbers from 0 again."""
        for queue in self._pending:
            queue.clear()
        self._unacknowledged.clear()
        self.interrupted.clear()

    def state(self, names: Names) -> Hashable:
        """What is pending and what is owed."""
        pending = (
            tuple((names.of_request(ipi.request), ipi.vector, ipi.payload) for ipi in queue)
            for queue in self._pending
        )
        owed = (
            (names.of_request(request), frozenset(cpus))
            for request, cpus in enumerate(self._unacknowledged)
            if cpus
        )
        return (tuple(pending), frozenset(owed))

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
        if not self._pending[cpu]:
            self.interrupted.discard(cpu)
        return ipi

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
