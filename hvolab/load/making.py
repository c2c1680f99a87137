"""Making the parts of an experiment of one's own: actors, scenarios, judges. `hvolab.api` has them all."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import replace
from typing import get_args

from emu.addr import VirtAddr
from emu.events import MachineEvent
from emu.paging.models import LAZY, CpuModel
from firmware.load import USER_ORIGIN, load_program
from firmware.program import Argument
from hvolab.judge.own import Judgement, OwnJudge
from hvolab.judge.sight.mappings import AddressRange
from hvolab.judge.sight.sight import VMEMMAP
from hvolab.judge.verdict import Verdict
from hvolab.subject.scenario import Group, GuestActor, KernelActor, Scenario, Setup, vmemmap_page
from hvolab.subject.script_text import parse_script
from kernel_model.boot import BootConfig, Kernel
from kernel_model.core.events import KernelEvent
from kernel_model.mm.image import HugePage

Body = Callable[[Kernel, HugePage], object]
EVENTS = (*get_args(MachineEvent), *get_args(KernelEvent))
"""What a judge can be told of: the machine's events, and what the kernel announces."""


def kernel(cpu: int, body: Body, name: str = "") -> KernelActor:
    """A kernel routine on a CPU: `async def body(kernel, huge)`, over the kernel's functions and ops.

    Raises TypeError for what is no such function.
    """
    try:
        inspect.signature(body).bind(None, None)
    except (TypeError, ValueError):
        raise TypeError(f"kernel({cpu}, ...) wants a function of (kernel, huge)") from None
    if not inspect.iscoroutinefunction(body):
        raise TypeError(f"kernel({cpu}, ...) wants an async function: nothing is awaited in another")
    return KernelActor(cpu, name or getattr(body, "__name__", "kernel"), body)


def guest(cpu: int, source: str, name: str = "", **registers: int) -> GuestActor:
    """A guest program on a CPU, from assembly text; the registers named have these values when it begins.

    Raises AssemblyError, and ValueError for a register that programs are not given.
    """
    name = name or f"guest{cpu}"
    arguments = tuple(Argument(register, register, "given", "") for register in registers)
    program = load_program(name, source, arguments=arguments, origin=USER_ORIGIN + 4096 * cpu)
    return GuestActor(cpu, program, tuple((register, int(value)) for register, value in registers.items()))


def _apart(actors: Iterable[GuestActor | KernelActor]) -> Iterator[GuestActor | KernelActor]:
    """Guest programs each where no other is: several on one CPU run one after the other."""
    placed: dict[int, bytes] = {}
    for actor in actors:
        if isinstance(actor, GuestActor):
            program = actor.program
            if placed.get(program.origin, program.code) != program.code:
                free = max(placed) + 4096
                program = load_program(program.name, program.source, arguments=program.arguments, origin=free)
                actor = replace(actor, program=program)
            placed[program.origin] = program.code
        yield actor


def scenario(
    name: str,
    actors: Iterable[GuestActor | KernelActor],
    *,
    question: str = "",
    expected: str = "",
    verdicts: Iterable[Verdict] = (),
    huge_page: HugePage,
    memory_bytes: int = 128 << 20,
    model: CpuModel = LAZY,
    script: str = "",
    watched: Iterable[VirtAddr] = (),
    judged: Iterable[AddressRange] = (VMEMMAP,),
) -> Scenario:
    """A scenario: who does what on which CPU, what a run of it finds, which vmemmap pages are shown.

    `script`: ordering constraints, one a line, for `hvolab run`; without any each CPU runs to its end.
    Raises ScriptError.
    """
    actors, watched, judged = tuple(_apart(actors)), tuple(watched), tuple(judged)
    order = parse_script(script) if script.strip() else ()
    pages = watched or (vmemmap_page(huge_page, 0), vmemmap_page(huge_page, 1))

    def build(cpus: int) -> Setup:
        config = BootConfig(memory_bytes, cpus, (huge_page,), model=model)
        return Setup(config, actors, order, pages, judged)

    least = 1 + max((actor.cpu for actor in actors), default=0)
    found = frozenset(verdicts)
    return Scenario(name, Group.OWN, question or name, expected or "not said", "", least, found, build)


def judge(start: Hashable, *on: type) -> Callable[[Judgement], OwnJudge]:
    """Makes a judge of a function (state, event, sight) -> (state, problems), told of the events named.

    Raises TypeError for what is no kind of event, and where none is named.
    """

    strange = [one for one in on if not _is_kind(one)]
    if strange or not on:
        said = f"{strange[0]!r} is no kind of event" if strange else "it names no kind of event to be told of"
        raise TypeError(f"judge(start, KIND, ...): {said}")

    def made(judgement: Judgement) -> OwnJudge:
        summary = (judgement.__doc__ or "").strip().splitlines()
        name = getattr(judgement, "__name__", "judge")
        return OwnJudge(name, summary[0] if summary else "", judgement, start, on)

    return made


def _is_kind(one: object) -> bool:
    return isinstance(one, type) and issubclass(one, EVENTS)
