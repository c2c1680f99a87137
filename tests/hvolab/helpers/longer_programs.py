"""Longer random programs: pieces of kernel code within locks, sections, operations and conditions, and work
beside them that no other CPU sees. Flush handlers may be taken step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random

from small_programs import within_a_table
from small_setups import (
    WORD,
    Body,
    X,
    Y,
    config_of,
    loads,
    locked,
    note,
    on_the_folio,
    operation,
    reader_section,
    sets,
    setup_of,
    split,
    stores,
    then,
    waits,
    without_interrupts,
)

from emu.addr import VirtAddr
from emu.cpu.condition import Word, WordIs
from emu.cpu.ops import AddWords, Await, CmpXchg, Copy, FetchAdd, Fill, Load, LoadBytes, Store
from emu.cpu.software import Grain
from emu.paging.models import CpuModel, with_invlpgb
from hvolab.subject.scenario import Setup
from kernel_model.boot import Kernel
from kernel_model.flush.upstream import UPSTREAM
from kernel_model.layout import PerCpu

SHARED = (X, Y)
GO = Word("go")


def alone(cpu: int, value: int) -> Body:
    """Nobody else touches any of it."""
    own = VirtAddr(PerCpu(cpu).buffer + 1024)

    async def body(kernel: Kernel) -> None:
        await Store(own, value)
        await Fill(VirtAddr(own + 128), bytes([value]) * 128)
        await Store(VirtAddr(own + 8), await Load(own) + 1)
        await note(cpu, sum(await LoadBytes(VirtAddr(own + 128), 128)))

    return body


def takes(cpu: int, va: VirtAddr, value: int) -> Body:
    async def body(kernel: Kernel) -> None:
        await note(cpu, await CmpXchg(va, 0, value))
        await note(cpu, await FetchAdd(va, 1))

    return body


def copies(cpu: int, va: VirtAddr) -> Body:
    """No result says what was copied."""
    own = VirtAddr(PerCpu(cpu).buffer + 2048)

    async def body(kernel: Kernel) -> None:
        await Copy(own, va, 64)
        await note(cpu, await Load(own))

    return body


def if_set(va: VirtAddr, inner: Body) -> Body:
    async def body(kernel: Kernel) -> None:
        if await Load(va):
            await inner(kernel)

    return body


async def lets_go(kernel: Kernel) -> None:
    await AddWords(((GO, 1),))


async def waits_to_go(kernel: Kernel) -> None:
    await Await(WordIs(GO, 1))


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes programs of one CPU. `within`: what is not to be nested once more."""

    rng: Random
    cpu: int
    within: frozenset[str] = field(default_factory=frozenset)

    def some(self, most: int) -> Body:
        return then(*(self._one() for _ in range(self.rng.randint(2, most))))

    def _one(self) -> Body:
        kind = self.rng.choice(("alone", "shared", "shared", "shared", "piece", "piece", "within"))
        match kind:
            case "alone":
                return alone(self.cpu, self.rng.randint(1, 3))
            case "shared":
                return self._shared()
            case "piece":
                return self.rng.choice(within_a_table(self.cpu))
            case _:
                return self._within()

    def _shared(self) -> Body:
        va, value = self.rng.choice(SHARED), self.rng.randint(1, 3)
        return self.rng.choice(
            (
                stores((va, value)),
                loads(self.cpu, va),
                loads(self.cpu, WORD),
                stores((WORD, value)),
                takes(self.cpu, va, value),
                copies(self.cpu, va),
                lets_go,
                waits_to_go,
                sets(value),
                waits(value),
            )
        )

    def _within(self) -> Body:
        around: dict[str, Callable[[Body], Body]] = {
            "lock": locked,
            "section": lambda inner: reader_section(self.cpu, inner),
            "no interrupts": without_interrupts,
            "operation": operation,
            "folio": on_the_folio,
            "condition": lambda inner: if_set(self.rng.choice(SHARED), inner),
        }
        left = [name for name in around if name not in self.within]
        if not left:
            return alone(self.cpu, 1)
        name = self.rng.choice(left)
        inner = replace(self, within=self.within | {name})
        return around[name](inner.some(3))


def longer(seed: int, model: CpuModel) -> Setup:
    """The program of that seed. CPU 0 splits the PMD first."""
    rng = Random(seed)
    bodies = [Writer(rng, cpu).some(5) for cpu in range(rng.choice((2, 2, 2, 3)))]
    config = config_of(with_invlpgb(model))
    if rng.random() < 0.5:
        config = replace(config, policy=replace(UPSTREAM, grain=Grain.STEPWISE))
    return setup_of(then(split, bodies[0]), *bodies[1:], boot_config=config)
