"""Who looks at struct pages by number, explored: what keeps each from harm, by taking it away."""

from __future__ import annotations

from dataclasses import replace

import pytest

from emu.cpu.ops import Store
from emu.paging.models import LAZY, LAZY_SINGLE, CpuModel
from hvolab.catalog import scenario
from hvolab.catalog.walkers import ENTRY
from hvolab.explore.budget import Budget
from hvolab.explore.explorer import Exploration, explore
from hvolab.explore.reduce.dpor import Reduced
from hvolab.explore.search.interface import Freedom
from hvolab.judge.verdict import Verdict
from hvolab.subject.scenario import GuestActor, KernelActor, Setup, vmemmap_page, with_deviation, with_program
from kernel_model.boot import Kernel
from kernel_model.core.kconfig import KernelConfig
from kernel_model.mm.image import HugePage
from kernel_model.mm.page import Offset, field
from kernel_model.variants.catalog import NO_RCU_WAIT

ALL = frozenset({Freedom.SCHEDULE, Freedom.IRQ, Freedom.TLB})


def everything(setup: Setup, model: CpuModel = LAZY) -> Exploration:
    done = explore(replace(setup, boot=replace(setup.boot, model=model)), Reduced(), ALL, Budget())
    assert done.coverage.complete
    return done


def violations(done: Exploration) -> set[tuple[Verdict, str]]:
    """The verdicts, and in whose code."""
    return {
        (one.finding.verdict, one.finding.where.code)
        for one in done.found
        if one.finding.verdict.is_violation
    }


def with_kernel(setup: Setup, name: str, routine) -> Setup:
    """The same with another routine on CPU 0."""
    guests = tuple(actor for actor in setup.actors if isinstance(actor, GuestActor))
    return replace(setup, actors=(KernelActor(0, name, routine), *guests))


def reader_of(name: str) -> GuestActor:
    (found,) = (actor for actor in scenario(name).build(2).actors if isinstance(actor, GuestActor))
    return found


# --- generations ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "older", "program"),
    [
        ("unfreeze-get-page-2025", "unfreeze-get-page", "get_page_unless_zero_2025"),
        ("freeze-get-page-v6-9", "freeze-get-page", "get_page_unless_zero_v6_9"),
    ],
)
def test_of_another_generation_only_the_reader_is_another(name: str, older: str, program: str) -> None:
    changed, setup = scenario(name).build(3), scenario(older).build(3)
    assert reader_of(name).program.name == program
    assert reader_of(older).program.name == "get_page_unless_zero"
    actors = tuple(
        replace(actor, program=reader_of(older).program) if isinstance(actor, GuestActor) else actor
        for actor in changed.actors
    )
    assert replace(changed, actors=actors) == setup


def test_the_order_of_2025_needs_the_rcu_wait_as_well() -> None:
    setup = scenario("unfreeze-get-page-2025").build(2)
    assert violations(everything(setup)) == set()
    without = violations(everything(with_deviation(setup, NO_RCU_WAIT)))
    assert without == {(Verdict.WRITE_PROTECT, "get_page_unless_zero_2025")}


# --- kpageflags -----------------------------------------------------------------------------------------


def test_kpageflags_is_right_on_a_cpu_with_one_entry_a_page() -> None:
    assert violations(everything(scenario("optimize-kpageflags").build(2), LAZY_SINGLE)) == set()


# --- compaction -----------------------------------------------------------------------------------------


async def _optimizes_whoever_holds_it(kernel: Kernel, huge: HugePage) -> None:
    """As `free and optimize`, but the count is made 0 whatever it was."""
    count = field(vmemmap_page(huge, 1), Offset.REFCOUNT)
    await Store(count, 1, 4)
    await Store(count, 0, 4)
    await kernel.hvo.hugetlb_vmemmap_optimize_folio(huge.hstate, huge.folio)


def test_compaction_is_kept_from_harm_by_its_reference() -> None:
    setup = scenario("optimize-compaction").build(2)
    assert violations(everything(setup)) == set()
    ignored = violations(everything(with_kernel(setup, "optimize", _optimizes_whoever_holds_it)))
    # Given back after the flush, or in between, to the frame that the tail had before.
    assert ignored == {
        (Verdict.WRITE_PROTECT, "isolate_migratepages"),
        (Verdict.LOST_UPDATE, "isolate_migratepages"),
    }


# --- GUP-fast -------------------------------------------------------------------------------------------


async def _pools_whoever_holds_it(kernel: Kernel, huge: HugePage) -> None:
    """As `unmap and optimize`, but the count is made 0 whatever it was."""
    count = field(huge.folio, Offset.REFCOUNT)
    await Store(count, 1, 4)
    await Store(ENTRY, vmemmap_page(huge, 1))
    await Store(ENTRY, 0)
    await Store(count, 0, 4)
    await kernel.hvo.hugetlb_vmemmap_optimize_folio(huge.hstate, huge.folio)


def gup_with_interrupts_on() -> str:
    source = reader_of("optimize-gup-fast").program.source
    assert source.count("    cli\n") == 1
    return source.replace("    cli\n", "    nop\n")


@pytest.mark.slow
def test_gup_is_kept_from_harm_by_the_freeze_alone() -> None:
    setup = scenario("optimize-gup-fast").build(2)
    assert violations(everything(with_program(setup, "gup", gup_with_interrupts_on()))) == set()


@pytest.mark.slow
def test_without_the_freeze_interrupts_that_are_off_hold_up_the_remap() -> None:
    setup = with_kernel(scenario("optimize-gup-fast").build(2), "pool", _pools_whoever_holds_it)
    # Without CONFIG_DEBUG_VM, which would tell that the count is not 0.
    setup = replace(setup, boot=replace(setup.boot, kernel=KernelConfig(debug_vm=False)))
    assert violations(everything(setup)) == set()
    on = violations(everything(with_program(setup, "gup", gup_with_interrupts_on())))
    assert on == {(Verdict.LOST_UPDATE, "gup")}
