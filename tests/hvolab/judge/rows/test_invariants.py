"""Invariants: each is broken by hand, and told by its number; unbroken, none is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from emu.addr import PhysAddr
from emu.cpu.ops import Annotate, Count, FetchAndNot, FetchOr, Load, Store
from emu.mmu import without_rule
from emu.paging.models import LAZY, SKYLAKE, CpuModel
from emu.paging.pte import PteBit
from emu.paging.tlb import Rule
from emu.paging.walk import Walk
from hvolab.catalog.common import HUGE_PAGE, MEMORY_BYTES, optimize, restore
from hvolab.judge.verdict import Verdict
from hvolab.subject.outcome import Limits, Run
from hvolab.subject.run import run
from hvolab.subject.scenario import KernelActor, Setup, vmemmap_page
from hvolab.subject.script import Script, ScriptPicker, ToEnd
from hvolab.subject.script_text import parse_script
from kernel_model.boot import BootConfig, Kernel, boot
from kernel_model.core.events import MemoryFailed
from kernel_model.flush.broken import NEVER, SKIPS_LAST_CPU
from kernel_model.flush.policy import NamedPolicy
from kernel_model.flush.upstream import UPSTREAM
from kernel_model.layout import HUGETLB_OPTIMIZE_VMEMMAP_KEY, direct_map, page_to_pfn
from kernel_model.mm.image import HugePage
from kernel_model.mm.page import HugetlbFlag, Offset, field, folio_clear_hugetlb, nth_page

HEAD, TAIL_1, TAIL_2 = (vmemmap_page(HUGE_PAGE, index) for index in range(3))


def optimized_then(routine, model: CpuModel = SKYLAKE, policy: NamedPolicy = UPSTREAM) -> Run:
    """CPU 0 optimizes the huge page, then runs `routine`."""
    config = BootConfig(MEMORY_BYTES, 2, (HUGE_PAGE,), model=model, policy=policy)
    setup = Setup(config, (optimize(0), KernelActor(0, "breaks", routine)), (), (HEAD,))
    return followed(setup, (ToEnd(0),))


def followed(setup: Setup, script: Script) -> Run:
    return run(setup, lambda system: ScriptPicker(script, system.machine))


def causes(done: Run) -> list[str]:
    return [finding.cause for finding in done.findings]


async def nothing(kernel: Kernel, huge: HugePage) -> None:
    """Leaves all as it is."""


def entry_of(va) -> PhysAddr:
    """Where the PTE of a vmemmap page is once the folio has been optimized: the same in every run."""
    system = boot(BootConfig(MEMORY_BYTES, 2, (HUGE_PAGE,)))
    setup = Setup(system.config, (optimize(0),), (), ())
    found = followed(setup, (ToEnd(0),)).system.machine.cpus[0].mmu.peek(va)
    assert isinstance(found, Walk)
    return found.steps[-1].pa


async def tail_writable(kernel: Kernel, huge: HugePage) -> None:
    await FetchOr(direct_map(entry_of(TAIL_2)), PteBit.WRITE)


async def head_read_only(kernel: Kernel, huge: HugePage) -> None:
    await FetchAndNot(direct_map(entry_of(HEAD)), PteBit.WRITE)
    await kernel.flush.flush_tlb_all()


async def tail_elsewhere(kernel: Kernel, huge: HugePage) -> None:
    pte = direct_map(entry_of(TAIL_2))
    await Store(pte, await Load(pte) + 0x1000)
    await kernel.flush.flush_tlb_all()


async def key_lowered(kernel: Kernel, huge: HugePage) -> None:
    await Store(HUGETLB_OPTIMIZE_VMEMMAP_KEY, 0)


async def flag_lost(kernel: Kernel, huge: HugePage) -> None:
    await FetchAndNot(field(huge.folio, Offset.PRIVATE), HugetlbFlag.VMEMMAP_OPTIMIZED)


async def miscounted(kernel: Kernel, huge: HugePage) -> None:
    await Count("nr_memmap_pages", 1)


async def type_lost(kernel: Kernel, huge: HugePage) -> None:
    await folio_clear_hugetlb(huge.folio)


async def error_forgotten(kernel: Kernel, huge: HugePage) -> None:
    await Annotate(MemoryFailed(page_to_pfn(nth_page(huge.folio, 100))))


def test_an_optimized_folio_breaks_none() -> None:
    assert causes(optimized_then(nothing)) == []


@pytest.mark.parametrize(
    ("routine", "cause"),
    [
        (tail_writable, "I3: a tail page of an optimized folio is writable"),
        (head_read_only, "I3: the head page is not writable"),
        (tail_elsewhere, "I3: a tail page of an optimized folio does not show the head's page"),
        (key_lowered, "I4: there are fake heads, and the static key is not raised"),
        (flag_lost, "I5: the folio is optimized, and its head does not say so"),
        (miscounted, "I6: 506 vmemmap pages are counted, 505 are there"),
        (type_lost, "I9: the tails are missing, and the folio is not hugetlb"),
        (error_forgotten, "I12: the memory error in pfn 0x4064 is forgotten: nothing marks it"),
    ],
)
def test_a_broken_one_is_told_by_its_number(routine, cause: str) -> None:
    done = optimized_then(routine)
    assert cause in causes(done)
    assert {finding.verdict for finding in done.findings} == {Verdict.KERNEL}


@pytest.mark.parametrize("model", [SKYLAKE, LAZY], ids=lambda model: model.name)
def test_a_stale_entry_that_nobody_uses_is_told_with_its_cpu(model: CpuModel) -> None:
    """CPU 1 reads a tail and the head once, before anything happens, and never again."""

    async def reads(kernel: Kernel, huge: HugePage) -> None:
        await Load(TAIL_1)
        await Load(HEAD)

    config = BootConfig(MEMORY_BYTES, 2, (HUGE_PAGE,), model=model, policy=NEVER)
    setup = Setup(config, (optimize(0), KernelActor(1, "reader", reads)), (), (HEAD,))
    first = "cpu0 until set_pte_at(0xffffea0000100000)\n"
    of_cpu_1 = [
        (one.where.va, one.cause)
        for one in followed(setup, parse_script(f"{first}cpu1 to its end\ncpu0 to its end")).findings
        if one.where.cpu == 1
    ]
    assert (
        TAIL_1,
        "I1: a page of vmemmap may still be used as pfn 0x7f01, with nothing under way",
    ) in of_cpu_1
    good = replace(setup, boot=replace(config, policy=UPSTREAM))
    assert causes(followed(good, parse_script(f"{first}cpu1 to its end\ncpu0 to its end"))) == []


def test_a_read_only_entry_whose_page_has_become_writable_heals_itself() -> None:
    """R15: nobody owes a flush for more rights."""

    async def reads(kernel: Kernel, huge: HugePage) -> None:
        await Load(TAIL_2)

    async def loosens(kernel: Kernel, huge: HugePage) -> None:
        await FetchOr(direct_map(entry_of(TAIL_2)), PteBit.WRITE)
        await FetchAndNot(direct_map(entry_of(TAIL_2)), PteBit.WRITE)

    config = BootConfig(MEMORY_BYTES, 2, (HUGE_PAGE,))
    actors = (optimize(0), KernelActor(0, "loosens", loosens), KernelActor(1, "reader", reads))
    script = parse_script("cpu0 until free(pfn 0x7f07)\ncpu1 to its end\ncpu0 to its end")
    assert causes(followed(Setup(config, actors, (), (HEAD,)), script)) == []


def test_a_spurious_fault_that_does_not_heal_is_told() -> None:
    """A CPU that keeps its entry through the fault (against R12) writes, faults, and faults again."""

    async def writes(kernel: Kernel, huge: HugePage) -> None:
        await Load(TAIL_1)
        await Store(field(TAIL_1, Offset.PRIVATE), 1)

    model = without_rule(SKYLAKE, Rule.FAULT_INVALIDATES)
    config = BootConfig(MEMORY_BYTES, 2, (HUGE_PAGE,), model=model, policy=SKIPS_LAST_CPU)
    setup = Setup(config, (optimize(0), restore(0), KernelActor(1, "writer", writes)), (), (HEAD,))
    script = (*parse_script("cpu0 until free(pfn 0x7f07)\ncpu1 until Load(0xffffea0000101000)"), ToEnd(0))
    done = run(setup, lambda system: ScriptPicker((*script, ToEnd(1)), system.machine), limits=Limits(3000))
    told = [one.cause for one in done.findings if one.where.cpu == 1 and one.cause.startswith("I7")]
    assert told == ["I7: a second spurious fault of this CPU for one change of the page: it did not heal"]
