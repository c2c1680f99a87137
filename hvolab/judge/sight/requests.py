"""Flush requests, and the invalidations that each CPU carried out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from emu.addr import PAGE_BYTES, VirtAddr, page_start
from emu.events import BroadcastCompleted, Invalidated
from emu.kept import Kept
from emu.memory import Moment
from emu.paging.tlb import Invalidation, Rule, TlbEntry, removes
from kernel_model.core.events import FlushBegun, FlushCompleted


class _Removal(NamedTuple):
    """By event `number`, as of `since`: of a broadcast its begin. `moment`: how many stores came before."""

    what: Invalidation
    number: int
    since: int
    moment: Moment


@dataclass(frozen=True, slots=True)
class Request:
    """A flush request as far as it has come. `completed` is the event of its completion."""

    begun: int
    cpu: int
    what: FlushBegun
    completed: int | None = None

    def in_range(self, va: VirtAddr) -> bool:
        page = page_start(va)
        return self.what.start < page + PAGE_BYTES and page < self.what.end

    def __str__(self) -> str:
        ended = "not completed" if self.completed is None else f"completed at event {self.completed}"
        cpus = ", ".join(map(str, sorted(self.what.cpus))) or "none"
        return f"{self.what.function} by cpu{self.cpu}, begun at event {self.begun}, for cpus {cpus}; {ended}"


class Requests(Kept):
    """`promised`: the rules that the CPUs' invalidations follow."""

    kept = ("_requests", "_invalidated", "_broadcasts")

    def __init__(self, promised: frozenset[Rule]) -> None:
        self._promised = promised
        self._requests: dict[int, Request] = {}
        self._invalidated: dict[int, list[_Removal]] = {}
        self._broadcasts: dict[int, Moment] = {}  # by its event: after how many stores it was sent

    def begun(self, number: int, cpu: int, what: FlushBegun) -> None:
        self._requests[number] = Request(number, cpu, what)

    def completed(self, number: int, what: FlushCompleted) -> Request:
        """The request as it is now."""
        done = replace(self._requests[what.begun], completed=number)
        self._requests[what.begun] = done
        return done

    def settled(self, number: int, generation: int) -> list[Request]:
        """Those of that generation or an earlier one that were open, as they are now."""
        done = [
            replace(request, completed=number)
            for request in self.open()
            if 0 < request.what.generation <= generation
        ]
        self._requests.update((request.begun, request) for request in done)
        return done

    def invalidated(self, number: int, moment: Moment, event: Invalidated) -> None:
        self._invalidated.setdefault(event.cpu, []).append(_Removal(event.what, number, number, moment))

    def broadcast(self, number: int, moment: Moment) -> None:
        """An INVLPGB, after so many stores."""
        self._broadcasts[number] = moment

    def carried_out(self, number: int, event: BroadcastCompleted, cpus: int) -> None:
        """By each of so many CPUs."""
        for begun, what in zip(event.begun, event.what, strict=True):
            for cpu in range(cpus):
                removal = _Removal(what, number, begun, self._broadcasts[begun])
                self._invalidated.setdefault(cpu, []).append(removal)

    def of(self, va: VirtAddr) -> list[Request]:
        """Those with `va` in range, in the order they were begun."""
        return [request for request in self._requests.values() if request.in_range(va)]

    def open(self) -> list[Request]:
        """Those that have not been completed."""
        return [request for request in self._requests.values() if request.completed is None]

    def removed(self, cpu: int, entry: TlbEntry) -> int | None:
        """The event of an invalidation on that CPU that must have removed the entry, if there was one."""
        for one in self._invalidated.get(cpu, ()):
            # A lazily offered version (filled_at < 0) could be cached until its moment; a stored one since.
            later = one.moment > entry.moment if entry.filled_at < 0 else one.since > entry.filled_at
            if later and removes(one.what, entry, self._promised):
                return one.number
        return None

    def last_removal(self, cpu: int, entry: TlbEntry, before: int) -> int | None:
        """The event, before that one, of the last invalidation on the CPU that removes such an entry."""
        for one in reversed(self._invalidated.get(cpu, ())):
            if one.number < before and removes(one.what, entry, self._promised):
                return one.number
        return None
