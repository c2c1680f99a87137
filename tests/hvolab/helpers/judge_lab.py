"""Small systems driven by scripts, for judges: one CPU changes what another uses.

The systems are real ones of 16 MiB with one 2 MiB huge page, whose vmemmap pages are backed by frames
0xe20 to 0xe27.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from emu.addr import Pfn, PhysAddr, VirtAddr
from emu.choice import Question, VersionQuestion
from emu.paging.models import CpuModel
from emu.paging.pte import PteBit
from emu.paging.walk import Walk
from firmware.catalog import program
from firmware.load import load_program
from firmware.program import Argument
from hvolab.judge.verdict import Finding, Use, Verdict
from hvolab.subject.outcome import Completed, Limits, Run
from hvolab.subject.pattern import Finishes, Loads, Pattern
from hvolab.subject.picker import Picker
from hvolab.subject.run import run
from hvolab.subject.scenario import GuestActor, KernelActor, Setup, vmemmap_page
from hvolab.subject.script import Script, ScriptPicker, ToEnd, Until
from kernel_model.boot import BootConfig, Kernel, System
from kernel_model.flush.policy import FlushPolicy, NamedPolicy, StaleRange, Ticket, announce
from kernel_model.flush.upstream import UpstreamFlush
from kernel_model.mm.hstate import HSTATE_2M
from kernel_model.mm.image import HugePage
from kernel_model.mm.pgtable import PAGE_KERNEL, mk_pte, set_pte_at

HUGE = HugePage(Pfn(0x800), HSTATE_2M)
HEAD, TAIL_1, TAIL_2, TAIL_3 = (vmemmap_page(HUGE, n) for n in range(4))
WORD = VirtAddr(TAIL_1 + 8)
FRAMES = 0xE20
"""Of the head's page at time zero."""
ELSEWHERE = 0xE80
"""A frame of the same block that nothing here uses, nor frees."""
VALUE = 0x1234

Body = Callable[["Lab", Kernel], Awaitable[None]]


@dataclass
class Lab:
    """A system to boot, what runs on it, and its run."""

    boot: BootConfig
    actors: list[GuestActor | KernelActor]
    script: Script
    strategy: Callable[[Lab], Picker] | None = None
    most_steps: int = 20_000
    system: System | None = None

    def run(self) -> Run:
        setup = Setup(self.boot, tuple(self.actors), self.script, (HEAD, TAIL_1))

        def picker_for(system: System) -> Picker:
            self.system = system
            return self.strategy(self) if self.strategy else ScriptPicker(self.script, system.machine)

        return run(setup, picker_for, limits=Limits(self.most_steps))

    def walk(self, va: int) -> Walk:
        assert self.system is not None
        found = self.system.machine.cpus[0].mmu.peek(VirtAddr(va))
        assert isinstance(found, Walk)
        return found

    async def set_pte(self, va: int, pfn: int, bits: PteBit = PAGE_KERNEL) -> None:
        """set_pte_at() by the kernel, of a page that is mapped by a PTE."""
        found = self.walk(va)
        assert len(found.steps) == 4
        await set_pte_at(found.steps[-1].pa, mk_pte(pfn, bits))


def lab(*actors: GuestActor | KernelActor | tuple[int, str, Body], script: Script = (), **boot: Any) -> Lab:
    """A lab with these actors; a tuple is a kernel routine that is given the lab."""
    made = Lab(BootConfig(16 << 20, boot.pop("cpus", 2), (HUGE,), **boot), [], script)
    for actor in actors:
        made.actors.append(kernel(made, *actor) if isinstance(actor, tuple) else actor)
    return made


def kernel(made: Lab, cpu: int, name: str, body: Body) -> KernelActor:
    async def routine(booted: Kernel, _huge: HugePage) -> None:
        await body(made, booted)

    return KernelActor(cpu, name, routine)


def guest(cpu: int, source: str, name: str = "guest", **arguments: int) -> GuestActor:
    """A guest program; its arguments come in rdi, rsi, ... in the order given."""
    registers = zip(arguments, ("rdi", "rsi", "rdx", "rcx"), strict=False)
    described = tuple(Argument(argument, register, "", "") for argument, register in registers)
    return GuestActor(cpu, replace(load_program(name, source), arguments=described), tuple(arguments.items()))


def reader(cpu: int = 1, word: int = WORD) -> GuestActor:
    return GuestActor(cpu, program("read_twice"), (("word", int(word)),))


def writer(word: int, value: int = VALUE, name: str = "write_head") -> GuestActor:
    return GuestActor(1, program(name), (("word", int(word)), ("value", value)))


async def split(_lab: Lab, booted: Kernel) -> None:
    """The huge page's vmemmap is mapped by PTEs, and no TLB holds anything else."""
    await booted.hvo.hugetlb_vmemmap_split_folio(HSTATE_2M, HUGE.folio)
    await booted.flush.flush_tlb_all()


SPLIT = (0, "split", split)


def optimize_under(policy: NamedPolicy, model: CpuModel) -> Lab:
    """One CPU optimizes the huge page, and nobody else does anything."""

    async def optimizes(_lab: Lab, booted: Kernel) -> None:
        await booted.hvo.hugetlb_vmemmap_optimize_folio(HSTATE_2M, HUGE.folio)

    return lab((0, "optimize", optimizes), policy=policy, model=model, script=(ToEnd(0),), cpus=1)


def after_split(*rest: Any) -> Script:
    return (Until(0, Finishes("split")), *rest)


def cached_then(pattern: Pattern) -> Script:
    """Split; cpu1 caches; cpu0 goes on until the pattern; cpu1 uses it again; the rest."""
    return after_split(Until(1, Loads(WORD)), Until(0, pattern), ToEnd(1), ToEnd(0))


def only_use(done: Run) -> Use:
    assert isinstance(done.outcome, Completed)
    uses = [use for use in done.uses if use.where.cpu == 1]
    assert len(uses) == 1
    return uses[0]


def only_finding(done: Run) -> Finding:
    assert len(done.findings) == 1
    return done.findings[0]


def verdicts(done: Run) -> list[Verdict]:
    return [finding.verdict for finding in done.findings]


class Oldest(ScriptPicker):
    """As the script says, by CPUs that keep every stale translation as long as they may."""

    def answer(self, question: Question) -> int:
        return 0 if isinstance(question, VersionQuestion) else question.default


def oldest(made: Lab) -> Picker:
    assert made.system is not None
    return Oldest(made.script, made.system.machine)


class SilentFlush(FlushPolicy):
    """Does nothing and says nothing."""

    async def dispatch(self, stale: StaleRange) -> Ticket:
        return Ticket(stale)

    async def rely(self, ticket: Ticket) -> None:
        """Nothing."""


class NeverCompletes(UpstreamFlush):
    """Begins what nobody completes."""

    async def dispatch(self, stale: StaleRange) -> Ticket:
        await announce(stale, frozenset())
        return Ticket(stale)

    async def rely(self, ticket: Ticket) -> None:
        """Nothing."""


FIELD = VirtAddr(HEAD + 32)
"""A word of the head struct page."""
TAIL_FIELD = VirtAddr(TAIL_1 + 32)


def value_at(made: Lab, va: int) -> int:
    assert made.system is not None
    return made.system.machine.memory.read_word(PhysAddr(made.walk(va).pa))
