"""Runs that follow a script, with what they picked and what happened."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from emu.addr import Pfn, VirtAddr
from emu.choice import Choice, Question
from emu.cpu.condition import Word
from emu.cpu.ops import Store
from emu.events import MachineEvent, Stored
from hvolab.subject.outcome import Run
from hvolab.subject.run import collect, run
from hvolab.subject.scenario import KernelActor, Setup, vmemmap_page
from hvolab.subject.script import Script, ScriptPicker
from kernel_model.boot import BootConfig, Kernel, System
from kernel_model.core.events import KernelWarning
from kernel_model.layout import PerCpu
from kernel_model.mm.hstate import HSTATE_2M
from kernel_model.mm.image import HugePage

HUGE = HugePage(Pfn(0x800), HSTATE_2M)
HEAD, TAIL_1, TAIL_7 = (vmemmap_page(HUGE, n) for n in (0, 1, 7))
FIRST_TAIL_FRAME = 0xE21
"""16 MiB: the top 2 MiB back vmemmap, frames 0xe00 on; struct page 0x840 is in its page 0x21."""
DOOR = Word("door")
NOWHERE = VirtAddr(0xFFFF_8880_00FF_0000)
HERE = KernelWarning("here", "the marker")
"""What no other actor of these tests announces with that number."""


def word(cpu: int, number: int) -> VirtAddr:
    """A word of that CPU's own, in the direct map."""
    return VirtAddr(PerCpu(cpu).buffer + 8 * number)


def actor(cpu: int, name: str, *ops: Any) -> KernelActor:
    """A routine that awaits these ops."""

    async def routine(_kernel: Kernel, _huge: HugePage) -> None:
        for op in ops:
            await op

    return KernelActor(cpu, name, routine)


def writer(cpu: int, name: str = "writer", words: int = 3) -> KernelActor:
    """Stores 1, 2, ... to words of that CPU's own."""
    return actor(cpu, name, *(Store(word(cpu, n), n + 1) for n in range(words)))


@dataclass
class Watched:
    """A script's strategy, and what it picked among what."""

    inner: ScriptPicker
    picked: list[tuple[Choice, dict[int, str]]] = field(default_factory=list)
    system: System | None = None

    def pick(self, enabled: list[Choice]) -> Choice:
        assert self.system is not None
        choice = self.inner.pick(enabled)
        self.picked.append((choice, self.system.machine.blocked()))
        return choice

    def answer(self, question: Question) -> int:
        return self.inner.answer(question)

    def finish(self) -> None:
        self.inner.finish()


@dataclass
class Scripted:
    """A finished run with its events and picks."""

    run: Run
    events: list[MachineEvent]
    picked: list[tuple[Choice, dict[int, str]]]

    def of(self, *kinds: type[MachineEvent]) -> list[MachineEvent]:
        return [event for event in self.events if isinstance(event, kinds)]

    def stores(self) -> list[tuple[int, int]]:
        """(cpu, value) of each store to a word of a CPU's own."""
        own = range(PerCpu(0).rcu_nesting, PerCpu(8).rcu_nesting)
        return [(e.cpu, e.value) for e in self.events if isinstance(e, Stored) and e.va in own]


def go(script: Script, *actors: KernelActor, cpus: int = 2) -> Scripted:
    setup = Setup(BootConfig(16 << 20, cpus, (HUGE,)), actors, script, ())
    events: list[tuple[int, MachineEvent]] = []
    watched: list[Watched] = []

    def strategy(system: System) -> Watched:
        watched.append(Watched(ScriptPicker(setup.script, system.machine), system=system))
        return watched[0]

    done = run(setup, strategy, (collect(events),))
    return Scripted(done, [event for _, event in events], watched[0].picked)
