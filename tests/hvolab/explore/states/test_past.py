"""Two runs have one past where nobody can tell what they remember apart."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import pytest
from small_setups import FRAME, PAGE

from emu.addr import VirtAddr
from emu.choice import Defaults, Step, TakeInterrupt
from emu.cpu.cpu import KernelThread
from emu.cpu.ops import Annotate, FlushTlbPages, Load, SendIpi, Store
from emu.machine import Machine
from emu.paging.models import LAZY, LAZY_SINGLE, CpuModel
from emu.paging.walk import Walk
from hvolab.catalog.common import HUGE_PAGE, MEMORY_BYTES
from hvolab.explore.footprint.process import process_of
from hvolab.explore.footprint.recorder import Recorder
from hvolab.explore.footprint.tables import Tables
from hvolab.explore.states.past import Past
from hvolab.explore.states.values import Values
from hvolab.judge.sight.sight import Sight
from kernel_model.boot import BootConfig, boot
from kernel_model.core.events import FlushBegun, FlushCompleted, PageFreed
from kernel_model.core.smp import CALL_FUNCTION_VECTOR, SyncCore
from kernel_model.layout import direct_map

VALUES = Values(10_000)
WORD = direct_map(0x700 << 12)
SOFTWARE, OTHER = 1 << 58, 1 << 59  # bits of an entry that change no translation
MOVED = 1 << 21  # a bit that leads to another frame
BEGUN = FlushBegun("f", PAGE, PAGE + 4096, frozenset({0}))
ELSEWHERE = VirtAddr(PAGE + (4 << 20))
OTHER_BEGUN = FlushBegun("f", ELSEWHERE, ELSEWHERE + 4096, frozenset({0}))


class Lab:
    """CPU 0 and CPU 1 make these ops; a number stands for a store that turns these bits of PAGE's entry."""

    def __init__(self, first: tuple[Any, ...], second: tuple[Any, ...], model: CpuModel = LAZY) -> None:
        self.machine: Machine = boot(BootConfig(MEMORY_BYTES, 2, (HUGE_PAGE,), model=model)).machine
        self.tables = Tables(self.machine.memory, model)
        found = self.machine.cpus[0].mmu.peek(PAGE)
        assert isinstance(found, Walk)
        self.tables.learn(found)
        self.tables.volatile.add(PAGE >> 12)
        self.leaf = found.steps[-1]
        sight = Sight(self.machine, (HUGE_PAGE,))
        self.machine.trace.listen(sight.observe)
        self.recorder = Recorder(self.machine, self.tables)
        sight.watched_by(self.recorder)
        self.past = Past(self.machine, self.tables, VALUES)
        for cpu, ops in enumerate((first, second)):
            self.machine.start(cpu, KernelThread(f"t{cpu}", self._routine(ops)))

    def _routine(self, ops: tuple[Any, ...]) -> Any:
        async def routine() -> None:
            for op in ops:
                changed = Store(direct_map(self.leaf.pa), self.leaf.entry ^ op) if isinstance(op, int) else op
                await changed

        return routine

    def go(self, order: str) -> Hashable:
        """A digit steps that CPU; i lets CPU 1 take its interrupt."""
        for letter in order:
            choice = TakeInterrupt(1) if letter == "i" else Step(int(letter))
            process = process_of(self.machine, choice)
            self.recorder.before(choice)
            self.machine.perform(choice, Defaults())
            self.past.ended(process, self.recorder.after(choice))
        return self.past.state()


FLUSH, OTHER_FLUSH = FlushTlbPages(PAGE, 1), FlushTlbPages(ELSEWHERE, 1)
IPI = SendIpi(frozenset({1}), CALL_FUNCTION_VECTOR, SyncCore())


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ((Store(WORD, 1),), (Load(WORD),), True),  # memory says it, and nobody remembers it
        ((SOFTWARE,), (Load(WORD),), True),
        ((MOVED,), (FLUSH,), False),  # the window of CPU 1
        ((MOVED,), (Annotate(BEGUN),), False),  # whether the request covers the store
        ((MOVED,), (OTHER_FLUSH,), False),  # which forgets directories of all pages, and that is one
        ((MOVED,), (Annotate(OTHER_BEGUN),), True),
        ((FLUSH,), (Annotate(BEGUN),), True),
        ((FLUSH,), (FLUSH,), True),  # each its own window
        ((Annotate(BEGUN),), (Annotate(BEGUN),), True),
        ((Annotate(BEGUN),), (Annotate(PageFreed(FRAME, 0, 1)),), True),
        ((MOVED,), (Annotate(PageFreed(FRAME, 0, 1)),), False),  # whether a table led to it then
        ((IPI,), (Store(WORD, 1),), True),
    ],
)
def test_orders_that_count_give_another_past(
    first: tuple[Any, ...], second: tuple[Any, ...], same: bool
) -> None:
    assert (Lab(first, second).go("01") == Lab(first, second).go("10")) is same


def test_a_store_is_told_by_what_it_left_and_what_it_replaced() -> None:
    assert Lab((SOFTWARE,), ()).go("0") != Lab((OTHER,), ()).go("0")
    assert Lab((SOFTWARE,), ()).go("0") == Lab((SOFTWARE,), ()).go("0")


def test_with_one_entry_a_page_every_order_is_another_past() -> None:
    """Which version is used last has a place among all of them."""
    one, other = (Annotate(BEGUN),), (FLUSH,)
    assert Lab(one, other, LAZY_SINGLE).go("01") != Lab(one, other, LAZY_SINGLE).go("10")


def test_an_announcement_is_named_by_its_process_and_how_many_came_before() -> None:
    """Other events between change the numbers of events, and no name; nor do those that others announce."""
    ops = (Annotate(BEGUN), Annotate(FlushCompleted(0)))
    quiet, busy = Lab(ops, ()), Lab(ops, (Load(WORD), Load(WORD)))
    assert quiet.go("00") == busy.go("1010")
    first, last = Lab(ops, (Annotate(BEGUN),)), Lab(ops, (Annotate(BEGUN),))
    assert first.go("100") == last.go("001")


def test_a_past_that_is_put_back_goes_on_as_before() -> None:
    lab = Lab((SOFTWARE, FLUSH), ())
    lab.machine.trace.listen(lambda _number, _event: None)
    before = lab.go("0")
    mark = lab.past.mark()
    after = lab.go("0")
    assert after != before
    lab.past.back(mark)
    assert lab.past.state() == before


def test_with_one_entry_a_page_the_version_used_last_counts() -> None:
    """Whether it was used before or after the store."""
    loads = (Load(PAGE),)
    both = Lab((SOFTWARE,), loads, LAZY_SINGLE), Lab((SOFTWARE,), loads, LAZY_SINGLE)
    assert both[0].go("01") != both[1].go("10")
    assert Lab((SOFTWARE,), loads).go("01") == Lab((SOFTWARE,), loads).go("10")


def test_beyond_what_there_is_room_for_a_past_is_told_from_none() -> None:
    values = Values(1)
    assert [values.number(one) for one in ("a", "b", "a")] == [1, None, 1]
    lab = Lab((SOFTWARE, OTHER), ())
    lab.past = Past(lab.machine, lab.tables, values)
    assert lab.go("00") is None
    values.forget()
    assert values.number("b") == 1
