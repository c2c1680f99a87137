"""Every interleaving and every answer of a tiny program on the machine, by running it again for each.

A `Litmus` is memory with a page table, CPUs, and routines that write what they saw into `seen`. `outcomes`
performs it with every list of choices and answers there is and returns the set of what was seen. Nothing
is left out and nothing is clever: the programs are small enough.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field

from emu.addr import PageSize, Pfn, PhysAddr, VirtAddr
from emu.choice import Question
from emu.cpu.cpu import KernelThread
from emu.cpu.routine import Code
from emu.cpu.software import InterruptHandler, Software, Trap, TrapOutcome
from emu.machine import Machine
from emu.memory import MIB, PhysicalMemory
from emu.paging.models import LAZY, CpuModel
from emu.paging.pte import Pte, PteBit
from emu.paging.walk import Control

PAGE = 0x1000
ROOT = Pfn(0x100)
X = VirtAddr(0xFFFF_EA00_0000_0000)
Y = VirtAddr(0xFFFF_EB00_0000_0000)
OLD, NEW, Y_FRAME = 0x800, 0x801, 0x810
TABLES = VirtAddr(0xFFFF_8880_0000_0000)  # all of memory, for stores to page tables
P, W, U, A, D = PteBit.PRESENT, PteBit.WRITE, PteBit.USER, PteBit.ACCESSED, PteBit.DIRTY
G, PS = PteBit.GLOBAL, PteBit.PAGE_SIZE
RW, RO, TABLE = P | W | A | D, P | A, P | W | U | A
MOST_RUNS = 50_000


def entry(frame: int, bits: PteBit = RW) -> Pte:
    return Pte.make(Pfn(frame), bits)


class _Script:
    """Answers from a list, then 0; notes how many options there were each time."""

    def __init__(self, answers: list[int]) -> None:
        self.answers = answers
        self.options: list[int] = []

    def choose(self, options: int) -> int:
        number = len(self.options)
        self.options.append(options)
        return self.answers[number] if number < len(self.answers) else 0

    def answer(self, question: Question) -> int:
        return self.choose(question.options)

    def following(self) -> list[int] | None:
        """The next list in the order of an odometer; None after the last."""
        answers = (self.answers + [0] * len(self.options))[: len(self.options)]
        while answers and answers[-1] + 1 == self.options[len(answers) - 1]:
            answers.pop()
        if not answers:
            return None
        return [*answers[:-1], answers[-1] + 1]


@dataclass
class Litmus:
    """One run's machine. `seen` becomes the outcome; `faults` counts page faults by CPU; `notes` is free."""

    cpus: int = 2
    model: CpuModel = LAZY
    control: Control = field(default_factory=Control)
    interrupts: Mapping[int, InterruptHandler] = field(default_factory=dict)
    on_trap: TrapOutcome = TrapOutcome.RETRY

    def __post_init__(self) -> None:
        self.memory = PhysicalMemory(16 * MIB)
        self._next_table = 0x102
        self.seen: dict[str, Hashable] = {}
        self.notes: list[str] = []
        self.faults = [0] * self.cpus
        for start in range(0, 16 * MIB, 2 * MIB):
            self.map(TABLES + start, start // PAGE, RW, PageSize.MIB2)
        self.map(X, OLD)
        self.map(Y, Y_FRAME)
        software = Software(self._trap, self.interrupts)
        self.machine = Machine(self.memory, self.cpus, self.model, ROOT, software, self.control)

    async def _trap(self, trap: Trap) -> TrapOutcome:
        self.faults[trap.cpu] += 1
        return self.on_trap

    def slot(self, va: int, level: int = 1) -> PhysAddr:
        """Where the entry for `va` lies; missing tables are made."""
        table = int(ROOT)
        for upper in (4, 3, 2, 1):
            pa = PhysAddr(table * PAGE + 8 * ((va >> (12 + 9 * (upper - 1))) & 511))
            if upper == level:
                return pa
            found = Pte(self.memory.read_word(pa))
            if not found.present:
                found = entry(self._next_table, TABLE)
                self._next_table += 1
                self.preset(pa, found)
            table = found.pfn
        raise AssertionError(level)

    def preset(self, pa: int, value: int) -> None:
        """That word has always held `value`."""
        self.memory.load_image(PhysAddr(pa), value.to_bytes(8, "little"))

    def map(self, va: int, frame: int, bits: PteBit = RW, size: PageSize = PageSize.KIB4) -> None:
        large = size is not PageSize.KIB4
        self.preset(self.slot(va, 2 if large else 1), entry(frame, bits | (PS if large else PteBit(0))))

    def alias(self, pa: int) -> VirtAddr:
        """Where kernel code stores to reach that physical word."""
        return VirtAddr(TABLES + pa)

    def value(self, frame: int) -> int:
        """The first word of a frame."""
        return self.memory.read_word(PhysAddr(frame * PAGE))

    def run(self, cpu: int, routine: Callable[[], Code]) -> None:
        self.machine.start(cpu, KernelThread(f"cpu{cpu}", routine))


Program = Callable[[Litmus], None]


def outcomes(program: Program, make: Callable[[], Litmus] = Litmus) -> set[tuple[tuple[str, Hashable], ...]]:
    """What `seen` can hold at the end (in the order of its keys) over all choices and answers.

    A run in which nothing is enabled before all is done is seen as ``("deadlock", ...)``.
    """
    found = set()
    answers: list[int] | None = []
    for _ in range(MOST_RUNS):
        assert answers is not None
        script = _Script(answers)
        litmus = make()
        program(litmus)
        while choices := litmus.machine.enabled():
            litmus.machine.perform(choices[script.choose(len(choices))], script)
        if litmus.machine.busy:
            litmus.seen["deadlock"] = str(litmus.machine.blocked())
        found.add(tuple(sorted(litmus.seen.items())))
        answers = script.following()
        if answers is None:
            return found
    raise AssertionError(f"more than {MOST_RUNS} runs")


def values(program: Program, *keys: str, make: Callable[[], Litmus] = Litmus) -> set[tuple[Hashable, ...]]:
    """The outcomes as tuples of what was seen under these keys."""
    found = outcomes(program, make)
    assert found
    assert all("deadlock" not in dict(one) for one in found), found
    return {tuple(dict(one)[key] for key in keys) for one in found}
