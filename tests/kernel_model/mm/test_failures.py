"""Which allocations fail: by position, from one on, until something is freed, or as somebody decides."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hvo_lab import SECTION, Lab
from zone import BASE, HWPOISON, Zone

from emu.ledger import Ledger
from kernel_model.boot import BootConfig
from kernel_model.core.events import AllocationFailed, PageFreed
from kernel_model.mm.failures import (
    AskFor,
    EachMayFail,
    FailAt,
    FailFrom,
    FailsNow,
    FailUntilFreed,
    NoteFree,
    PositionOf,
    Settle,
    forget_allocations,
)


def test_failures_by_position() -> None:
    zone = Zone((0x800, 0x900))
    zone.pages.failures = FailAt(frozenset({1, 3}))
    assert [zone.alloc() for _ in range(5)] == [0x800, None, 0x801, None, 0x802]
    assert [event.position for event in zone.cpu.heard(AllocationFailed)] == [1, 3]


def test_failures_from_a_position_on() -> None:
    zone = Zone((0x800, 0x900))
    zone.pages.failures = FailFrom(2)
    assert [zone.alloc() for _ in range(4)] == [0x800, 0x801, None, None]


def test_a_shortage_ends_when_a_page_is_freed() -> None:
    zone = Zone((0x800, 0x900))
    zone.pages.failures = FailUntilFreed(1)
    assert [zone.alloc() for _ in range(3)] == [0x800, None, None]
    zone.free(0x800)
    assert [zone.alloc() for _ in range(3)] == [0x800, 0x801, 0x802]


def test_a_shortage_ends_when_a_block_is_freed() -> None:
    lab = Lab(BootConfig(SECTION, 1, (), failures=FailUntilFreed(1)))
    pages = lab.kernel.pages
    block = lab.call(lambda: pages.alloc_pages(9, "block"))
    assert block is not None
    assert lab.call(lambda: pages.alloc_page("page")) is None
    assert lab.call(lambda: pages.alloc_pages(9, "block")) is None
    lab.call(lambda: pages.free_pages(block, 9))
    assert lab.call(lambda: pages.alloc_page("page")) is not None
    assert lab.call(lambda: pages.alloc_pages(9, "block")) is not None


def test_what_was_freed_before_a_shortage_does_not_end_it() -> None:
    zone = Zone((0x800, 0x900))
    zone.pages.failures = FailUntilFreed(2)
    zone.alloc()
    zone.alloc()
    zone.free(0x800)
    assert [zone.alloc(), zone.alloc()] == [None, None]
    zone.free(0x801)
    assert zone.alloc() == 0x801


@pytest.mark.parametrize("wrong", [{"refcount": 2}, {"mapping": 1}, {"flags": BASE | HWPOISON}])
def test_a_page_that_is_put_and_not_freed_does_not_end_a_shortage(wrong: dict[str, int]) -> None:
    zone = Zone((0x800, 0x900))
    zone.pages.failures = FailUntilFreed(1)
    zone.alloc()
    assert zone.alloc() is None
    zone.write(0x800, zone.read(0x800)._replace(**wrong))
    zone.free(0x800)
    assert zone.cpu.heard(PageFreed) == []
    assert zone.alloc() is None


@pytest.mark.parametrize(
    "back",
    [lambda zone: zone.cpu.ledger.undo(0), lambda zone: zone.pages.mark_time_zero()],
    ids=["put back to time zero", "another time zero"],
)
def test_at_time_zero_nothing_has_been_freed_yet(back: Callable[[Zone], None]) -> None:
    zone = Zone((0x800, 0x900))
    zone.pages.mark_time_zero()
    zone.cpu.ledger.forget()
    zone.pages.failures = FailUntilFreed(1)
    zone.alloc()
    assert zone.alloc() is None
    zone.free(0x800)
    assert zone.alloc() is not None
    back(zone)
    assert [zone.alloc() is None for _ in range(3)] == [False, True, True]


def test_failures_as_decisions() -> None:
    zone = Zone((0x800, 0x900))
    zone.pages.failures = EachMayFail()
    asked: list[str] = []

    def decide(label: str) -> int:
        asked.append(label)
        return int(len(asked) == 2)

    zone.cpu.decide = decide
    assert [zone.alloc() for _ in range(3)] == [0x800, None, 0x801]
    assert asked == ["allocation 0: test", "allocation 1: test", "allocation 2: test"]


def test_positions_count_the_allocations_of_all_cpus() -> None:
    ledger = Ledger()
    AskFor(0)(ledger)
    AskFor(1)(ledger)
    assert (PositionOf(0)(ledger), PositionOf(1)(ledger)) == (0, 1)
    AskFor(0)(ledger)
    assert PositionOf(0)(ledger) == 2
    forget_allocations(ledger)
    AskFor(1)(ledger)
    assert PositionOf(1)(ledger) == 0


def test_an_allocation_that_has_come_to_its_end_leaves_nothing_but_the_count() -> None:
    """Two that came in either order then are one state."""
    left = []
    for order in ((0, 1), (1, 0)):
        ledger = Ledger()
        for cpu in order:
            AskFor(cpu)(ledger)
        for cpu in order:
            Settle(cpu)(ledger)
        left.append(ledger.state())
    assert left[0] == left[1]


def test_whether_one_fails_is_told_by_its_own_position_and_by_what_was_freed() -> None:
    ledger = Ledger()
    AskFor(0)(ledger)
    AskFor(1)(ledger)
    at = FailAt(frozenset({1}))
    assert [FailsNow(cpu, at)(ledger) for cpu in (0, 1)] == [False, True]
    assert [FailsNow(cpu, FailFrom(1))(ledger) for cpu in (0, 1)] == [False, True]
    assert [FailsNow(cpu, FailUntilFreed(0))(ledger) for cpu in (0, 1)] == [True, True]
    NoteFree()(ledger)
    assert [FailsNow(cpu, FailUntilFreed(0))(ledger) for cpu in (0, 1)] == [False, False]
