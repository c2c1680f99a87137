"""Steps of a kernel routine that have been made before, and do the same again: what they leave behind.

What a routine does as long as it reads nothing that others write follows from its history. So such steps need
not be carried out op by op: it is enough to store what they stored, and to go on where they led.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from emu.addr import PAGE_SHIFT, PhysAddr, VirtAddr
from emu.cpu.recall import HistoryNode
from emu.events import Copied, Filled, Stored
from emu.paging.walk import Access, Rights

StoreEvent: TypeAlias = Stored | Copied | Filled


class Through(NamedTuple):
    """An access, before which there were so many events but for walks, and the translation that it uses."""

    before: int
    va: VirtAddr
    access: Access
    rights: Rights
    dirty: bool


class Put(NamedTuple):
    """A store, and the event that tells of it, before which there were so many but for walks."""

    before: int
    pa: PhysAddr
    data: bytes
    event: StoreEvent


@dataclass(frozen=True, slots=True)
class Repeated:
    """What so many `steps` do, in its order. None of their accesses faults, none can use two translations.

    `events` are those but for walks. `counters`, and `stack` in bytes, are added to those of the CPU. `node`
    is where the routine is then.
    """

    steps: int
    events: int
    done: tuple[Through | Put, ...]
    counters: tuple[tuple[str, int], ...]
    stack: int
    node: HistoryNode


def in_a_row(some: Iterable[Repeated]) -> Repeated:
    """One after the other. There is at least one.

    Of the accesses to a page one that reads and one that writes are enough: the others find what these found.
    """
    steps = events = stack = 0
    done: list[Through | Put] = []
    counters: list[tuple[str, int]] = []
    known: set[tuple[int, Access]] = set()
    node: HistoryNode | None = None
    for one in some:
        for part in one.done:
            if isinstance(part, Through):
                if (part.va >> PAGE_SHIFT, part.access) in known:
                    continue
                known.add((part.va >> PAGE_SHIFT, part.access))
            done.append(part._replace(before=events + part.before))
        steps, events, stack, node = steps + one.steps, events + one.events, stack + one.stack, one.node
        counters += one.counters
    assert node is not None
    return Repeated(steps, events, tuple(done), tuple(counters), stack, node)
