"""The footprint of one step of each kind, as the machine makes it."""

from __future__ import annotations

from typing import Any

import pytest

from emu.addr import VirtAddr
from emu.choice import Defaults, Step, TakeInterrupt
from emu.cpu.condition import Word, WordIs
from emu.cpu.cpu import KernelThread
from emu.cpu.ops import AddWords, Await, Copy, Count, Fill, FlushTlbPages, Load, SendIpi, Store
from emu.machine import Machine
from emu.paging.models import LAZY
from emu.paging.walk import Walk
from hvolab.catalog.common import HUGE_PAGE, MEMORY_BYTES
from hvolab.explore.footprint.conflict import Footprint
from hvolab.explore.footprint.recorder import Recorder
from hvolab.explore.footprint.tables import Tables
from hvolab.judge.sight.resource import Kind, Resource
from kernel_model.boot import BootConfig, boot
from kernel_model.core.smp import CALL_FUNCTION_VECTOR
from kernel_model.layout import direct_map

FRAME, OTHER = 0x700, 0x701
VA, TO = direct_map(FRAME << 12), direct_map(OTHER << 12)
WORD = FRAME << 9  # its first word, by number
CONTEXT = Resource(Kind.CONTEXT, 0)
LOCK = Word("lock")


def bulk_read(frame: int = FRAME) -> Resource:
    return Resource(Kind.BULK_READ, frame)


def bulk_write(frame: int = FRAME) -> Resource:
    return Resource(Kind.BULK_WRITE, frame)


class Stepped:
    """A machine whose CPU 0 makes these ops; its translations never change."""

    def __init__(self, *ops: Any, without: frozenset[Kind] = frozenset()) -> None:
        self.machine: Machine = boot(BootConfig(MEMORY_BYTES, 2, (HUGE_PAGE,), model=LAZY)).machine
        self.recorder = Recorder(self.machine, Tables(self.machine.memory, LAZY), without)

        async def routine() -> None:
            for op in ops:
                await op

        self.machine.start(0, KernelThread("steps", routine))

    def step(self, choice: Step | TakeInterrupt = Step(0)) -> Footprint:  # noqa: B008
        self.recorder.before(choice)
        self.machine.perform(choice, Defaults())
        return self.recorder.after(choice)


def footprint(
    reads: set[object] | None = None, writes: set[object] | None = None, marks: set[object] | None = None
) -> Footprint:
    """With the context that runs on CPU 0, which every step of it reads."""
    some = [frozenset(one or ()) for one in ({CONTEXT, *(reads or ())}, writes, marks)]
    return Footprint(*some)  # type: ignore[arg-type]


