"""A machine over a small page table, and a driver that performs what a test says, in the order it says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from guest_rig import CODE, CODE_FRAME, EXECUTABLE, PAGES, assemble
from paging_rig import FRAME, PAGE, ROOT, VA, PagingRig

from emu.addr import PhysAddr, VirtAddr
from emu.choice import Answerer, Choice, Defaults, Step, TakeInterrupt
from emu.cpu.cpu import GuestThread, KernelThread
from emu.cpu.routine import Code
from emu.cpu.software import InterruptHandler, Software, Trap
from emu.machine import Machine
from emu.paging.models import LAZY, CpuModel

FLUSH = 0xFD


class UnexpectedTrapError(Exception):
    pass


async def no_traps(trap: Trap) -> object:
    raise UnexpectedTrapError(repr(trap))


class MachineRig(PagingRig):
    """Pages VA + n * PAGE in frames FRAME + n, four of code at CODE. Every event is kept in `events`."""

    def __init__(
        self,
        cpus: int = 2,
        *,
        model: CpuModel = LAZY,
        interrupts: Mapping[int, InterruptHandler] | None = None,
        trap: Callable[[Trap], Code] = no_traps,
        listens: bool = True,
    ) -> None:
        super().__init__()
        for page in range(PAGES):
            self.map(VA + page * PAGE, FRAME + page)
            self.map(CODE + page * PAGE, CODE_FRAME + page, EXECUTABLE)
        self.machine = Machine(self.memory, cpus, model, ROOT, Software(trap, interrupts or {}))
        if listens:
            self.machine.trace.listen(lambda _number, event: self.events.append(event))

    def thread(self, cpu: int, routine: Callable[[], Code], name: str = "thread") -> None:
        self.machine.start(cpu, KernelThread(name, routine))

    def guest(
        self, cpu: int, program: str, registers: Mapping[str, int] | None = None, at: int = CODE
    ) -> None:
        self.memory.load_image(PhysAddr(CODE_FRAME * PAGE + at - CODE), assemble(program, at))
        self.machine.start(cpu, GuestThread("guest", VirtAddr(at), registers or {}))

    def step(self, cpu: int, count: int = 1, answerer: Answerer | None = None) -> None:
        for _ in range(count):
            self.machine.perform(Step(cpu), answerer or Defaults())

    def interrupt(self, cpu: int, answerer: Answerer | None = None) -> None:
        self.machine.perform(TakeInterrupt(cpu), answerer or Defaults())

    def enabled(self) -> list[Choice]:
        return self.machine.enabled()

    def run(self, answerer: Answerer | None = None, limit: int = 1000) -> None:
        """Always the first choice, until nothing is enabled."""
        for _ in range(limit):
            choices = self.machine.enabled()
            if not choices:
                return
            self.machine.perform(choices[0], answerer or Defaults())
        raise AssertionError(f"still running after {limit} steps")

    def told(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def names(self) -> list[str]:
        return [type(event).__name__ for event in self.events]

    def word(self, page: int = 0, offset: int = 0) -> int:
        return self.memory.read_word(PhysAddr((FRAME + page) * PAGE + offset))


def alone(*ops: Any) -> tuple[MachineRig, list[object]]:
    """Run these ops as one thread on one CPU. Returns the rig and the ops' results."""
    rig, results = MachineRig(1), []

    async def thread() -> None:
        for op in ops:
            results.append(await op)

    rig.thread(0, thread)
    rig.run()
    return rig, results
