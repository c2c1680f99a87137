"""`make bench`: steps and page walks per second beside bare Unicorn, schedules per second, cost per PTE.

Each round measures ours and bare Unicorn one after the other; the ratio is the median over the rounds, so
that it holds when the machine's speed drifts. Rates are of this machine and this moment.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from benchmarks import exploring, lazy, scale
from benchmarks.bare import BareUnicorn
from emu.addr import Pfn, VirtAddr, frame_start
from emu.choice import Defaults
from emu.cpu.cpu import GuestThread
from firmware.load import load_program
from firmware.program import Program
from hvolab.subject.scenario import load
from kernel_model.boot import BootConfig, System, boot
from kernel_model.mm.hstate import HSTATE_2M
from kernel_model.mm.image import HugePage

ROUNDS = 5
STEPS = 12_000
HUGE_PAGE = HugePage(Pfn(0x4000), HSTATE_2M)
FOREVER = 1 << 40

STEP_LOOP = """
again:
    mov rax, [rdi]
    add rax, 1
    mov [rdi + 8], rax
    lock xadd [rdi + 16], rax
    dec rcx
    jnz again
    hlt
"""
WALK_LOOP = """
again:
    invlpg [rdi]
    mov rax, [rdi]
    dec rcx
    jnz again
    hlt
"""


@dataclass(frozen=True, slots=True)
class Question:
    """A program, and how many of what one iteration of it makes."""

    name: str
    source: str
    steps_each: int


QUESTIONS = (
    Question("guest steps, exact mode", STEP_LOOP, 1),
    Question("page walks (INVLPG, load)", WALK_LOOP, 4),
)


def main() -> None:
    console = Console()
    table = Table(title=f"median of {ROUNDS} rounds", title_justify="left")
    for column in ("what", "hvolab /s", "bare Unicorn /s", "ratio"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for question in QUESTIONS:
        ours, bare = _measure(question)
        ratio = statistics.median(a / b for a, b in zip(ours, bare, strict=True))
        table.add_row(
            question.name,
            f"{statistics.median(ours):,.0f}",
            f"{statistics.median(bare):,.0f}",
            f"{ratio:.3f}",
        )
    console.print(table)
    exploring.show(console)
    lazy.show(console)
    scale.show(console)


def _measure(question: Question) -> tuple[list[float], list[float]]:
    program = load_program(question.name, question.source)
    system = _system(program)
    engine = BareUnicorn(system.machine.memory, frame_start(system.machine.cpus[0].mmu.root))
    engine.prepare(program.origin, HUGE_PAGE.folio, FOREVER)
    system.machine.start(
        0, GuestThread(program.name, VirtAddr(program.origin), {"rdi": HUGE_PAGE.folio, "rcx": FOREVER})
    )
    ours, bare = [], []
    for _ in range(ROUNDS):
        ours.append(_rate(lambda: _step(system, STEPS), question))
        bare.append(_rate(lambda: engine.steps(STEPS), question))
    return ours, bare


def _rate(action: Callable[[], None], question: Question) -> float:
    start = time.perf_counter()
    action()
    return STEPS / question.steps_each / (time.perf_counter() - start)


def _system(program: Program) -> System:
    system = boot(BootConfig(128 << 20, 1, (HUGE_PAGE,)))
    load(program, system)
    return system


def _step(system: System, steps: int) -> None:
    machine, answerer = system.machine, Defaults()
    for _ in range(steps):
        machine.perform(machine.enabled()[0], answerer)


main()