STEPS: dict[str, tuple[Any, Footprint]] = {
    "a load, against bulk stores to the frame": (Load(VA), footprint({WORD}, marks={bulk_write()})),
    "a load over two words": (Load(VirtAddr(VA + 4), 8), footprint({WORD, WORD + 1}, marks={bulk_write()})),
    "a store, against bulk loads too": (
        Store(VA, 1),
        footprint({WORD}, {WORD}, {bulk_write(), bulk_read()}),
    ),
    "a page filled": (Fill(VA, bytes(4096)), footprint(set(), {bulk_write(), bulk_read()})),
    "a struct page filled, word by word": (
        Fill(VA, bytes(64)),
        footprint(set(), set(range(WORD, WORD + 8)), {bulk_read()}),
    ),
    "a page copied": (
        Copy(TO, VA, 4096),
        footprint({bulk_read()}, {bulk_write(OTHER), bulk_read(OTHER)}),
    ),
    "named words added to": (AddWords(((LOCK, 1),)), footprint(set(), {LOCK})),
    "an invalidation of a page that never had another translation": (FlushTlbPages(VA), footprint()),
    "an interrupt sent": (
        SendIpi(frozenset({1}), CALL_FUNCTION_VECTOR),
        footprint(set(), {Resource(Kind.IPI, 1)}),
    ),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_step_touches_what_the_machine_does_in_it(name: str) -> None:
    op, wanted = STEPS[name]
    assert Stepped(op).step() == wanted


def test_counters_are_sums_whoever_adds_first() -> None:
    """To count is no step of its own: it belongs to the one before."""
    found = Stepped(Load(VA), Count("nr_memmap_pages", 3), Load(VA)).step()
    assert Word("nr_memmap_pages") in found.marks
    assert Word("nr_memmap_pages") not in found.reads | found.writes


def test_a_wait_reads_its_condition_and_says_what_it_may_have_waited_for() -> None:
    one = Stepped(Await(WordIs(LOCK, 0), then=((LOCK, 1),)), Await(WordIs(LOCK, 0)))
    assert one.recorder.waits_for(Step(0)) in ({}, {LOCK: 0})
    one.step()
    assert one.machine.words[LOCK] in (0, 1)
    while not one.machine.words[LOCK]:
        one.step()
    blocked = one.recorder.blocked(Step(0))
    assert LOCK in blocked.reads
    assert one.recorder.waits_for(Step(0)) == {LOCK: 0}


def test_what_others_may_wait_for_is_noted_as_it_was_before() -> None:
    one = Stepped(AddWords(((LOCK, 1),)), Store(VA, 7))
    one.step()
    assert one.recorder.held == {LOCK: 0}
    one.step()
    assert one.recorder.held == {WORD: 0}


def test_an_interrupt_is_taken_while_the_flag_is_on_and_takes_what_is_pending() -> None:
    one = Stepped(SendIpi(frozenset({1}), CALL_FUNCTION_VECTOR))
    one.step()
    taken = TakeInterrupt(1)
    assert one.recorder.waits_for(taken) == {
        Resource(Kind.INTERRUPT_FLAG, 1): 1,
        Resource(Kind.IPI, 1): 1,
    }
    assert one.recorder.blocked(taken) == Footprint(
        frozenset({Resource(Kind.INTERRUPT_FLAG, 1)}), frozenset({Resource(Kind.IPI, 1)}), frozenset()
    )


def test_a_translation_counts_where_some_run_changes_it() -> None:
    one = Stepped(Load(VA))
    one.recorder.before(Step(0))
    page = VA >> 12
    one.recorder.reads_translation(page)
    assert Resource(Kind.TRANSLATION, page) not in one.recorder.after(Step(0)).reads
    tables = Tables(one.machine.memory, LAZY)
    tables.volatile.add(page)
    recorder = Recorder(one.machine, tables)
    recorder.before(Step(0))
    recorder.reads_translation(page)
    recorder.flush_begun(VA, VA + 4096)
    found = recorder.after(Step(0))
    assert Resource(Kind.TRANSLATION, page) in found.reads
    assert Resource(Kind.OWED, page) in found.marks


def test_a_frame_that_is_lost_counts_for_what_maps_it_and_for_what_is_translated_through_it() -> None:
    one = Stepped(Load(VA))
    tables = Tables(one.machine.memory, LAZY)
    head = VirtAddr(HUGE_PAGE.folio)
    found = one.machine.cpus[0].mmu.peek(head)
    assert isinstance(found, Walk)
    tables.learn(found)
    page, directory = head >> 12, found.steps[-1].pa >> 12
    tables.volatile.add(page)
    recorder = Recorder(one.machine, tables)
    recorder.before(Step(0))
    recorder.lost(directory)
    made = recorder.after(Step(0))
    assert Resource(Kind.MAPPED, directory) in made.reads
    assert made.writes == {Resource(Kind.TRANSLATION, page)}
    recorder.before(Step(0))
    recorder.lost(FRAME)
    assert recorder.after(Step(0)).writes == frozenset(), "no table"


def test_a_kind_that_is_left_out_is_in_no_footprint() -> None:
    one = Stepped(Store(VA, 1), without=frozenset({Kind.CONTEXT, Kind.BULK_READ, Kind.BULK_WRITE}))
    assert one.step() == Footprint(frozenset({WORD}), frozenset({WORD}), frozenset())
