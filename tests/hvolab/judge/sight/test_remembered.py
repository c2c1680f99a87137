"""What Sight keeps of a run's events, and what whoever watches is told of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from judge_lab import ELSEWHERE, FRAMES, HEAD, HUGE, TAIL_1
from noting_watcher import Noting

from emu.addr import Pfn, PhysAddr, VirtAddr
from emu.events import Annotated, Copied, Executed, Filled, GuestSite, RoutineSite, Source, Stored
from emu.machine import Machine
from emu.paging.walk import Walk
from hvolab.judge.sight.cells import Watching
from hvolab.judge.sight.frames import Loss, Lost
from hvolab.judge.sight.remembered import Remembered, announced
from hvolab.judge.sight.resource import Kind, Resource
from hvolab.judge.sight.sight import VMEMMAP
from kernel_model.boot import BootConfig, boot
from kernel_model.core.events import (
    FlushBegun,
    FlushCompleted,
    GracePeriodBegun,
    KernelBug,
    KernelEvent,
    MemoryFailed,
    OperationBegun,
    OperationReturned,
    PageAllocated,
    PageFreed,
)
from kernel_model.core.gfp import Gfp
from kernel_model.layout import pfn_to_page
from kernel_model.mm.pgtable import PAGE_KERNEL, PAGE_TABLE, mk_pte, page_table

SITE = RoutineSite(("f",))
TABLE = Pfn(0xE90)


@dataclass
class Run:
    """A machine at time zero whose vmemmap is split, without a run: events are made up."""

    machine: Machine
    remembered: Remembered
    watcher: Noting
    number: int = 100

    def announce(self, payload: KernelEvent, cpu: int = 0) -> int:
        return self.observe(Annotated(cpu, SITE, payload))

    def observe(self, event: object) -> int:
        self.number += 1
        self.remembered.observe(self.number, event)  # type: ignore[arg-type]
        return self.number

    def pte(self, va: VirtAddr) -> PhysAddr:
        found = self.machine.cpus[0].mmu.peek(va)
        assert isinstance(found, Walk)
        return found.steps[-1].pa

    def store(self, pa: PhysAddr, value: int, cpu: int = 0) -> int:
        old = self.machine.memory.read_word(pa)
        self.machine.memory.write_word(pa, value)
        return self.observe(Stored(cpu, SITE, VirtAddr(0), pa, 8, old, value, None, Source.WALK))  # type: ignore[arg-type]


@pytest.fixture
def run() -> Run:
    machine = boot(BootConfig(16 << 20, 2, (HUGE,))).machine
    found = machine.cpus[0].mmu.peek(HEAD)
    assert isinstance(found, Walk)
    first = found.leaf.leaf_pfn(found.size)
    machine.memory.load_image(PhysAddr(TABLE << 12), page_table(first, PAGE_KERNEL))
    machine.memory.load_image(found.steps[-1].pa, mk_pte(TABLE, PAGE_TABLE).to_bytes(8, "little"))
    watcher = Noting()
    return Run(machine, Remembered(machine, (VMEMMAP,), (HUGE,), Watching(watcher)), watcher)


def allocated(pfn: int, order: int) -> PageAllocated:
    return PageAllocated(Pfn(pfn), order, 0, "test", Gfp(0), 0)


def owners(*frames: int) -> list[tuple[str, object]]:
    return [("writes", Resource(Kind.OWNER, frame)) for frame in frames]


def lost(frame: int) -> list[tuple[str, object]]:
    return [("writes", Resource(Kind.LOST, frame)), ("lost", frame)]


def test_a_release_writes_the_owner_and_the_loss_of_each_frame_and_an_allocation_the_owner(run: Run) -> None:
    freed = run.announce(PageFreed(Pfn(0x900), 1, 1))
    assert run.watcher.taken() == [*owners(0x900, 0x901), *lost(0x900), *lost(0x901)]
    assert run.remembered.frames.freed_and_free(0x901) == Lost(Loss.FREED, 0, freed)
    run.announce(allocated(0x901, 0))
    assert run.watcher.taken() == owners(0x901)
    assert run.remembered.frames.freed_and_free(0x901) is None
    assert run.remembered.frames.freed_and_free(0x900) is not None


def test_a_flush_request_is_told_by_its_range(run: Run) -> None:
    begun = run.announce(FlushBegun("flush_tlb_kernel_range", HEAD, TAIL_1, frozenset({0})), cpu=1)
    done = run.announce(FlushCompleted(begun), cpu=1)
    assert run.watcher.taken() == [("flush begun", (HEAD, TAIL_1)), ("flush completed", (HEAD, TAIL_1))]
    (request,) = run.remembered.requests.of(HEAD)
    assert (request.cpu, request.begun, request.completed) == (1, begun, done)


def test_an_operation_writes_who_holds_its_folios_and_at_its_end_that_it_has_returned(run: Run) -> None:
    held = ("writes", Resource(Kind.HELD, HUGE.folio // 64))
    begun = run.announce(OperationBegun("optimize", (HUGE.folio,)), cpu=1)
    assert run.watcher.taken() == [held]
    run.announce(OperationReturned("optimize", begun, 0, (HUGE.folio,)), cpu=1)
    assert run.watcher.taken() == [("writes", Resource(Kind.OPERATION, 1, 0)), held]


def test_a_store_to_a_page_table_belongs_to_the_operation_that_made_it(run: Run) -> None:
    begun = run.announce(OperationBegun("optimize", (HUGE.folio,)))
    run.watcher.taken()
    run.store(run.pte(TAIL_1), mk_pte(FRAMES, PAGE_KERNEL))
    run.store(run.pte(HEAD), mk_pte(ELSEWHERE, PAGE_KERNEL), cpu=1)
    mapped = [("writes", Resource(Kind.MAPPED, pfn)) for pfn in (FRAMES + 1, FRAMES, FRAMES, ELSEWHERE)]
    assert run.watcher.taken() == mapped
    assert run.remembered.changed_by == {begun: {TAIL_1 >> 12}}, "the other CPU has none under way"
    assert run.remembered.mappings.changed == {HEAD >> 12, TAIL_1 >> 12}


def test_a_store_elsewhere_is_no_store_to_a_page_table(run: Run) -> None:
    run.announce(OperationBegun("optimize", (HUGE.folio,)))
    run.watcher.taken()
    run.store(PhysAddr(0x90_0000), 5)
    assert run.watcher.taken() == []
    assert run.remembered.changed_by == {}


def test_a_frame_that_changes_hands_is_lost(run: Run) -> None:
    other = pfn_to_page(Pfn(0xA00))
    run.store(run.pte(TAIL_1), 0)
    run.watcher.taken()
    number = run.store(run.pte(other), mk_pte(FRAMES + 1, PAGE_KERNEL))
    mapped = ("writes", Resource(Kind.MAPPED, FRAMES + 1))
    assert run.watcher.taken()[-3:] == [mapped, *lost(FRAMES + 1)]
    assert run.remembered.frames.last_lost(FRAMES + 1) == Lost(Loss.REUSED, 2, number)


def test_a_folio_that_is_allocated_holds_its_struct_pages(run: Run) -> None:
    """A frame taken from one of its pages and given to another of them has not changed hands."""
    pages = [pfn_to_page(Pfn(0xA00 + 64 * index)) for index in (0, 1)]
    run.announce(allocated(0xA00, 9))
    frame = run.machine.memory.read_word(run.pte(pages[0])) >> 12 & 0xFFFF_FFFF
    run.store(run.pte(pages[0]), 0)
    run.store(run.pte(pages[1]), mk_pte(frame, PAGE_KERNEL))
    assert run.remembered.frames.last_lost(frame) is None


@pytest.mark.parametrize(
    "made",
    [
        lambda pa: Filled(0, SITE, VirtAddr(0), pa, 8, None),  # type: ignore[arg-type]
        lambda pa: Copied(0, SITE, VirtAddr(0), pa, None, VirtAddr(0), PhysAddr(0), None, 8),  # type: ignore[arg-type]
    ],
    ids=["filled", "copied"],
)
def test_a_bulk_store_to_a_page_table_is_one_too(run: Run, made: Callable[[PhysAddr], object]) -> None:
    pa = run.pte(TAIL_1)
    run.machine.memory.write_word(pa, 0)
    run.observe(made(pa))
    assert run.watcher.taken() == [("writes", Resource(Kind.MAPPED, FRAMES + 1))]
    assert run.remembered.mappings.changed == {TAIL_1 >> 12}


def test_what_nothing_depends_on_later_is_told_nobody(run: Run) -> None:
    for payload in (GracePeriodBegun(), KernelBug("f", "list"), MemoryFailed(Pfn(0x900))):
        run.announce(payload)
    run.observe(Executed(0, GuestSite("reader", VirtAddr(0), "nop")))
    assert run.watcher.taken() == []


def test_only_events_of_the_kernel_are_announced() -> None:
    assert announced(Annotated(0, SITE, GracePeriodBegun())) == GracePeriodBegun()
    with pytest.raises(TypeError, match=r"^the kernel announced 'hello', which is no event of its$"):
        announced(Annotated(0, SITE, "hello"))
