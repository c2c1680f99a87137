"""A scenario: a question, a system to boot, who does what on which CPU, and in which order.

A scenario is a value; running it twice gives the same trace twice (`hvolab.subject.run`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import assert_never

from emu.addr import PAGE_BYTES, VirtAddr
from emu.cpu.cpu import GuestThread, KernelThread, Thread
from emu.cpu.routine import Code
from emu.guest.decode import BEHIND_THE_END
from emu.paging.walk import Walk
from firmware.load import load_program
from firmware.program import Program
from hvolab.judge.own import OwnJudge
from hvolab.judge.question import Asks
from hvolab.judge.sight.mappings import AddressRange
from hvolab.judge.sight.sight import VMEMMAP
from hvolab.judge.verdict import Verdict
from hvolab.subject.axes import Deviation, deviating
from hvolab.subject.script import Script
from kernel_model.boot import BootConfig, Kernel, System
from kernel_model.layout import HUGETLB_OPTIMIZE_VMEMMAP_KEY, PerCpu
from kernel_model.mm.image import HugePage
from kernel_model.variants.named import NamedVariant


class Group(Enum):
    """What kind of thing goes on."""

    REMAP = "remap: what HVO does, step by step"
    STALE = "stale: entries that outlive their page table"
    FAULT = "fault: writes to read-only tails"
    RACE = "race: upstream against what may run beside it, for `explore`"
    POOL = "pool: upstream's pool against what may run beside it, for `explore`"
    FLUSH = "bugs, flush: one that comes late, does too little, or never"
    KERNEL = "bugs, kernel: an order, a test or a copy that is missing"
    HARDWARE = "bugs, hardware: CPUs that do not do what was asked"
    OWN = "your own: from a file named with --load"


FLUSH_GROUPS = frozenset({Group.STALE, Group.FAULT, Group.RACE, Group.FLUSH, Group.HARDWARE})


@dataclass(frozen=True, slots=True)
class GuestActor:
    """A guest program on a CPU, its arguments by name."""

    cpu: int
    program: Program
    arguments: tuple[tuple[str, int], ...]
    asks: Asks | None = None  # what its result says, if that is to be judged


@dataclass(frozen=True, slots=True)
class KernelActor:
    """A kernel routine on a CPU."""

    cpu: int
    name: str
    routine: Callable[[Kernel, HugePage], Code]


@dataclass(frozen=True, slots=True)
class Tour:
    """Reading the watched pages again and again, while actors change what there is to be read.

    `readers`: who, by CPU and program, leaves two words of each page in the CPU's buffer. `states`: what the
    state is called once that actor, by CPU and name, has ended.
    """

    readers: frozenset[tuple[int, str]] = frozenset()
    states: tuple[tuple[tuple[int, str], str], ...] = ()


NO_TOUR = Tour()


@dataclass(frozen=True, slots=True)
class Setup:
    """A scenario made concrete for a number of CPUs. The actors of one CPU run one after the other."""

    boot: BootConfig
    actors: tuple[GuestActor | KernelActor, ...]
    script: Script
    watched: tuple[VirtAddr, ...]  # the vmemmap pages the report shows, by first address
    judged: tuple[AddressRange, ...] = (VMEMMAP,)  # where stale uses are judged
    tour: Tour = NO_TOUR  # how the report learns what each CPU reads in the watched pages
    judges: tuple[OwnJudge, ...] = ()  # a user's own, beside those that are always there
    loaded: str = ""  # what the contents of the user's file hash to, where one is used


@dataclass(frozen=True, slots=True)
class Bug:
    """What a scenario goes wrong with: the verdict, and an order that shows it."""

    deviation: Deviation
    verdict: Verdict
    script: Script


@dataclass(frozen=True, slots=True)
class Scenario:
    """`expected` says in words what happens; `verdicts` are the findings a run of it has.

    With one of the `bugs` something else happens: the verdict of the bug. With one of `costlier` nothing does
    but that it takes longer.
    """

    name: str
    group: Group
    question: str
    expected: str
    means: str
    cpus_min: int
    verdicts: frozenset[Verdict]
    build: Callable[[int], Setup]
    bugs: tuple[Bug, ...] = ()
    costlier: tuple[NamedVariant, ...] = ()
    flush: bool = False  # beside those of FLUSH_GROUPS

    @property
    def is_flush_scenario(self) -> bool:
        """Whether one CPU uses a translation of vmemmap that another changes."""
        return self.flush or self.group in FLUSH_GROUPS


class NoGuest(ValueError):
    """A program was given for a setup in which no guest program runs. One line."""


def with_deviation(setup: Setup, deviation: Deviation) -> Setup:
    """The setup on a kernel, or a CPU, that differs in that one thing."""
    return replace(setup, boot=deviating(setup.boot, deviation))


def with_program(setup: Setup, name: str, source: str) -> Setup:
    """The same setup with every guest program replaced by this source, which gets the same registers.

    Raises AssemblyError when it does not assemble, and NoGuest where no guest program runs.
    """
    if not any(isinstance(actor, GuestActor) for actor in setup.actors):
        raise NoGuest("no guest program runs there that another could take the place of: --program")
    code = load_program(name, source)
    actors = tuple(
        replace(actor, program=replace(code, arguments=actor.program.arguments))
        if isinstance(actor, GuestActor)
        else actor
        for actor in setup.actors
    )
    return replace(setup, actors=actors, tour=NO_TOUR)  # what that program leaves in a buffer nobody knows


def questions_of(setup: Setup) -> dict[tuple[int, str], Asks]:
    """What the guest programs ask, by CPU and name."""
    return {
        (actor.cpu, actor.program.name): actor.asks
        for actor in setup.actors
        if isinstance(actor, GuestActor) and actor.asks is not None
    }


def start_actors(setup: Setup, system: System) -> None:
    """Load the guest programs and queue every actor on its CPU.

    Raises ValueError for two programs in one place: what was put there first would never run.
    """
    placed: dict[int, Program] = {}
    for actor in setup.actors:
        if isinstance(actor, GuestActor):
            other = placed.setdefault(actor.program.origin, actor.program)
            if other.code != actor.program.code:
                raise ValueError(
                    f"programs {other.name} and {actor.program.name} are both linked at {other.origin:#x}"
                )
        system.machine.start(actor.cpu, _thread(actor, setup, system))


def _thread(actor: GuestActor | KernelActor, setup: Setup, system: System) -> Thread:
    huge = setup.boot.huge_pages[0]
    match actor:
        case GuestActor(cpu=cpu, program=code, arguments=arguments):
            load(code, system)
            return guest_thread(code, cpu, dict(arguments))
        case KernelActor(name=name, routine=routine):
            return KernelThread(name, lambda: routine(system.kernel, huge))
        case _:
            assert_never(actor)


def load(code: Program, system: System) -> None:
    """Put a program's code into kernel text, where it is linked. Behind it nothing can be run by mistake."""
    found = system.machine.cpus[0].mmu.peek(VirtAddr(code.origin))
    if not isinstance(found, Walk):
        raise ValueError(f"program {code.name} is linked at {code.origin:#x}, where nothing is mapped")
    system.machine.memory.load_image(found.pa, code.code.ljust(PAGE_BYTES, BEHIND_THE_END))


def guest_thread(code: Program, cpu: int, given: dict[str, int]) -> GuestThread:
    """A thread with each argument in its register; key, nesting word and buffer are where they always are.

    Beside those it has a stack, and the address of its CPU's 2 KiB of data in r15.
    """
    usual = {
        "key": int(HUGETLB_OPTIMIZE_VMEMMAP_KEY),
        "nesting": int(PerCpu(cpu).rcu_nesting),
        "buffer": int(PerCpu(cpu).buffer),
    }
    registers = {argument.register: {**usual, **given}[argument.name] for argument in code.arguments}
    always = {"rsp": PerCpu(cpu).stack + PAGE_BYTES, "r15": int(PerCpu(cpu).buffer)}
    return GuestThread(code.name, VirtAddr(code.origin), {**always, **registers})


def vmemmap_page(huge: HugePage, index: int) -> VirtAddr:
    """First address of a huge page's vmemmap page of that index; 0 is the head's."""
    return VirtAddr(huge.folio + index * PAGE_BYTES)
