"""The runs of scenarios in their own order, with everything that happened in them.

Addresses and frame numbers are computed here from the layout: vmemmap at its base, 64 bytes a struct page,
backed at time zero by the last 2 MiB of memory for each 128 MiB of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple, TypeVar

from large_runs import LARGE_RUNS

from emu.addr import PhysAddr
from emu.events import Annotated, IpiSent, Loaded, MachineEvent, Stored
from emu.machine import Machine
from hvolab.catalog import SCENARIOS, scenario
from hvolab.judge.verdict import Finding, Use
from hvolab.subject.outcome import Run
from hvolab.subject.run import collect, run
from hvolab.subject.scenario import Scenario
from hvolab.subject.script import ScriptPicker
from kernel_model.core.smp import FlushEverything, FlushPages

VMEMMAP = 0xFFFF_EA00_0000_0000
DIRECT_MAP = 0xFFFF_8880_0000_0000
PAGE = 4096
MIB = 1 << 20
HUGE_PFN = 0x4000
"""First frame of the 2 MiB huge page of every scenario but remap-1g."""
HEAD = VMEMMAP + 64 * HUGE_PFN
TAIL_1 = HEAD + PAGE
FIRST_FRAME = ((128 - 2) * MIB >> 12) + (HEAD - VMEMMAP) // PAGE
"""The frame behind the head's vmemmap page at time zero, with 128 MiB of memory; the tails' follow it."""
QUICK = tuple(candidate for candidate in SCENARIOS if candidate.name not in LARGE_RUNS)
RW, RO, LARGE = "P W A D G NX", "P A G NX", "P W A D G NX PSE"
_P = TypeVar("_P")


@dataclass
class Seen:
    """A run with everything it was heard to do."""

    run: Run
    events: list[tuple[int, MachineEvent]] = field(default_factory=list)

    @property
    def machine(self) -> Machine:
        return self.run.system.machine

    def finding(self) -> Finding:
        """The one there is."""
        assert len(self.run.findings) == 1
        return self.run.findings[0]

    def use(self) -> Use:
        assert len(self.run.uses) == 1
        return self.run.uses[0]

    def payloads(self, kind: type[_P]) -> list[tuple[int, _P]]:
        return [
            (n, e.payload) for n, e in self.events if isinstance(e, Annotated) and isinstance(e.payload, kind)
        ]

    def number_of(self, wanted: Callable[[MachineEvent], bool]) -> int:
        """The number of the first such event."""
        return next(number for number, event in self.events if wanted(event))

    def word(self, va: int) -> int:
        """The word behind an address now, by this file's own walk."""
        return self.machine.memory.read_word(PhysAddr(leaf(self.machine, va).pa))


def own_run(chosen: Scenario, cpus: int) -> Seen:
    """In the order of the scenario's script."""
    setup = chosen.build(cpus)
    events: list[tuple[int, MachineEvent]] = []
    done = run(setup, lambda system: ScriptPicker(setup.script, system.machine), (collect(events),))
    return Seen(done, events)


@cache
def seen(name: str, cpus: int) -> Seen:
    return own_run(scenario(name), cpus)


def counts(chosen: Scenario) -> list[int]:
    return sorted({cpus for cpus in (chosen.cpus_min, 2, 3, 5) if cpus >= chosen.cpus_min})


CASES = [(chosen.name, cpus) for chosen in QUICK for cpus in counts(chosen)]


# --- page tables, walked here ---------------------------------------------------------------------------


class Mapped(NamedTuple):
    level: int
    pa: int
    flags: str


_FLAGS = ((0, "P"), (1, "W"), (2, "U"), (5, "A"), (6, "D"), (8, "G"), (63, "NX"), (7, "PSE"))


def leaf(machine: Machine, va: int) -> Mapped:
    """What maps an address: read from physical memory, from CR3 down."""
    table = machine.cpus[0].mmu.root << 12
    for level, shift in ((4, 39), (3, 30), (2, 21), (1, 12)):
        entry = machine.memory.read_word(PhysAddr(table + 8 * (va >> shift & 511)))
        assert entry & 1, f"{va:#x} is not mapped at level {level}"
        table = entry & 0x000F_FFFF_FFFF_F000
        if level == 1 or (level < 4 and entry & 0x80):
            text = " ".join(word for bit, word in _FLAGS if entry >> bit & 1)
            return Mapped(level, table + (va & ((1 << shift) - 1)), text)
    raise AssertionError("a walk ends at level 1")


CR2 = VMEMMAP + 64 * HUGE_PFN + PAGE + 40
"""`private`, at offset 40 of the first struct page in the second vmemmap page."""

TAIL_WORD = TAIL_1 + 8
"""`compound_head` of the first struct page in the second vmemmap page."""


def is_pte_store(event: Stored, index: int) -> bool:
    """Whether this store wrote the PTE of the vmemmap page of that index: the 8 PTEs lie side by side."""
    if str(event.site) != "set_pte_at":
        return False
    return event.va >= DIRECT_MAP and (event.pa >> 3) % 512 == ((HEAD >> 12) + index) % 512


def flushes(event: IpiSent) -> bool:
    return isinstance(event.payload, FlushPages | FlushEverything)


def guest_values(done: Seen, cpu: int, va: int) -> list[int]:
    """What the guest on that CPU loaded from an address, in order."""
    return [
        event.value
        for _, event in done.events
        if isinstance(event, Loaded) and event.cpu == cpu and event.va == va
    ]
